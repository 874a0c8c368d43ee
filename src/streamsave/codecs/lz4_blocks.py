"""The blocks of an lz4 payload that another program wrote, a few at a time as a frame of their own.

::

    frame = 04 22 4d 18 | flags, block maximum, content size if flagged, checksum | blocks | u32 0 | u32 xxh32 if flagged
    block = u32 size, its highest bit for stored | data | u32 xxh32 of the data if flagged

Numbers are little-endian. The tool's blocks are independent, so workers decode them in any order; what is checked over a
whole frame, its content's size and checksum, the writer checks, in order. Blocks that refer back to others (``lz4 -BD``) are
for the sequential reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ..types import Buffer
from ..units import KiB, MiB
from .base import DecodeError, NotFramed, ReadBytes, TruncatedError

MAGIC: Final = b"\x04\x22\x4d\x18"
SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
STORED: Final = 1 << 31
END_MARK: Final = bytes(4)

_VERSION_AND_RESERVED: Final = 0xC2
_VERSION: Final = 0x40
_INDEPENDENT: Final = 0x20
_BLOCK_CHECKSUM: Final = 0x10
_CONTENT_SIZE: Final = 0x08
_CONTENT_CHECKSUM: Final = 0x04
_DICTIONARY: Final = 0x01
_BLOCK_MAXIMA: Final = {0x40: 64 * KiB, 0x50: 256 * KiB, 0x60: 1 * MiB, 0x70: 4 * MiB}
_HEAD_SIZE: Final = len(MAGIC) + 3
"""Of a frame without a content size."""
_PIECE_SIZE: Final = 1 * MiB


@dataclass(frozen=True, slots=True)
class _Frame:
    """What its header says."""

    flags: int
    block_maximum: int
    content_size: int | None


@dataclass(frozen=True, slots=True)
class _Duty:
    """What the writer owes to some blocks."""

    hashed: bool
    """A checksum of the content is to come."""
    ends: bool = False
    """They are the last ones of their frame, and these are its claims, as far as it has any."""
    content_size: int | None = None
    checksum: int | None = None


class Lz4Reframer:
    """See ``Reframer``."""

    chunk_bound = 4 * MiB
    """The largest block that there is, or as many as come to that."""
    frame_bound = chunk_bound + _HEAD_SIZE + 8 * (chunk_bound // (64 * KiB)) + len(END_MARK)

    def __init__(self, read: ReadBytes) -> None:
        import xxhash

        self._read = read
        self._data = bytearray()
        """What was read and is in no frame yet."""
        self._frame: _Frame | None = None
        """That we are in."""
        self._duties: deque[_Duty] = deque()
        """From the reader to the writer, one for each frame of ours."""
        self._xxh32 = xxhash.xxh32_intdigest
        self._content = xxhash.xxh32()
        self._content_size = 0

    @property
    def rest(self) -> bytes:
        return bytes(self._data)

    # -- the reader ---------------------------------------------------------------------------------------------------

    def next_frame(self, room: memoryview) -> int:
        while True:
            if self._frame is None and not self._begin():
                return 0
            frame = self._frame
            assert frame is not None, "_begin() says that there is one"
            size = self._gather(frame, room)
            self._need(len(END_MARK))
            ends = self._data[: len(END_MARK)] == END_MARK
            duty = self._end(frame) if ends else _Duty(bool(frame.flags & _CONTENT_CHECKSUM))
            if size or ends:
                self._duties.append(duty)
                return size or self._close(frame, room, _HEAD_SIZE)

    def _begin(self) -> bool:
        """Enter the next frame, behind what is to be skipped; False: the payload ends."""
        while self._has(8) and int.from_bytes(self._data[:4], "little") in SKIPPABLE:
            self._skip(8 + int.from_bytes(self._data[4:8], "little"))
        if not self._data:
            return False
        if not self._has(_HEAD_SIZE) or self._data[:4] != MAGIC:
            raise NotFramed
        flags, maximum = self._data[4], self._data[5]
        size = _HEAD_SIZE + (8 if flags & _CONTENT_SIZE else 0)
        known = flags & _VERSION_AND_RESERVED == _VERSION and maximum in _BLOCK_MAXIMA
        if not known or not flags & _INDEPENDENT or flags & _DICTIONARY or not self._has(size):
            raise NotFramed
        descriptor = bytes(self._data[4 : size - 1])
        if self._data[size - 1] != header_checksum(descriptor, self._xxh32):
            raise NotFramed
        content_size = int.from_bytes(descriptor[2:], "little") if flags & _CONTENT_SIZE else None
        self._frame = _Frame(flags, _BLOCK_MAXIMA[maximum], content_size)
        del self._data[:size]
        return True

    def _gather(self, frame: _Frame, room: memoryview) -> int:
        """Blocks, as many as ``chunk_bound`` allows, as a frame; 0: there is none."""
        position, checksum_size = _HEAD_SIZE, 4 if frame.flags & _BLOCK_CHECKSUM else 0
        for _ in range(self.chunk_bound // frame.block_maximum):
            word = int.from_bytes(self._data[:4], "little") if self._has(4) else None
            size = 0 if word is None else word & ~STORED
            if size > frame.block_maximum:
                raise DecodeError(f"an lz4 block of {size} bytes in a frame whose largest have {frame.block_maximum}")
            whole = 4 + size + checksum_size
            if word == 0 or (position > _HEAD_SIZE and not self._has(whole)):
                break  # what was cut is said when it is asked for again
            self._need(whole)
            with memoryview(self._data) as data:
                room[position : position + whole] = data[:whole]
            del self._data[:whole]
            position += whole
        return self._close(frame, room, position) if position > _HEAD_SIZE else 0

    def _close(self, frame: _Frame, room: memoryview, position: int) -> int:
        """Make what is in ``room`` a frame."""
        descriptor = bytes([_VERSION | _INDEPENDENT | frame.flags & _BLOCK_CHECKSUM, _code_of(frame.block_maximum)])
        room[:_HEAD_SIZE] = MAGIC + descriptor + bytes([header_checksum(descriptor, self._xxh32)])
        room[position : position + 4] = END_MARK
        return position + 4

    def _end(self, frame: _Frame) -> _Duty:
        """Leave the frame."""
        hashed = bool(frame.flags & _CONTENT_CHECKSUM)
        size = len(END_MARK) + (4 if hashed else 0)
        self._need(size)
        checksum = int.from_bytes(self._data[len(END_MARK) : size], "little") if hashed else None
        del self._data[:size]
        self._frame = None
        return _Duty(hashed, True, frame.content_size, checksum)

    def _skip(self, size: int) -> None:
        while size:
            if not self._has(1):
                raise TruncatedError("the payload ends inside a skippable lz4 frame")
            step = min(size, len(self._data))
            del self._data[:step]
            size -= step

    def _need(self, size: int) -> None:
        if not self._has(size):
            raise TruncatedError("the payload ends before an lz4 frame does")

    def _has(self, size: int) -> bool:
        """Whether so many bytes follow."""
        while len(self._data) < size and (more := self._read(_PIECE_SIZE)):
            self._data += more
        return len(self._data) >= size

    # -- the writer ---------------------------------------------------------------------------------------------------

    def settle(self, frame: memoryview, chunk: Buffer | DecodeError) -> Iterator[Buffer]:  # noqa: ARG002
        """See ``Reframer``: the blocks' content, which the frame's claims are held against behind the last one."""
        duty = self._duties.popleft()
        if isinstance(chunk, DecodeError):
            raise chunk
        self._content_size += len(chunk)
        if duty.hashed:
            self._content.update(chunk)
        yield chunk
        if duty.ends:
            size, checksum = self._content_size, self._content.intdigest()
            if duty.content_size not in (None, size) or duty.checksum not in (None, checksum):
                raise DecodeError("the lz4 frame is damaged: its size or its checksum is wrong")
            self._content.reset()
            self._content_size = 0

    def finish(self) -> Iterator[Buffer]:
        """See ``Reframer``: nothing is left."""
        return iter(())


def header_checksum(descriptor: bytes, xxh32: Callable[[Buffer], int]) -> int:
    """The byte behind a frame's descriptor."""
    return xxh32(descriptor) >> 8 & 0xFF


