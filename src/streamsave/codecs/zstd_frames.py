"""The frames of a zstd payload that another program wrote: pzstd's, those of concatenated files, whatever their sizes.

A frame's blocks say how long they are, so its end is found without decoding it, and none decodes to more than 128 KiB, so it
is known how much room it takes though the frame may not say. What is too large for a slot, or damaged, is for the sequential
reader: it goes on from any frame.
"""

from __future__ import annotations

from typing import Final

from ..units import MiB
from .base import DecodeError, NotFramed, ReadBytes
from .framed import SureFrames
from .zstd_structure import (
    HEADER_BOUND,
    PREFIX_SIZE,
    SIZE_PREFIX,
    SKIPPABLE,
    U32,
    FrameHeader,
    parse_block,
    parse_header,
)

_PIECE_SIZE: Final = 1 * MiB


class ZstdReframer(SureFrames):
    """See ``Reframer``. Puts the size in front of each frame, as in ours."""

    chunk_bound = 16 * MiB
    """pzstd's frames are of four windows: 8 MiB at its default level, up to twice as much at higher ones."""
    frame_bound = chunk_bound + MiB

    def __init__(self, read: ReadBytes) -> None:
        self._read = read
        self._data = bytearray()
        """What was read and is in no frame yet."""
        self._announced = False
        """Whether a frame has to follow."""

    @property
    def rest(self) -> bytes:
        return bytes(self._data)

    def next_frame(self, room: memoryview) -> int:
        while self._has(2 * U32.size) and U32.unpack_from(self._data)[0] in SKIPPABLE:
            self._skip()
        if not self._data and not self._announced:
            return 0
        size = self._frame_size()
        room[:PREFIX_SIZE] = SIZE_PREFIX + U32.pack(size)
        with memoryview(self._data) as data:
            room[PREFIX_SIZE : PREFIX_SIZE + size] = data[:size]
        del self._data[:size]
        self._announced = False
        return PREFIX_SIZE + size

    def _frame_size(self) -> int:
        """The size of the zstd frame that begins here, and all of it is in ``_data``; or NotFramed."""
        header = self._header()
        position, room, last = header.size, 0, False
        while not last:
            last, size, bound = parse_block(self._bytes(position, 3))
            position += 3 + size
            room += bound
            if position > self.chunk_bound or (header.content_size is None and room > self.chunk_bound):
                raise NotFramed
        if not self._has(position + header.checksum_size):
            raise NotFramed
        return position + header.checksum_size

    def _header(self) -> FrameHeader:
        self._has(HEADER_BOUND)
        try:
            header = parse_header(self._data[:HEADER_BOUND])
        except DecodeError:
            raise NotFramed from None
        if max(header.window, header.content_size or 0) > self.chunk_bound:
            raise NotFramed
        return header

    def _skip(self) -> None:
        """A skippable frame, of any size."""
        self._announced = self._data[: len(SIZE_PREFIX)] == SIZE_PREFIX
        left = 2 * U32.size + int(U32.unpack_from(self._data, U32.size)[0])
        while left:
            if not self._has(1):
                self._announced = True  # so that its end shows as a cut
                return
            step = min(left, len(self._data))
            del self._data[:step]
            left -= step

    def _bytes(self, start: int, size: int) -> bytes:
        if not self._has(start + size):
            raise NotFramed
        return bytes(self._data[start : start + size])

    def _has(self, size: int) -> bool:
        """Whether so many bytes follow."""
        while len(self._data) < size and (more := self._read(_PIECE_SIZE)):
            self._data += more
        return len(self._data) >= size
