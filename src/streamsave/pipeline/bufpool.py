"""Slots: the only memory of a pipeline.

A slot is a place in the output order that owns one buffer. The pool has a fixed number of them, and a slot returns only when
its output is *written*: however large the guest and however slow the disk, memory stays at ``count * size`` (plus what the
codec returns for the slots in flight).
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Sequence

from ..types import Buffer


class Slot:
    """One page-aligned buffer and what became of it. Fields belong to the stage that holds the slot."""

    __slots__ = ("buffer", "number", "offset", "parts", "size", "view")

    def __init__(self, size: int) -> None:
        self.buffer = mmap.mmap(-1, size)
        self.view = memoryview(self.buffer)
        self.size = 0
        """Valid input bytes in ``buffer``."""
        self.number = 0
        """The chunk's or frame's place in the stream, from 0."""
        self.offset = 0
        """Where the input began, in bytes from the start of the input."""
        self.parts: Sequence[Buffer] | None = None
        """The output, once it is there."""

    def release(self) -> None:
        """Unmap the buffer. Nothing may use the slot any more."""
        self.parts = None
        self.view.release()
        self.buffer.close()


class BufferPool:
    """``count`` slots of ``size`` bytes each. Not locked: the pipeline's gate is."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.slot_size = size
        self._slots = [Slot(size) for _ in range(count)]
        self.free = deque(self._slots)

    def release(self) -> None:
        """Unmap all buffers, once every stage has ended."""
        self.free.clear()
        for slot in self._slots:
            slot.release()


def slot_count(threads: int) -> int:
    """Two per worker (one at work, one waiting) and one each for the reader, the writer and the hand-over between them."""
    return 2 * threads + 3
