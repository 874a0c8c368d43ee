"""The payload as the reader of a decompressing pipeline sees it: bytes that can be given back."""

from __future__ import annotations

from time import perf_counter

from ..types import Buffer, Source
from .stats import Stats


class Payload:
    """What is left of ``source``; counts and times what is read in ``stats``."""

    def __init__(self, source: Source, stats: Stats) -> None:
        self._source = source
        self._stats = stats
        self._ahead = memoryview(b"")
        """What was read and given back."""
        self._source_ended = False
        self._buffer = memoryview(b"")

    @property
    def position(self) -> int:
        """How many bytes are in front of the next one."""
        return self._stats.bytes_in - len(self._ahead)

    @property
    def ended(self) -> bool:
        """Whether a read has come to the end, and nothing was given back since."""
        return self._source_ended and not self._ahead

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; short only at the end."""
        got = min(len(view), len(self._ahead))
        if got:
            view[:got] = self._ahead[:got]
            self._ahead = self._ahead[got:]
        return got if got == len(view) else got + self._fill(view[got:])

    def leave(self, view: memoryview) -> int:
        """Leave out what would fill ``view``, for somebody else to read; its size. Nothing was given back."""
        self._stats.bytes_in += len(view)
        return len(view)

    def read(self, size: int) -> Buffer:
        """Up to ``size`` bytes, empty only at the end; borrowed until the next call."""
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return self._buffer[: self.readinto(self._buffer[:size])]

    def unread(self, data: Buffer) -> None:
        """Give back the last bytes that were read."""
        self._ahead = memoryview(bytes(data) + bytes(self._ahead) if self._ahead else bytes(data))

    def _fill(self, view: memoryview) -> int:
        began = perf_counter()
        got = self._source.readinto(view)
        self._stats.read_s += perf_counter() - began
        self._stats.bytes_in += got
        self._source_ended = got < len(view)
        return got
