"""Frames that begin with the same bytes, their size, and that of their chunk: gzip, snappy.

::

    frame = prefix | u32 size of the frame, u32 size of the chunk, little-endian | ...
"""

from __future__ import annotations

import struct

from .base import DecodeError, NotFramed, OversizedError, TruncatedError

_SIZES = struct.Struct("<II")


class SizedHeader:
    """The header of ``name``'s frames; the ``smallest`` of them has so many bytes."""

    def __init__(self, name: str, prefix: bytes, smallest: int) -> None:
        self.prefix = prefix
        self.size = len(prefix) + _SIZES.size
        self.smallest = smallest
        self._name = name

    def pack(self, frame_size: int, chunk_size: int) -> bytes:
        """The header of a frame."""
        return self.prefix + _SIZES.pack(frame_size, chunk_size)

    def unpack(self, view: memoryview) -> tuple[int, int]:
        """The sizes of the frame and of its chunk, as the header says. ``view`` has ``size`` bytes or more."""
        frame_size, chunk_size = _SIZES.unpack_from(view, len(self.prefix))
        return frame_size, chunk_size

    def check(self, frame: memoryview, room: int) -> int:
        """The size of the chunk, which fits ``room``, of a frame that is as large as it says.

        Raises:
            DecodeError: it is not, or this is not one of our frames.

        """
        if len(frame) < self.smallest:
            raise TruncatedError(f"{len(frame)} bytes are too few for a frame of {self._name}")
        if frame[: len(self.prefix)] != self.prefix:
            raise DecodeError(f"this is not the header of one of our frames of {self._name}")
        frame_size, chunk_size = self.unpack(frame)
        if frame_size != len(frame):
            kind = TruncatedError if frame_size > len(frame) else DecodeError
            raise kind(f"a frame of {frame_size} bytes in {len(frame)}")
        if chunk_size > room:
            raise OversizedError(f"a chunk of {chunk_size} bytes where at most {room} are expected")
        return chunk_size


class SizedSplitter:
    """Believes the header, within the bounds of a slot."""

    def __init__(self, header: SizedHeader, *, chunk_size: int, frame_bound: int) -> None:
        self._header = header
        self._chunk_size = chunk_size
        self._frame_bound = frame_bound

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """The size in the header."""
        prefix = self._header.prefix
        if view[: len(prefix)] != prefix[: len(view)]:
            raise NotFramed
        if len(view) < self._header.size:
            if final:
                raise NotFramed
            return 0
        frame_size, chunk_size = self._header.unpack(view)
        if not self._header.smallest <= frame_size <= self._frame_bound or chunk_size > self._chunk_size:
            raise NotFramed
        return frame_size