def decode_blocks(
    frame: memoryview, room: memoryview, expand: Callable[[memoryview, memoryview], int], xxh32: Callable[[Buffer], int]
) -> memoryview:
    """The content of a frame of independent blocks as ``Lz4Reframer`` makes them, in ``room``.

    ``expand`` decodes a block into the memory that it is given, and returns the number of bytes.

    Raises:
        DecodeError: it is none, or damaged.

    """
    if len(frame) < _HEAD_SIZE + len(END_MARK):
        raise TruncatedError(f"{len(frame)} bytes are too few for an lz4 frame")
    flags, maximum = frame[4], _BLOCK_MAXIMA.get(frame[5], 0)
    if flags & ~_BLOCK_CHECKSUM != _VERSION | _INDEPENDENT or frame[6] != header_checksum(bytes(frame[4:6]), xxh32):
        raise DecodeError("this is not the header of one of our lz4 frames")
    position, filled = _HEAD_SIZE, 0
    while word := int.from_bytes(frame[position : position + 4], "little"):
        block = frame[position + 4 : position + 4 + (word & ~STORED)]
        position += 4 + (word & ~STORED)
        if position + 4 > len(frame):
            raise TruncatedError(f"the lz4 frame does not end within its {len(frame)} bytes")
        if flags & _BLOCK_CHECKSUM:
            if int.from_bytes(frame[position : position + 4], "little") != xxh32(block):
                raise DecodeError("the checksum of an lz4 block is wrong")
            position += 4
        target = room[filled : filled + maximum]
        if not word & STORED:
            filled += expand(block, target)
        elif len(block) <= len(target):
            target[: len(block)] = block
            filled += len(block)
        else:
            raise DecodeError(f"an lz4 block of {len(block)} bytes where at most {len(target)} are expected")
    if position + 4 != len(frame):
        raise DecodeError("the lz4 frame does not end where its blocks do")
    return room[:filled]


def _code_of(block_maximum: int) -> int:
    return next(code for code, size in _BLOCK_MAXIMA.items() if size == block_maximum)
