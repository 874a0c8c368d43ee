"""The container of lzop, as its own files have it: headers, blocks, and what checks them. Numbers are big-endian."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final
from zlib import adler32, crc32

from ..types import Buffer
from ..units import KiB, MiB
from .base import DecodeError

MAGIC: Final = b"\x89LZO\0\r\n\x1a\n"
_HEADER: Final = struct.Struct(">HHHBBIIIIB")
"""Versions of program and library, and the oldest that reads this; method, level; flags, mode, time; size of the name."""
_OLDEST: Final = 0x0940
_VERSION: Final = 0x1040
_LIBRARY: Final = 0x20A0
_METHODS: Final = (1, 2, 3)
"""LZO1X-1, LZO1X-1(15), LZO1X-999: three compressors of one format."""

ADLER_OF_BLOCK: Final = 0x1
ADLER_OF_DATA: Final = 0x2
EXTRA_FIELD: Final = 0x40
CRC_OF_BLOCK: Final = 0x100
CRC_OF_DATA: Final = 0x200
_CRC_OF_HEADER: Final = 0x1000
CHECKS: Final = ADLER_OF_BLOCK | ADLER_OF_DATA | CRC_OF_BLOCK | CRC_OF_DATA
_UNKNOWN: Final = 0x000FC000 | 0x400 | 0x800
"""Flags that lzop does not have, or that change what follows: parts of a split file, filters."""
_FROM_PIPE: Final = 0x0300000C
"""Of Unix, from standard input to standard output."""

U32: Final = struct.Struct(">I")
BLOCK: Final = struct.Struct(">III")
BLOCK_SIZE: Final = 256 * KiB
LARGEST_BLOCK: Final = 64 * MiB
"""lzop itself, as it is built, reads none above 256 KiB."""
_LARGEST_GAIN: Final = 255
"""No LZO1X data become more than so many times as large, nor any few of them more than ``BLOCK_SIZE``."""
END: Final = bytes(4)
"""Where the size of a block would stand: the file ends."""
PIECE_SIZE: Final = 256 * KiB
"""What is read at a time."""


def header(flags: int, extra: bytes | None = None) -> bytes:
    """The header of a file whose blocks have an adler32."""
    fields = _HEADER.pack(_VERSION, _LIBRARY, _OLDEST, 1, 5, flags | ADLER_OF_BLOCK | _FROM_PIPE, 0o100600, 0, 0, 0)
    whole = MAGIC + fields + U32.pack(adler32(fields))
    if extra is not None:
        field = U32.pack(len(extra)) + extra
        whole += field + U32.pack(adler32(field))
    return whole


def read_header(take: Callable[[int], Buffer]) -> int:
    """The flags in the header, whose magic was taken; takes the rest.

    Raises:
        DecodeError: damaged, or of a kind that we do not read.

    """
    fields = bytes(take(_HEADER.size))
    version, _, needed, method, _, flags, _, _, _, name_size = _HEADER.unpack(fields)
    if version < _OLDEST or needed > _VERSION or method not in _METHODS or flags & _UNKNOWN:
        raise DecodeError(f"an lzop file of version {version:#x}, method {method}, flags {flags:#x}: not one that we read")
    check = crc32 if flags & _CRC_OF_HEADER else adler32
    if check(take(name_size), check(fields)) != U32.unpack(take(U32.size))[0]:
        raise DecodeError("the checksum of an lzop header is wrong")
    if flags & EXTRA_FIELD:
        length = bytes(take(U32.size))
        checksum, left = check(length), U32.unpack(length)[0]
        while left:
            piece = take(min(left, PIECE_SIZE))
            checksum, left = check(piece, checksum), left - len(piece)
        if checksum != U32.unpack(take(U32.size))[0]:
            raise DecodeError("the checksum of an lzop header's extra field is wrong")
    return int(flags)


def check_sizes(size: int, data_size: int, largest: int) -> None:
    """Raise ``DecodeError`` unless so many bytes can be a block of at most ``largest``, and its data."""
    if not (0 < data_size <= size <= largest and size <= data_size * _LARGEST_GAIN + BLOCK_SIZE):
        raise DecodeError(f"no lzop block has {size} bytes and {data_size} bytes of data")


def expand(data: memoryview | bytearray, block: memoryview, decompress: Callable[[Buffer, memoryview], bool]) -> None:
    """Fill ``block`` with what its ``data`` are, or raise ``DecodeError``."""
    if len(data) == len(block):
        block[:] = data
    elif not decompress(data, block):
        raise DecodeError("the data of an lzop block are damaged")
