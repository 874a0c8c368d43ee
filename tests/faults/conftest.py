"""A guest that survives every save that fails, and such saves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamsave.errors import StreamsaveError
from streamsave.operations.save import save
from streamsave.options import SaveOptions
from streamsave.units import MiB

from ..kit.qemu import RunningQemu, demo_guest
from .saving import OLDER, RAW, Fails, goes_on, state_of


@pytest.fixture(scope="module")
def guest(qemu: str) -> Iterator[RunningQemu]:
    """A guest that survives everything in its file."""
    with RunningQemu(demo_guest(16 * MiB)) as running:
        running.boot().qmp().close()
        yield running


@pytest.fixture
def fails(guest: RunningQemu, image: Path) -> Fails:
    """``fails(error, options, ...)``: a save over an older image that ends with ``error`` and changes nothing."""

    def attempt(kind: type[StreamsaveError], options: SaveOptions = RAW, **others: Any) -> StreamsaveError:
        before = state_of(guest)
        image.write_bytes(OLDER)
        with pytest.raises(kind) as caught:
            save(guest.monitor, image, options, **others)
        assert [each.name for each in image.parent.iterdir()] == [image.name]
        assert image.read_bytes() == OLDER
        goes_on(guest, before)
        assert not any("could not be brought back" in note for note in getattr(caught.value, "__notes__", ()))
        return caught.value

    return attempt
