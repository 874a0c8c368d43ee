"""Reading and writing all that is wanted, whatever a descriptor gives or takes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..types import Buffer

MAX_PARTS = 1024
"""IOV_MAX on Linux."""


def read_all(read: Callable[[memoryview], int], view: memoryview) -> int:
    """Call ``read`` (takes a view, returns the bytes read, 0 at the end) until ``view`` is full; how many came."""
    have = 0
    while have < len(view) and (got := read(view[have:])):
        have += got
    return have


def write_all(write: Callable[[list[memoryview]], int], parts: Sequence[Buffer]) -> None:
    """Call ``write`` (``writev`` or ``sendmsg``: takes views, returns the bytes taken) until all of ``parts`` is written.

    With few calls, however many the parts are.
    """
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    first = 0
    while first < len(views):
        taken = write(views[first : first + MAX_PARTS])
        while first < len(views) and taken >= len(views[first]):
            taken -= len(views[first])
            first += 1
        if taken:
            views[first] = views[first][taken:]
