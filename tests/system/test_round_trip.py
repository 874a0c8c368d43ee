"""A Linux guest with 150 MiB of contents goes through save and restore, again and again, and notices nothing.

Each QEMU appends to the console of the one before, so that the console holds the guest's whole life: a tick that is missing
or comes twice, or one with another hash, is a save that was no instant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import SaveOptions

from ..conftest import Launch
from ..kit.linux import mixed_blob
from ..kit.qemu import Guest, RunningQemu

pytestmark = pytest.mark.qemu

FAST_ROUNDS = ("raw", "gzip", "zstd", "gzip", "zstd", "raw", "zstd", "gzip", "zstd")
"""What follows one round of each other format; that of bzip2 alone takes as long as all of these."""


def rounds(guest: RunningQemu, formats: Sequence[str], launch: Launch, image: Path) -> RunningQemu:
    """Save, end, restore and look at the guest, once per format. Returns the last QEMU."""
    expected = mixed_blob()
    for name in formats:
        saved = save(guest.monitor, image, SaveOptions(format=name))
        assert guest.wait() == 0
        assert (saved.format, saved.was_running, saved.then) == (name, True, "quit")
        assert saved.stream_size > expected.size
        if name != "raw":
            assert saved.image_size < saved.stream_size * 0.8
        counter = guest.counter()

        waiting = launch(guest.guest, incoming=True, after=guest)
        waiting.qmp().close()
        restored = restore(image, monitor=waiting.monitor)
        assert restored.running
        assert restored.parallel
        assert restored.stream_size == saved.stream_size
        waiting.wait_for_counter(counter + 2)  # the first tick may have begun before the save, the second saw all of it
        guest.kill()
        guest = waiting
    assert guest.console.seamless()
    hashes = set(re.findall(r"^tick \d+ memory ok (\w+)", guest.console.text(), re.MULTILINE))
    assert hashes == {expected.md5}
    return guest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_linux_guest_comes_through_ten_rounds(launch: Launch, linux: Guest, image: Path) -> None:
    others = [name for name in codecs() if name not in FAST_ROUNDS]
    rounds(launch(linux).boot(), (*others, *FAST_ROUNDS), launch, image)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", codecs())
def test_linux_guest_comes_through_ten_rounds_of_each_format(launch: Launch, linux: Guest, image: Path, name: str) -> None:
    rounds(launch(linux).boot(), (name,) * 10, launch, image)
