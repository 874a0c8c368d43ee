"""Typed wrapper of ``native/scan.c``: buffers in, values out. Every call releases the GIL."""

from __future__ import annotations

from typing import Any

from ..format.migration import PageRecord, ScanState, StreamMap, map_of
from ..types import Buffer
from . import ffi, lib


class StreamScanner:
    """The scanner in C; see ``format.scanner.StreamScanner``, with which it agrees bit for bit.

    One thread feeds; any thread may look at the counters.
    """

    def __init__(self) -> None:
        self._scanner: Any = ffi.new("ss_scanner *")
        lib.ss_scan_init(self._scanner)

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


def _bytes(array: Any, size: int) -> bytes:
    return bytes(ffi.buffer(array, size)) if size else b""
