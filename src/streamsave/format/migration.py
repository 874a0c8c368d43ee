"""QEMU's migration stream: what a look at it while it passes by tells.

The stream is a configuration, the guest's RAM as page records, the state of the devices, an end mark and (usually) a
description in JSON. Everything up to the end of RAM can be walked. Device sections carry no length, so from the first of
them on only the end can be recognised: a section's footer and the end mark, alone or with a description that reaches
exactly to the last byte. Machine types before 2.4 write no footers, and 2.2 no description either: there the end mark, a
zero byte, is all there is. (QEMU: migration/savevm.c, migration/ram.c; tried with 7.2 and 10.0, from pc-i440fx-1.7 on.)

The scanners are in ``scanner`` (the reference) and, for use, in C in ``streamsave._native``; they share what is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Phase(IntEnum):
    """Where a scanner stands. The numbers are those of ``native/scan.c``."""

    MAGIC = 0
    STRUCTURE = 1
    """Between two sections, or inside one that can be walked."""
    ENDED = 2
    """The end mark was walked to, with nothing after it yet."""
    OPAQUE = 3
    """In what cannot be walked: device state, a section that we do not know, or whatever follows the end mark."""
    FOREIGN = 4
    """Not a migration stream."""


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One block of guest RAM: QEMU's name, and the size in bytes that is in use."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class StreamMap:
    """What a scanner found. Offsets and sizes in bytes from the start of the stream; -1: not found (yet)."""

    size: int
    """Bytes scanned."""
    machine: str
    """The machine type; empty where it is older than 2.4, which does not write it."""
    page_size: int
    ram_blocks: tuple[RamBlock, ...]
    ram_offset: int
    """The section that starts the RAM."""
    ram_end: int
    """Behind the last page record, and the mark that ends them."""
    device_offset: int
    """The first section of a device after the RAM."""
    page_count: int
    """Records of pages with contents; a running guest may send a page more than once."""
    zero_page_count: int
    """Records of pages that repeat one byte, nearly always zero."""
    pages_in_order: bool
    """Whether each page record is of a later page than the one before: blocks as listed, offsets rising, no page twice."""
    description_offset: int
    """The JSON."""
    well_formed_end: bool
    """Whether what was scanned ends as a whole stream does."""
    problem: str
    """If not: why, to follow "the stream is not all of one:"; else empty."""

    @property
    def lost_in_ram(self) -> bool:
        """Whether the walk lost its way between page records: behind one was neither another nor their end.

        What a machine may have that cannot be walked comes before the first page record, or behind the last one.
        """
        return self.page_count + self.zero_page_count > 0 and self.ram_end < 0 and self.well_formed_end


class PageKind(IntEnum):
    """What a page record holds. The numbers are QEMU's flags."""

    REPEATED = 0x02
    """One byte, which all of the page repeats; nearly always zero."""
    WHOLE = 0x08
    """The page."""
    DELTA = 0x40
    """What changed since it was sent before (xbzrle)."""
    COMPRESSED = 0x100


class PageRecord(NamedTuple):
    """Where a page record begins in the stream, and which page it is of."""

    stream_offset: int
    block: int
    """The number of the block in ``StreamMap.ram_blocks``; -1: of none of them."""
    page_offset: int
    """In bytes from the start of the block."""


class PageContents(NamedTuple):
    """A page record, and where in the stream what it says of the page begins."""

    block: int
    page_offset: int
    stream_offset: int
    """Of the page's bytes, or of the one byte that all of them are."""
    kind: PageKind


@dataclass(slots=True)
class ScanState:
    """The plain values of a scanner, as both implementations hold them."""

    size: int = 0
    phase: int = Phase.MAGIC
    machine: bytes = b""
    page_size: int = 4096
    blocks: tuple[tuple[bytes, int], ...] = ()
    ram_offset: int = -1
    ram_end: int = -1
    device_offset: int = -1
    page_count: int = 0
    zero_page_count: int = 0
    pages_in_order: bool = True
    description_offset: int = -1
    """Of the description that began last; one that does not end with the stream was none."""
    description_end: int = -1
    end_mark: bool = False
    """Whether the opaque part ends, so far, with a footer and the end mark."""


def map_of(state: ScanState) -> StreamMap:
    """The result of a scan."""
    described = state.phase == Phase.OPAQUE and state.description_end == state.size
    ended = described or state.phase == Phase.ENDED or (state.phase == Phase.OPAQUE and state.end_mark)
    return StreamMap(
        size=state.size,
        machine=state.machine.decode(errors="replace"),
        page_size=state.page_size,
        ram_blocks=tuple(RamBlock(name.decode(errors="replace"), size) for name, size in state.blocks),
        ram_offset=state.ram_offset,
        ram_end=state.ram_end,
        device_offset=state.device_offset,
        page_count=state.page_count,
        zero_page_count=state.zero_page_count,
        pages_in_order=state.pages_in_order,
        description_offset=state.description_offset if described else -1,
        well_formed_end=ended,
        problem="" if ended else _problem(state),
    )


def _problem(state: ScanState) -> str:
    if state.phase == Phase.FOREIGN:
        return "it does not begin as one of version 3 does"
    if state.phase != Phase.OPAQUE:
        return "it ends before the state of the devices"
    if state.description_end > state.size:
        return "it ends inside the description at its end"
    if state.description_end >= 0:
        return "it goes on after its end"
    return "it ends without QEMU's end mark"
