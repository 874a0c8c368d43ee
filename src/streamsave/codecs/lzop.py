"""lzop: a chunk is a run of blocks of 256 KiB, as ``lzop -c`` cuts and checks them.

::

    payload = header | frames | end: u32 0
    block   = u32 size, u32 size of the data, u32 adler32 of the block | data: LZO1X, or the block itself if that is smaller
    frame   = four blocks of 256 KiB | any number of those and a shorter one | fewer than four of those | nothing

A frame ends with its fourth full block, or with a block that is not full. Where neither is at hand (only at the end of
a stream can that be) it ends by ending the file: a new one begins behind it, for ``lzop -dc`` decodes files back to back.
A carrier is a file of nothing, whose header has the data in an extra field. Numbers are big-endian.

lzop's own files consist of the same blocks behind a header that says when and of what they were made: they split as ours do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import eq
from typing import Final
from zlib import adler32, crc32

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import KiB, MiB
from .base import Codec, DecodeError, NotFramed, ReadBytes, TruncatedError

_MAGIC: Final = b"\x89LZO\0\r\n\x1a\n"
_HEADER: Final = struct.Struct(">HHHBBIIIIB")
"""Versions of program and library, and the oldest that reads this; method, level; flags, mode, time; size of the name."""
_OLDEST: Final = 0x0940
_VERSION: Final = 0x1040
_LIBRARY: Final = 0x20A0
_METHODS: Final = (1, 2, 3)
"""LZO1X-1, LZO1X-1(15), LZO1X-999: three compressors of one format."""

_ADLER_OF_BLOCK: Final = 0x1
_ADLER_OF_DATA: Final = 0x2
_EXTRA_FIELD: Final = 0x40
_CRC_OF_BLOCK: Final = 0x100
_CRC_OF_DATA: Final = 0x200
_CRC_OF_HEADER: Final = 0x1000
_CHECKS: Final = _ADLER_OF_BLOCK | _ADLER_OF_DATA | _CRC_OF_BLOCK | _CRC_OF_DATA
_UNKNOWN: Final = 0x000FC000 | 0x400 | 0x800
"""Flags that lzop does not have, or that change what follows: parts of a split file, filters."""
_FROM_PIPE: Final = 0x0300000C
"""Of Unix, from standard input to standard output."""

_U32: Final = struct.Struct(">I")
_BLOCK: Final = struct.Struct(">III")
_DEPTHS: Final = {7: 4, 8: 16, 9: 48}
"""How many places are compared at each, where lzop has LZO1X-999. Measured on programs and libraries (MB/s on one core,
ratio; lzop itself in brackets): 7: 12, 2.194 (13, 2.194)   8: 10, 2.238 (6, 2.210)   9: 9, 2.241 (5, 2.210)."""
_BLOCK_SIZE: Final = 256 * KiB
_CHUNK_SIZE: Final = 1 * MiB
_LARGEST_BLOCK: Final = 64 * MiB
"""lzop itself, as it is built, reads none above 256 KiB."""
_LARGEST_GAIN: Final = 255
"""No LZO1X data become more than so many times as large, nor any few of them more than ``_BLOCK_SIZE``."""
_END: Final = bytes(4)
_PIECE_SIZE: Final = 256 * KiB


def _header(flags: int, extra: bytes | None = None) -> bytes:
    """The header of a file whose blocks have an adler32."""
    fields = _HEADER.pack(_VERSION, _LIBRARY, _OLDEST, 1, 5, flags | _ADLER_OF_BLOCK | _FROM_PIPE, 0o100600, 0, 0, 0)
    header = _MAGIC + fields + _U32.pack(adler32(fields))
    if extra is not None:
        field = _U32.pack(len(extra)) + extra
        header += field + _U32.pack(adler32(field))
    return header


_PROLOGUE: Final = _header(0)
_NEW_FILE: Final = _END + _PROLOGUE


class Lzop(Codec):
    """libvirt's ``lzop``."""

    name = "lzop"
    number = 4
    summary = "the fastest that every libvirt restores; zstd is smaller and as fast"
    magic = _MAGIC
    levels = range(1, 10)
    default_level = 3
    tool_level = 3
    tool = ("lzop", "-c")
    tool_decode_options = ("-dc", "--ignore-warn")
    chunk_size = _CHUNK_SIZE
    probe_size = 64 * KiB
    prologue = _PROLOGUE
    epilogue = _END

    def encoder(self, level: int) -> LzopEncoder:
        return LzopEncoder(level)

    def decoder(self) -> LzopDecoder:
        return LzopDecoder()

    def splitter(self) -> LzopSplitter:
        return LzopSplitter()

    def stream_reader(self, read: ReadBytes) -> LzopReader:
        return LzopReader(read)

    def prologue_size(self, view: memoryview) -> int:
        """Of any header behind which blocks are as ours: lzop's own tells a time and a mode, perhaps a name."""
        position = 0

        def take(size: int) -> Buffer:
            nonlocal position
            position += size
            if position > len(view):
                raise NotFramed
            return view[position - size : position]

        try:
            if take(len(_MAGIC)) != _MAGIC or _read_header(take) & (_CHECKS | _EXTRA_FIELD) != _ADLER_OF_BLOCK:
                raise NotFramed
        except DecodeError:
            raise NotFramed from None
        return position

    def bound(self, size: int) -> int:
        """Blocks that do not compress are stored."""
        return size + -(-size // _BLOCK_SIZE) * _BLOCK.size + len(_NEW_FILE)

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        """A file of nothing, with the data in its extra field."""
        return _header(_EXTRA_FIELD, data) + _END

    def uncarry(self, carrier: bytes) -> bytes:
        start = len(_PROLOGUE) + _U32.size
        data = carrier[start : -_U32.size - len(_END)]
        if carrier != self.carry(data, FrameTable(self.chunk_size)):
            raise DecodeError("no empty lzop file with an extra field of ours")
        return data


class LzopEncoder:
    """One table, used again from block to block; new memory for each frame."""

    def __init__(self, level: int) -> None:
        from deflate import adler32  # many times as fast as zlib's

        from .._native import lzo

        if level in _DEPTHS:
            self._compress = lzo.LzoBestCompressor(depth=_DEPTHS[level]).compress
        else:
            self._compress = lzo.LzoCompressor(fast=level == 1).compress
        self._adler32: Callable[[Buffer], int] = adler32
        self._new_room = lzo.new_room
        self._block_room = _BLOCK.size + lzo.bound(_BLOCK_SIZE)

    def encode(self, chunk: memoryview) -> Sequence[Buffer]:
        """The blocks, and what ends the frame where they do not."""
        starts = range(0, len(chunk), _BLOCK_SIZE)
        room = self._new_room(len(starts) * self._block_room)
        parts: list[Buffer] = []
        for start in starts:
            block, head, room = chunk[start : start + _BLOCK_SIZE], room[: _BLOCK.size], room[_BLOCK.size :]
            size = self._compress(block, room)
            data, room = (room[:size], room[size:]) if size < len(block) else (block, room)
            _BLOCK.pack_into(head, 0, len(block), len(data), self._adler32(block))
            parts += [head, data]
        if len(chunk) % _BLOCK_SIZE == 0 and len(chunk) != _CHUNK_SIZE:
            parts.append(_NEW_FILE)
        return parts


class LzopDecoder:
    """Decodes into the room that it is given."""

    def __init__(self) -> None:
        from deflate import adler32

        from .._native.lzo import decompress

        self._decompress = decompress
        self._adler32: Callable[[Buffer], int] = adler32

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in ``room``."""
        position = filled = 0
        goes_on = True
        while goes_on:
            if frame[position : position + len(_END)] == _END:
                if frame[position : position + len(_NEW_FILE)] != _NEW_FILE:
                    raise DecodeError(f"an lzop frame ends within its {len(frame)} bytes, and not as ours do")
                position += len(_NEW_FILE)
                break
            if len(frame) < position + _BLOCK.size:
                raise TruncatedError(f"the lzop frame does not end within its {len(frame)} bytes")
            size, data_size, checksum = _BLOCK.unpack_from(frame, position)
            _check_sizes(size, data_size, _BLOCK_SIZE)
            if size > len(room) - filled:
                raise DecodeError(f"a chunk of more than the {len(room)} bytes that are expected")
            position += _BLOCK.size + data_size
            if position > len(frame):
                raise TruncatedError(f"the lzop frame does not end within its {len(frame)} bytes")
            block = room[filled : filled + size]
            _expand(frame[position - data_size : position], block, self._decompress)
            if self._adler32(block) != checksum:
                raise DecodeError("the adler32 of an lzop block is wrong")
            filled += size
            goes_on = size == _BLOCK_SIZE and (filled % _CHUNK_SIZE > 0 or position < len(frame))
        if position != len(frame):
            raise DecodeError(f"{len(frame) - position} other bytes follow the lzop frame")
        return room[:filled]


class LzopSplitter:
    """Follows the sizes of the blocks, within the bounds of a slot."""

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """Up to the end of the block, or of the file, that ends the frame."""
        position = filled = 0
        size = _BLOCK_SIZE
        while size == _BLOCK_SIZE and filled < _CHUNK_SIZE:
            ending = view[position : position + len(_NEW_FILE)]
            if ending == _NEW_FILE:
                return position + len(_NEW_FILE)
            if len(ending) < _BLOCK.size or ending[: len(_END)] == _END:
                if final or (ending != _NEW_FILE[: len(ending)] and ending[: len(_END)] == _END):
                    raise NotFramed
                return 0
            size, data_size, _ = _BLOCK.unpack_from(view, position)
            try:
                _check_sizes(size, data_size, _BLOCK_SIZE)
            except DecodeError:
                raise NotFramed from None
            position += _BLOCK.size + data_size
            filled += size
        return position


class LzopReader:
    """Any lzop payload: files back to back, of any blocks and checks. What follows the last one is ignored, as lzop does.

    Unlike ``lzop``, not if it almost is another one, or a block that lost its size: then a flipped bit would lose the rest.
    Filters, which no ``lzop`` applies unasked, and files in several parts are refused.
    """

    def __init__(self, read: ReadBytes) -> None:
        import deflate

        from .._native.lzo import decompress

        self._decompress = decompress
        self._block_checks = ((_ADLER_OF_BLOCK, deflate.adler32), (_CRC_OF_BLOCK, deflate.crc32))
        self._data_checks = ((_ADLER_OF_DATA, deflate.adler32), (_CRC_OF_DATA, deflate.crc32))
        self._read = read
        self._ahead = bytearray()
        """What was read and not yet used."""
        self._flags: int | None = None
        """Of the file that we are in."""
        self._rest = memoryview(b"")
        """Of a block that did not fit."""
        self._started = self._ended = False

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``."""
        filled = 0
        while filled < len(view):
            room = view[filled:]
            if self._rest:
                size = min(len(self._rest), len(room))
                room[:size] = self._rest[:size]
                self._rest = self._rest[size:]
                filled += size
            elif self._flags is not None:
                filled += self._read_block(room, self._flags)
            elif not self._next_starts():
                break
        return filled

    def _next_starts(self) -> bool:
        """Enter the next file, or find that there is none."""
        if self._ended:
            return False
        head = self._peek(len(_MAGIC))
        if head == _MAGIC:
            self._take(len(_MAGIC))
            self._flags = _read_header(self._take)
        elif head == _MAGIC[: len(head)] and (head or not self._started):
            raise TruncatedError("the payload ends before an lzop file does")
        elif not self._started:
            self._flags = _ADLER_OF_BLOCK  # behind a frame of ours, or _read_block says what is wrong
        elif _resembles_a_start(head):
            raise DecodeError("the start of an lzop file, or of a block, is damaged")
        else:
            self._ended = True
        self._started = True
        return not self._ended

    def _read_block(self, room: memoryview, flags: int) -> int:
        """The next block into ``room``; the number of bytes. 0: it was the file's end, or the block waits in ``_rest``."""
        size = self._take_u32()
        if not size:
            self._flags = None
            return 0
        data_size = self._take_u32()
        _check_sizes(size, data_size, _LARGEST_BLOCK)
        of_block = [(check, self._take_u32()) for flag, check in self._block_checks if flags & flag]
        of_data = [(check, self._take_u32()) for flag, check in self._data_checks if flags & flag and data_size < size]
        data = self._take(data_size)
        fits = size <= len(room)
        block = room[:size] if fits else memoryview(bytearray(size))
        for check, expected in of_data:
            if check(data) != expected:
                raise DecodeError("a checksum of the data of an lzop block is wrong")
        _expand(data, block, self._decompress)
        for check, expected in of_block:
            if check(block) != expected:
                raise DecodeError("a checksum of an lzop block is wrong")
        if not fits:
            self._rest = block
        return size if fits else 0

    def _peek(self, size: int) -> bytearray:
        """The next ``size`` bytes, without taking them; fewer only at the end of the payload."""
        while len(self._ahead) < size and (more := self._read(_PIECE_SIZE)):
            self._ahead += more
        return self._ahead[:size]

    def _take(self, size: int) -> bytearray:
        """The next ``size`` bytes."""
        data = self._peek(size)
        if len(data) < size:
            raise TruncatedError("the payload ends before an lzop file does")
        del self._ahead[:size]
        return data

    def _take_u32(self) -> int:
        return int.from_bytes(self._take(_U32.size), "big")


def _read_header(take: Callable[[int], Buffer]) -> int:
    """The flags in the header, whose magic was taken; takes the rest.

    Raises:
        DecodeError: damaged, or of a kind that we do not read.

    """
    fields = bytes(take(_HEADER.size))
    version, _, needed, method, _, flags, _, _, _, name_size = _HEADER.unpack(fields)
    if version < _OLDEST or needed > _VERSION or method not in _METHODS or flags & _UNKNOWN:
        raise DecodeError(f"an lzop file of version {version:#x}, method {method}, flags {flags:#x}: not one that we read")
    check = crc32 if flags & _CRC_OF_HEADER else adler32
    if check(take(name_size), check(fields)) != _U32.unpack(take(_U32.size))[0]:
        raise DecodeError("the checksum of an lzop header is wrong")
    if flags & _EXTRA_FIELD:
        length = bytes(take(_U32.size))
        checksum, left = check(length), _U32.unpack(length)[0]
        while left:
            piece = take(min(left, _PIECE_SIZE))
            checksum, left = check(piece, checksum), left - len(piece)
        if checksum != _U32.unpack(take(_U32.size))[0]:
            raise DecodeError("the checksum of an lzop header's extra field is wrong")
    return int(flags)


def _check_sizes(size: int, data_size: int, largest: int) -> None:
    """Raise ``DecodeError`` unless so many bytes can be a block of at most ``largest``, and its data."""
    if not (0 < data_size <= size <= largest and size <= data_size * _LARGEST_GAIN + _BLOCK_SIZE):
        raise DecodeError(f"no lzop block has {size} bytes and {data_size} bytes of data")


def _expand(data: memoryview | bytearray, block: memoryview, decompress: Callable[[Buffer, memoryview], bool]) -> None:
    if len(data) == len(block):
        block[:] = data
    elif not decompress(data, block):
        raise DecodeError("the data of an lzop block are damaged")


def _resembles_a_start(head: bytearray) -> bool:
    """Whether ``head`` is the magic but for a few bits, or what follows the size of a block."""
    lost_size = len(head) == len(_MAGIC) and 0 < int.from_bytes(head[:4], "big") <= _BLOCK_SIZE
    return lost_size or sum(map(eq, head, _MAGIC)) >= len(_MAGIC) // 2


CODEC: Final = Lzop()
