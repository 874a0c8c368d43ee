"""QEMU's mapped-ram layout, libvirt's format ``sparse``: a migration stream in a file whose pages have places of their own.

Turned here into the plain stream of the same guest::

    magic, configuration          without the capability mapped-ram
    RAM section, start            total; per block name, size, [header, bitmap, pages]; end: without what is in brackets
    RAM section, parts            end
    RAM section, last             end: with a record for each page in front of it
    all that follows              as it is

The header of a block is u32 version, u64 page size, u64 bitmap offset, u64 pages offset, big-endian. The bitmap has a bit
for each page that is in the file, in words of the host; a page that is not was zero when it was saved. Behind the block's
last page the section goes on. Offsets count from the start of the file, not from where the stream begins in it.
(QEMU: docs/devel/migration/mapped-ram.rst, migration/ram.c; tried with 10.0, with and without multifd.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import CorruptImageError, TruncatedImageError, UnsupportedImageError
from ..types import Buffer
from ..units import KiB, MiB
from .scanner import (
    CAPABILITIES,
    COMMAND,
    CONFIGURATION,
    FLAG_CONTINUE,
    FLAG_EOS,
    FLAG_FLUSH,
    FLAG_MEM_SIZE,
    FLAG_PAGE,
    FLAG_ZERO,
    FOOTER,
    MAGIC,
    MAX_BLOCKS,
    MAX_NAME,
    PAGE_BITS,
    SECTION_LAST,
    SECTION_PART,
    SECTION_START,
    SUBSECTION,
    UUID,
)

ReadAt = Callable[[int, int], bytes]
"""``read_at(size, offset)`` in the file; fewer bytes only at its end."""

MAPPED_RAM: Final = b"mapped-ram"
MAX_CAPABILITIES: Final = 64
_HEADER: Final = struct.Struct(">IQQQ")
_WORD: Final = struct.Struct(">Q")
_ZERO_PAGE: Final = struct.Struct(">QB")
_SUBSECTION_SIZES: Final = {PAGE_BITS: 4, UUID: 16}
_GROUP: Final = 256
"""Pages that are looked at at a time."""


@dataclass(frozen=True, slots=True)
class _Block:
    name: bytes
    size: int
    page_size: int
    bitmap_offset: int
    pages_offset: int


def plain_stream(read_at: ReadAt, start: int, end: int) -> Iterator[Buffer]:
    """The plain migration stream of a file in which a mapped-ram one reaches from ``start`` to ``end``; in parts of 1 MiB.

    Raises:
        TruncatedImageError, CorruptImageError: it is cut, or contradicts itself.
        UnsupportedImageError: it holds what this does not know how to turn into a plain stream.

    """
    yield from _Reading(read_at, start, end).stream()


class _Reading:
    """The place in the file where the stream goes on."""

    def __init__(self, read_at: ReadAt, start: int, end: int) -> None:
        self._read_at = read_at
        self._at = start
        self._end = end
        self._ram_id = b""

    def stream(self) -> Iterator[Buffer]:
        """All of it."""
        if self._take(len(MAGIC)) != MAGIC:
            raise CorruptImageError("the sparse payload does not begin as a migration stream does", offset=self._at)
        yield MAGIC + self._configuration()
        section, blocks = self._ram_start()
        yield section
        last = False
        while not last:
            kind = self._take(1)[0]
            if kind == COMMAND:
                head = self._take(4)
                yield bytes([kind]) + head + self._take(int.from_bytes(head[2:], "big"))
            elif kind in (SECTION_PART, SECTION_LAST) and (number := self._take(4)) == self._ram_id:
                last = kind == SECTION_LAST
                yield bytes([kind]) + number
                self._skip_to_end_of_records()
                if last:
                    for block in blocks:
                        yield from self._pages(block)
                yield _WORD.pack(FLAG_EOS) + self._footer()
            else:
                raise self._unknown(f"a section of kind {kind}")
        while self._at < self._end:
            yield self._take(min(MiB, self._end - self._at))

    def _configuration(self) -> bytes:
        """As it is, but for the capability; empty where there is none."""
        if self._peek() != CONFIGURATION:
            return b""
        data = self._take(5)
        size = int.from_bytes(data[1:], "big")
        if size > MAX_NAME:
            raise CorruptImageError(f"a machine's name of {size} bytes cannot be", offset=self._at)
        data += self._take(size)
        while self._peek() == SUBSECTION:
            kind = self._take(1)
            name = self._name()
            head = kind + bytes([len(name)]) + name + self._take(4)
            if name == CAPABILITIES:
                others = [each for each in self._capabilities() if each != MAPPED_RAM]
                if others:
                    raise self._unknown(f"the capability {others[0].decode(errors='replace')}")
            elif name in _SUBSECTION_SIZES:
                data += head + self._take(_SUBSECTION_SIZES[name])
            else:
                raise self._unknown(f"the configuration {name.decode(errors='replace')}")
        return data

    def _capabilities(self) -> list[bytes]:
        count = int.from_bytes(self._take(4), "big")
        if count > MAX_CAPABILITIES:
            raise CorruptImageError(f"{count} capabilities cannot be", offset=self._at)
        return [self._name() for _ in range(count)]

    def _ram_start(self) -> tuple[bytes, list[_Block]]:
        """The section as a plain stream has it, and the blocks."""
        kind, self._ram_id, name = self._take(1), self._take(4), self._name()
        if kind[0] != SECTION_START or name != b"ram":
            raise self._unknown(f"a section {name.decode(errors='replace')} before the RAM's")
        section = kind + self._ram_id + b"\3ram" + self._take(8)
        (total,) = _WORD.unpack(self._take(8))
        if total & 0xFFF != FLAG_MEM_SIZE:
            raise CorruptImageError("the RAM section does not begin with its blocks", offset=self._at)
        section += _WORD.pack(total)
        left = total & ~0xFFF
        blocks: list[_Block] = []
        while left > 0:
            if len(blocks) == MAX_BLOCKS:
                raise self._unknown(f"more than {MAX_BLOCKS} RAM blocks")
            block = self._block()
            blocks.append(block)
            section += bytes([len(block.name)]) + block.name + _WORD.pack(block.size)
            left -= block.size
        if left:
            raise CorruptImageError("the RAM blocks are larger than the RAM", offset=self._at)
        self._skip_to_end_of_records()
        return section + _WORD.pack(FLAG_EOS) + self._footer(), blocks

    def _block(self) -> _Block:
        """A block of the list; then the place is behind its pages."""
        began = self._at
        name = self._name()
        (size,) = _WORD.unpack(self._take(8))
        version, page_size, bitmap_offset, pages_offset = _HEADER.unpack(self._take(_HEADER.size))
        if version != 1:
            raise self._unknown(f"version {version} of the mapped-ram layout")
        if page_size not in (4 * KiB, 8 * KiB, 16 * KiB, 64 * KiB) or size % page_size or not size:
            raise CorruptImageError(f"a RAM block of {size} bytes in pages of {page_size} cannot be", offset=began)
        bitmap_end = bitmap_offset + -(-size // page_size // 64) * 8
        if bitmap_offset < self._at or pages_offset < bitmap_end or pages_offset % page_size:
            raise CorruptImageError(
                f"the bitmap at {bitmap_offset} and the pages at {pages_offset} of a RAM block cannot be", offset=began
            )
        if pages_offset + size > self._end:
            raise TruncatedImageError(
                f"the file ends at offset {self._end}, inside a block of RAM that reaches to {pages_offset + size}",
                offset=self._end,
            )
        self._at = pages_offset + size
        return _Block(name, size, page_size, bitmap_offset, pages_offset)

    def _pages(self, block: _Block) -> Iterator[Buffer]:
        """A record for each page of ``block``."""
        page_size, group_size = block.page_size, _GROUP * block.page_size
        named = bytes([len(block.name)]) + block.name
        for first in range(0, block.size, group_size):
            size = min(group_size, block.size - first)
            place = block.bitmap_offset + first // page_size // 8
            present = int.from_bytes(self._exactly(-(-size // page_size // 8), place), "little")
            pages = memoryview(self._exactly(size, block.pages_offset + first)) if present else memoryview(b"")
            records = bytearray()
            for offset in range(0, size, page_size):
                flags = FLAG_CONTINUE if first or offset else 0
                name = b"" if flags else named
                word = first + offset | flags
                if present & 1:
                    records += _WORD.pack(word | FLAG_PAGE) + name + pages[offset : offset + page_size]
                elif name:
                    records += _WORD.pack(word | FLAG_ZERO) + name + b"\0"
                else:
                    records += _ZERO_PAGE.pack(word | FLAG_ZERO, 0)
                present >>= 1
            yield records

    def _skip_to_end_of_records(self) -> None:
        """There are no pages among them; what QEMU's channels told each other is theirs."""
        while (word := _WORD.unpack(self._take(8))[0]) == FLAG_FLUSH:
            pass
        if word != FLAG_EOS:
            raise self._unknown(f"the word {word:#x} in the RAM section")

    def _footer(self) -> bytes:
        """Machine types before 2.4 write none."""
        return self._take(5) if self._peek() == FOOTER else b""

    def _name(self) -> bytes:
        return self._take(self._take(1)[0])

    def _peek(self) -> int:
        return self._exactly(1, self._at)[0]

    def _take(self, size: int) -> bytes:
        data = self._exactly(size, self._at)
        self._at += size
        return data

    def _exactly(self, size: int, offset: int) -> bytes:
        data = self._read_at(min(size, max(0, self._end - offset)), offset)
        if len(data) < size:
            raise TruncatedImageError(
                f"the file ends at offset {offset + len(data)}, inside the migration stream", offset=offset + len(data)
            )
        return data

    def _unknown(self, what: str) -> UnsupportedImageError:
        return UnsupportedImageError(
            f"the sparse payload has {what} at offset {self._at}, which cannot be turned into a plain stream here:"
            " restore the image with virsh, and save the guest in another format",
            offset=self._at,
        )
