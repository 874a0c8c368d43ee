"""The container of xz (the .xz file format, version 1.2.1): what stands around the blocks of a stream."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from ..types import Buffer
from .base import DecodeError

MAGIC: Final = b"\xfd7zXZ\0"
_FOOTER_MAGIC: Final = b"YZ"
STREAM_HEADER_SIZE: Final = 12
FOOTER_SIZE: Final = 12
U32: Final = struct.Struct("<I")
CHECK_SIZES: Final = (0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64)
"""Of the checks behind the blocks, by the second byte of a stream's flags (section 2.1.1.2)."""


def stream_header(flags: bytes) -> bytes:
    """Section 2.1.1."""
    return MAGIC + checked(flags)


def index_and_footer(count: int, records: bytes, flags: bytes) -> bytes:
    """Sections 4 and 2.1.2. ``records``: of each block the size without padding and the size of its content."""
    index = b"\0" + number(count) + records
    index = checked(index + bytes(-len(index) % 4))
    footer = U32.pack(len(index) // 4 - 1) + flags
    return index + U32.pack(crc32(footer)) + footer + _FOOTER_MAGIC


def checked(data: bytes) -> bytes:
    """``data`` and their crc32."""
    return data + U32.pack(crc32(data))


def number(value: int) -> bytes:
    """Section 1.2: seven bits a byte, the lowest first, and a bit that says whether more follow."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def numbers(view: Buffer) -> Iterator[int]:
    """The numbers at the start of ``view``, one after the other.

    Raises:
        DecodeError: one does not end, or is longer than nine bytes.

    """
    value = shift = 0
    for byte in view:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
        elif shift > 56:
            break
    raise DecodeError("a number in an xz header or index is damaged")
