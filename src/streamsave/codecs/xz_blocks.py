"""The blocks of an xz payload that another program wrote, such as ``xz -T2``, each as a stream of its own.

::

    stream = header 12 bytes | blocks: header, LZMA2 data, padding, check | index: sizes of all blocks | footer 12 bytes

A block's header may say how large it is or not; its LZMA2 data are pieces that do, so its end is found without decoding.
What the index and the footer have to be follows from the blocks. A stream whose first block is larger than a slot is for the
sequential reader, and so is what is damaged before it begins. Of a first block that does not say how large it is, as of one
thread's ``xz``, only the beginning is searched for its end: mostly it is all there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

from ..units import KiB, MiB
from .base import DecodeError, NotFramed, ReadBytes, TruncatedError
from .framed import SureFrames
from .xz_container import (
    CHECK_SIZES,
    MAGIC,
    STREAM_HEADER_SIZE,
    checked,
    index_and_footer,
    number,
    numbers,
    stream_header,
)

_PIECE_SIZE: Final = 1 * MiB
_SEARCHED_SIZE: Final = 1 * MiB
"""Of the LZMA2 data of a first block without sizes. 24 MiB took 12 ms, which is a hundredth of decoding 64 MiB."""
_HAS_DATA_SIZE: Final = 0x40
_HAS_CONTENT_SIZE: Final = 0x80
_RESERVED: Final = 0x3C
_LZMA2: Final = b"\x21\x01"
"""The filter's number, and how many bytes of properties it has: one, the size of the dictionary (section 5.3.1)."""
_LARGEST_DICTIONARY: Final = 30
"""128 MiB, as much as the sequential reader takes."""


class _TooLarge(Exception):
    """A block that no slot holds."""


@dataclass(frozen=True, slots=True)
class Block:
    """Sizes in bytes."""

    size: int
    """Header, data, check; in the index so."""
    padding: int
    """Between data and check, not counted in ``size``."""
    content_size: int


