"""What several of the system tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..kit.qemu import RunningQemu
from .unharmed import GUEST


@pytest.fixture(scope="module")
def guest(qemu: str) -> Iterator[RunningQemu]:
    """A guest that nothing in the file may harm."""
    with RunningQemu(GUEST) as running:
        running.boot().qmp().close()
        yield running
