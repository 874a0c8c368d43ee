"""Typed wrapper of ``native/scan.h``: buffers in, values out. Every call releases the GIL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

from ..format.migration import PageContents, PageKind, PageRecord, ScanState, StreamMap, map_of
from ..types import Buffer
from . import ffi, lib

_new_uncleared: Any = ffi.new_allocator(should_clear_after_alloc=False)


class StreamScanner:
    """The scanner in C; see ``format.scanner.StreamScanner``, with which it agrees bit for bit.

    One thread feeds; any thread may look at the counters.
    """

    def __init__(self) -> None:
        self._scanner: Any = ffi.new("ss_scanner *")
        lib.ss_scan_init(self._scanner)

    @classmethod
    def resumed(cls, stream: StreamMap, ram_id: int, record: PageRecord) -> StreamScanner:
        """A scanner of that stream that stands before ``record``. ``ram_id``: of the RAM's section."""
        scanner = cls()
        s = scanner._scanner
        blocks = stream.ram_blocks[: len(s.blocks)]
        s.page_size, s.block_count = stream.page_size, len(blocks)
        for number, block in enumerate(blocks):
            name = block.name.encode()[:255]
            s.blocks[number].size, s.blocks[number].name_size = block.size, len(name)
            ffi.memmove(s.blocks[number].name, name, len(name))
        lib.ss_scan_resume(s, record.stream_offset, ram_id, record.block)
        return scanner

    def feed_logging(self, data: Buffer) -> PageLog:
        """``feed``, and the page records whose contents begin in ``data``."""
        with memoryview(data) as view:
            log = PageLog(len(view) // 9 + 2)
        self._scanner.log, self._scanner.log_size, self._scanner.log_count = log.pages, len(log.pages), 0
        self.feed(data)
        log.length = int(self._scanner.log_count)
        self._scanner.log_size = 0
        return log

    @property
    def ram_size(self) -> int:
        """Guest RAM in bytes, as far as the stream has announced it."""
        return int(self._scanner.ram_size)

    @property
    def pages_seen(self) -> int:
        """Page records so far, zero pages included."""
        return int(self._scanner.page_count + self._scanner.zero_page_count)

    @property
    def page_size(self) -> int:
        """Of the guest, in bytes."""
        return int(self._scanner.page_size)

    @property
    def first_record(self) -> PageRecord | None:
        """The first page record that begins in the piece that was fed last."""
        s = self._scanner
        if s.record_offset < 0:
            return None
        return PageRecord(int(s.record_offset), int(s.record_block), int(s.record_page))

    @property
    def memory_left(self) -> int:
        """Bytes of guest RAM of which no page has been seen yet, as far as pages do not come twice."""
        return max(0, self.ram_size - self.pages_seen * self.page_size)

    def feed(self, data: Buffer) -> None:
        """The next bytes of the stream; borrowed for the call."""
        with ffi.from_buffer("uint8_t[]", data) as view:
            lib.ss_scan_feed(self._scanner, view, len(view))

    def map(self) -> StreamMap:
        """What was found so far."""
        s = self._scanner
        blocks = (s.blocks[number] for number in range(s.block_count))
        return map_of(
            ScanState(
                size=s.size,
                phase=s.phase,
                machine=_bytes(s.machine, s.machine_size),
                page_size=s.page_size,
                blocks=tuple((_bytes(block.name, block.name_size), block.size) for block in blocks),
                ram_offset=s.ram_offset,
                ram_end=s.ram_end,
                device_offset=s.device_offset,
                page_count=s.page_count,
                zero_page_count=s.zero_page_count,
                pages_in_order=bool(s.in_order),
                description_offset=s.description_offset,
                description_end=s.description_end,
                end_mark=bool(s.end_mark),
            )
        )


class PageLog(Sequence[PageContents]):
    """Page records in the order of the stream, 24 bytes of memory each."""

    def __init__(self, capacity: int) -> None:
        self.pages: Any = _new_uncleared("ss_page[]", capacity)
        self.length = 0

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, number: int) -> PageContents: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[PageContents]: ...
    def __getitem__(self, number: int | slice) -> PageContents | Sequence[PageContents]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self.length))]
        if not 0 <= number < self.length:
            raise IndexError(number)
        page = self.pages[number]
        return PageContents(page.block, page.page, page.contents, PageKind(page.record))


def _bytes(array: Any, size: int) -> bytes:
    return bytes(ffi.buffer(array, size)) if size else b""