class XzReframer(SureFrames):
    """See ``Reframer``."""

    chunk_bound = 24 * MiB
    """The blocks of ``xz -6 -T2``, three dictionaries; those of higher levels are larger."""
    frame_bound = chunk_bound + 256 * KiB

    def __init__(self, read: ReadBytes) -> None:
        self._read = read
        self._data = bytearray()
        """What was read and is in no frame yet."""
        self._flags: bytes | None = None
        """Of the stream that we are in."""
        self._blocks = 0
        self._records_size = self._records_crc = 0
        """Of what the index has to say of the blocks, packed."""

    @property
    def rest(self) -> bytes:
        return bytes(self._data)

    def next_frame(self, room: memoryview) -> int:
        while self._flags is not None or self._begin():
            if self._byte(0):
                return self._frame(room)
            self._end()
        return 0

    def _begin(self) -> bool:
        """Enter a stream; False: the payload ends."""
        self._has(STREAM_HEADER_SIZE)
        if not self._data:
            return False
        flags = bytes(self._data[len(MAGIC) : len(MAGIC) + 2])
        if self._data[:STREAM_HEADER_SIZE] != stream_header(flags) or flags[0] or flags[1] >= len(CHECK_SIZES):
            raise NotFramed
        try:
            is_empty = not self._byte(STREAM_HEADER_SIZE)
            if is_empty or not self._block(STREAM_HEADER_SIZE, CHECK_SIZES[flags[1]], first=True).content_size:
                raise NotFramed  # streams of nothing may be millions of blocks, such as in our carriers
        except (DecodeError, _TooLarge):
            raise NotFramed from None
        del self._data[:STREAM_HEADER_SIZE]
        self._flags = flags
        self._blocks = self._records_size = self._records_crc = 0
        return True

    def _frame(self, room: memoryview) -> int:
        """The next block as a stream of its own."""
        flags = self._flags or b""
        try:
            block = self._block(0, CHECK_SIZES[flags[1]])
        except _TooLarge:
            raise DecodeError(
                f"an xz block of more than {self.chunk_bound} bytes follows smaller ones, which is not supported:"
                " restore the image with virsh"
            ) from None
        record = number(block.size) + number(block.content_size)
        self._blocks += 1
        self._records_size += len(record)
        self._records_crc = crc32(record, self._records_crc)
        size = block.size + block.padding
        tail = index_and_footer(1, record, flags)
        end = STREAM_HEADER_SIZE + size
        room[:STREAM_HEADER_SIZE] = stream_header(flags)
        with memoryview(self._data) as data:
            room[STREAM_HEADER_SIZE:end] = data[:size]
        room[end : end + len(tail)] = tail
        del self._data[:size]
        return end + len(tail)

    def _end(self) -> None:
        """The index and the footer of the stream; any number of blocks have been forgotten, but for a checksum."""
        flags = self._flags or b""
        head = b"\0" + number(self._blocks)
        if self._take(len(head)) != head:
            raise DecodeError("the index of an xz stream has another number of blocks")
        crc, records_crc, left = crc32(head), 0, self._records_size
        while left:
            piece = self._take(min(left, _PIECE_SIZE))
            crc, records_crc, left = crc32(piece, crc), crc32(piece, records_crc), left - len(piece)
        padding = bytes(-(len(head) + self._records_size) % 4)
        index_size = len(head) + self._records_size + len(padding) + 4
        if self._take(len(padding) + 4) != padding + crc32(padding, crc).to_bytes(4, "little"):
            raise DecodeError("the index of an xz stream is damaged")
        footer = checked((index_size // 4 - 1).to_bytes(4, "little") + flags)
        if records_crc != self._records_crc or self._take(12) != footer[-4:] + footer[:-4] + b"YZ":
            raise DecodeError("the index or the footer of an xz stream does not fit its blocks")
        self._flags = None
        self._skip_padding()

    def _skip_padding(self) -> None:
        """Behind a stream may be zeros, four at a time."""
        while self._has(4) and not any(self._data[:4]):
            whole = len(self._data) // 4 * 4
            zeros = whole - len(self._data[:whole].lstrip(b"\0"))
            del self._data[: zeros // 4 * 4]

    def _block(self, start: int, check_size: int, *, first: bool = False) -> Block:
        """The block that begins at ``start`` in ``_data``, where all of it is then.

        Raises:
            _TooLarge, DecodeError.

        """
        header_size = (self._byte(start) + 1) * 4
        header = self._bytes(start, header_size)
        if header != checked(header[:-4]):
            raise DecodeError("the header of an xz block is damaged")
        claimed = _claims(header)
        if max(claimed.values(), default=0) > self.chunk_bound:
            raise _TooLarge
        position = start + header_size
        end, content_size = self._walk(position, self.chunk_bound if claimed or not first else _SEARCHED_SIZE)
        if claimed.get(_HAS_DATA_SIZE, end - position) != end - position:
            raise DecodeError("an xz block has another size than its header says")
        if claimed.get(_HAS_CONTENT_SIZE, content_size) != content_size:
            raise DecodeError("an xz block holds more or less than its header says")
        padding = -(end - position) % 4
        self._bytes(end + padding, check_size)
        return Block(end - start + check_size, padding, content_size)

    def _walk(self, position: int, size: int) -> tuple[int, int]:
        """Over the pieces of LZMA2 data, ``size`` bytes at most: where they end, and how many bytes they hold."""
        limit = position + size
        content_size = 0
        while control := self._byte(position):
            head = self._bytes(position, 5)
            if control in (1, 2):  # stored
                size = (head[1] << 8 | head[2]) + 1
                content_size += size
                position += 3 + size
            elif control >= 0x80:
                content_size += ((control & 0x1F) << 16 | head[1] << 8 | head[2]) + 1
                position += 5 + (control >= 0xC0) + (head[3] << 8 | head[4]) + 1
            else:
                raise DecodeError("LZMA2 data in an xz block are damaged")
            if content_size > self.chunk_bound or position > limit:
                raise _TooLarge
        return position + 1, content_size

    def _byte(self, position: int) -> int:
        return self._bytes(position, 1)[0]

    def _bytes(self, start: int, size: int) -> bytes:
        if not self._has(start + size):
            raise TruncatedError("the payload ends inside an xz stream")
        return bytes(self._data[start : start + size])

    def _take(self, size: int) -> bytes:
        data = self._bytes(0, size)
        del self._data[:size]
        return data

    def _has(self, size: int) -> bool:
        """Whether so many bytes follow."""
        while len(self._data) < size and (more := self._read(_PIECE_SIZE)):
            self._data += more
        return len(self._data) >= size


def _claims(header: bytes) -> dict[int, int]:
    """The sizes that a block's header has, by their flags.

    Raises:
        DecodeError: it is not one of a block whose data are LZMA2.
        _TooLarge: they need a dictionary of more than 128 MiB.

    """
    flags, position = header[1], 2
    if flags & _RESERVED:
        raise DecodeError("an xz block has options that nobody knows")
    claims = {}
    for flag in (_HAS_DATA_SIZE, _HAS_CONTENT_SIZE):
        if flags & flag:
            claims[flag], position = _number_at(header, position)
    for _ in range(flags & 3):  # filters before the last one change no size
        _, position = _number_at(header, position)
        size, position = _number_at(header, position)
        position += size
    lzma2 = header[position : min(position + 3, len(header) - 4)]
    if len(lzma2) < 3 or not lzma2.startswith(_LZMA2):
        raise DecodeError("the data of an xz block are not LZMA2")
    if lzma2[2] > _LARGEST_DICTIONARY:
        raise _TooLarge
    return claims


def _number_at(header: bytes, position: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = next(numbers(header[position:-4]))
    return value, position + len(number(value))
