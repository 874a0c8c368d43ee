"""A guest that nothing may harm, and the look whether something did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from streamsave.units import MiB

from ..kit.qemu import RunningQemu, demo_guest

GUEST: Final = demo_guest(16 * MiB)
SETTINGS: Final = ("query-migrate-capabilities", "query-migrate-parameters")


def state_of(running: RunningQemu) -> list[object]:
    """What a save may not change, asked over a new connection: so the monitor is free, too."""
    with running.qmp() as qmp:
        return [qmp.status(), *(qmp.execute(command) for command in SETTINGS)]


@contextmanager
def unharmed(running: RunningQemu) -> Iterator[None]:
    """After the body the guest is as it was, and counts on if it ran."""
    before = state_of(running)
    yield
    assert state_of(running) == before
    if before[0] == "running":
        running.wait_for_ticks(1, 10)
    else:
        assert running.is_still(0.3)
