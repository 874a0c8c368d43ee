"""Slots: the only memory of a pipeline.

A slot is a place in the output order that owns one buffer. The pool has a fixed number of them, and a slot returns only when
its output is *written*: however large the guest and however slow the disk, memory stays at ``count * size`` (plus what the
codec returns for the slots in flight).
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable

from ..errors import ResourceError
from ..types import Buffer
from ..units import MiB, format_size


class Slot:
    """One page-aligned buffer and what became of it. Fields belong to the stage that holds the slot."""

    __slots__ = ("buffer", "leaves", "number", "offset", "parts", "read_s", "size", "view")

    def __init__(self, size: int) -> None:
        """ResourceError: there is no memory for it."""
        try:
            self.buffer = mmap.mmap(-1, size)
        except OSError as error:
            raise ResourceError(
                f"no memory for one more buffer of {format_size(size)} ({error.strerror}): use fewer threads, or raise the"
                " limit (ulimit -v, or the control group's)"
            ) from error
        self.view = memoryview(self.buffer)
        self.size = 0
        """Valid input bytes in ``buffer``."""
        self.number = 0
        """The chunk's or frame's place in the stream, from 0."""
        self.offset = 0
        """Where the input began, in bytes from the start of the input."""
        self.read_s = 0.0
        """Seconds that a worker took to read the input, where that is not the reader's task."""
        self.parts: Iterable[Buffer] | None = None
        """The output, once it is there; perhaps made when the writer asks for it."""
        self.leaves = b""
        """The leaves of the chunk (``format.digest``), where somebody wants them."""


class BufferPool:
    """``count`` slots of ``size`` bytes each. The pipeline's gate locks it; the memory goes with the last reference."""

    def __init__(self, count: int, size: int) -> None:
        self.free: deque[Slot] = deque()
        self.resize(count, size)

    def resize(self, count: int, size: int) -> None:
        """``count`` slots of ``size`` bytes from now on; all are free."""
        self.count = count
        self.slot_size = size
        self.free.clear()
        self.free.extend(Slot(size) for _ in range(self.count))


def slot_count(threads: int) -> int:
    """Two per worker (one at work, one waiting) and one each for the reader, the writer and the hand-over between them."""
    return 2 * threads + 3


def foreign_slot_count(threads: int, size: int) -> int:
    """As ``slot_count``, but where other programs' frames are large no more than 128 MiB, or one per thread and two."""
    return min(slot_count(threads), max(threads + 2, 128 * MiB // size))
