"""What the scanners find, on streams whose every offset is known. Agreement on the rest: tests/property/test_scanner.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamsave._native.scan import StreamScanner as NativeScanner
from streamsave.format.migration import PageRecord, RamBlock, StreamMap
from streamsave.format.scanner import MAX_BLOCKS
from streamsave.format.scanner import StreamScanner as ReferenceScanner
from streamsave.units import KiB, MiB

from ..property.streams import RAM_ID, StreamBuilder, be, cut, named
from . import golden

Scan = Callable[[bytes], StreamMap]

GOLDEN_MAP = StreamMap(
    size=581465,
    machine="pc-q35-7.2",
    page_size=4096,
    ram_blocks=(RamBlock("pc.ram", 16 * MiB), RamBlock("pc.bios", 256 * KiB), RamBlock("pc.rom", 128 * KiB)),
    ram_offset=8 + 5 + len("pc-q35-7.2"),
    ram_end=504718,
    device_offset=504723,
    page_count=114,
    zero_page_count=4078,
    pages_in_order=True,
    description_offset=537202,
    well_formed_end=True,
    problem="",
)
"""The end mark's 00 is at 537196, 06 at 537197, and the JSON has 44263 bytes (shared facts of the format)."""


@pytest.fixture(params=[NativeScanner, ReferenceScanner], ids=["native", "reference"])
def scan(request: pytest.FixtureRequest) -> Scan:
    def of(data: bytes) -> StreamMap:
        scanner: NativeScanner | ReferenceScanner = request.param()
        scanner.feed(data)
        return scanner.map()

    return of


def small(*, footers: bool = True) -> StreamBuilder:
    """A stream of the usual shape, up to the devices' state."""
    builder = StreamBuilder(footers=footers)
    builder.configuration("pc-test")
    builder.ram_start({"pc.ram": 1 * MiB, "rom": 8 * KiB})
    builder.ram_part(builder.page(bytes(4096), block="pc.ram"), builder.page(b"x" * 4096), builder.zero_page(block="rom"))
    return builder.ram_part(last=True)


def test_the_golden_stream(scan: Scan) -> None:
    data = golden.stream()
    assert data[537196:537198] == b"\0\6"
    assert GOLDEN_MAP.description_offset + 44263 == len(data)
    assert (GOLDEN_MAP.page_count + GOLDEN_MAP.zero_page_count) * 4096 == sum(block.size for block in GOLDEN_MAP.ram_blocks)
    assert scan(data) == GOLDEN_MAP


def test_no_beginning_of_the_golden_stream_is_whole() -> None:
    data = golden.stream()
    scanner = NativeScanner()
    whole = set()
    for start, end in [(0, 1), (1, 537000), *((size, size + 1) for size in range(537000, len(data)))]:
        scanner.feed(data[start:end])
        if scanner.map().well_formed_end:
            whole.add(end)
    assert whole == {537197, len(data)}


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (0, "ends before the state"),
        (8, "ends before the state"),
        (300_000, "ends before the state"),
        (520_000, "without QEMU's end mark"),
        (537_196, "without QEMU's end mark"),
        (581_464, "inside the description"),
    ],
)
def test_why_a_cut_stream_is_not_whole(scan: Scan, size: int, problem: str) -> None:
    found = scan(golden.stream()[:size])
    assert not found.well_formed_end
    assert problem in found.problem
    assert found.description_offset == -1


@pytest.mark.parametrize("more", [b"\0", b"\n", b"QEVM\0\0\0\3", bytes(4096)])
def test_a_stream_that_goes_on_is_not_whole(scan: Scan, more: bytes) -> None:
    found = scan(golden.stream() + more)
    assert not found.well_formed_end
    assert found.problem == "it goes on after its end"


@pytest.mark.parametrize("data", [b"QEVM\0\0\0\2" + bytes(20), b"#!/bin/sh", bytes(4096), golden.image("raw")])
def test_something_else(scan: Scan, data: bytes) -> None:
    found = scan(data)
    assert found.problem == "it does not begin as one of version 3 does"
    assert (found.size, found.ram_offset, found.well_formed_end) == (len(data), -1, False)


@pytest.mark.parametrize("footers", [True, False])
@pytest.mark.parametrize("description", [None, b"{}"])
def test_streams_with_and_without_footers(scan: Scan, footers: bool, description: bytes | None) -> None:
    builder = small(footers=footers).device(3, "cpu", b"\xff" * 9).end(description)
    assert scan(bytes(builder.data)) == builder.map()


def test_without_footers_the_end_mark_is_still_needed(scan: Scan) -> None:
    builder = small(footers=False).device(3, "cpu", b"\xff" * 9)
    assert scan(bytes(builder.data)).problem == "it ends without QEMU's end mark"


def test_a_missing_footer_is_not_an_old_machine_type(scan: Scan) -> None:
    builder = small()
    builder.footers = False
    builder.ram_part(last=True)
    found = scan(bytes(builder.data + b"\4\0\0\0"))
    assert found.problem == "it ends without QEMU's end mark"


def test_capabilities_page_size_and_uuid_are_passed_over(scan: Scan) -> None:
    builder = StreamBuilder()
    builder.configuration("virt-9.0", capabilities=["x-ignore-shared", ""], page_bits=14, uuid=b"\1" * 16)
    builder.command(1, b"abc").ram_start({"mach-virt.ram": 64 * KiB})
    builder.ram_part(builder.page(b"\2" * 16384, block="mach-virt.ram"), last=True).end(b"{}")
    found = scan(bytes(builder.data))
    assert found == builder.map()
    assert found.page_size == 16384


def test_a_description_looked_alike_before_the_real_one(scan: Scan) -> None:
    builder = (
        small()
        .device(3, "cpu", b"\x7e\0\0\0\1\0\6\0\0\0\7" + b"\x7e\0\0\0\2\0\6\xff\xff\xff\xff")
        .end(b'{"page_size": 4096}')
    )
    assert scan(bytes(builder.data)) == builder.map()


@pytest.mark.parametrize(
    "odd",
    [
        b"\7" + be(256, 4),
        b"\7" + be(4, 4) + b"test" + b"\5" + named("configuration/new") + be(1, 4),
        b"\7" + be(4, 4) + b"test" + b"\5" + named("configuration/target-page-bits") + be(1, 4) + be(25, 4),
        b"\1" + be(1, 4) + named("slirp") + be(0, 4) + be(1, 4),
        b"\2" + be(RAM_ID, 4),
        b"\x09",
    ],
    ids=["long name", "new subsection", "odd page size", "other section", "part before start", "new section"],
)
def test_the_end_is_found_behind_what_cannot_be_walked(scan: Scan, odd: bytes) -> None:
    data = b"QEVM\0\0\0\3" + odd + b"\x55" * 100 + b"\x7e" + be(9, 4) + b"\0\6" + be(2, 4) + b"{}"
    found = scan(data)
    assert found.well_formed_end
    assert (found.ram_offset, found.device_offset, found.description_offset) == (-1, -1, len(data) - 2)
    assert found.page_size == 4096


@pytest.mark.parametrize(
    "odd",
    [
        b"\7" + be(5, 4) + b"other",
        b"\5" + named("configuration/target-page-bits") + be(1, 4) + be(13, 4),
        b"\1" + be(3, 4) + named("ram") + be(0, 4) + be(4, 4) + be(0x10, 8),
        b"\0",
    ],
    ids=["configuration", "page size", "RAM", "end"],
)
def test_sections_out_of_place_are_not_walked(scan: Scan, odd: bytes) -> None:
    builder = StreamBuilder().configuration("pc-test").ram_start({"pc.ram": 1 * MiB})
    before = builder.map()
    found = scan(bytes(builder.data) + odd)
    assert found.problem == "it ends without QEMU's end mark"
    assert (found.machine, found.page_size, found.ram_offset) == (before.machine, before.page_size, before.ram_offset)


def test_device_state_before_the_ram_is_not_that_after_it(scan: Scan) -> None:
    """As virtio-mem's: from there on nothing is walked."""
    builder = (
        StreamBuilder().configuration("pc-test").device(1, "virtio-mem-early", b"").ram_start({"pc.ram": 1 * MiB}).end(b"{}")
    )
    found = scan(bytes(builder.data))
    assert (found.device_offset, found.ram_offset, found.well_formed_end) == (-1, -1, True)


def test_a_mark_lies_in_the_opaque_part_with_all_its_bytes(scan: Scan) -> None:
    found = scan(bytes(small(footers=False).data) + b"\x09\6" + be(4, 4) + b"{abc")
    assert (found.description_offset, found.well_formed_end) == (-1, False)


@pytest.mark.parametrize(
    "record",
    [
        be(0x80, 8),
        be(0x18, 8),
        be(0x01, 8),
        be(0x1000, 8),
        be(0x04 | 8192, 8) + named("") + be(4096, 8),
        be(0x04 | 8192, 8) + named("empty") + be(0, 8),
    ],
    ids=["hook", "two flags", "obsolete flag", "no flag", "nameless block", "empty block"],
)
def test_records_that_cannot_be_walked(scan: Scan, record: bytes) -> None:
    builder = small()
    before = builder.map()
    end = b"\x7e" + be(9, 4) + b"\0"
    builder.ram_part(record)
    found = scan(bytes(builder.data) + end)
    assert found.well_formed_end
    assert (found.ram_blocks, found.page_count, found.device_offset) == (before.ram_blocks, before.page_count, -1)


@pytest.mark.parametrize("count", [MAX_BLOCKS, MAX_BLOCKS + 1])
def test_the_number_of_blocks_is_bounded(scan: Scan, count: int) -> None:
    builder = StreamBuilder().ram_start({f"{number:0255}": 4096 for number in range(count)})
    builder.ram_part(builder.page(bytes(4096), block=f"{0:0255}"), last=True).device(3, "cpu", b"").end(b"{}")
    found = scan(bytes(builder.data))
    assert len(found.ram_blocks) == MAX_BLOCKS
    assert found.ram_blocks == tuple(builder.blocks[:MAX_BLOCKS])
    assert found.well_formed_end
    assert (found.page_count, found.ram_end >= 0) == ((1, True) if count == MAX_BLOCKS else (0, False))


def test_a_block_larger_than_announced_is_none(scan: Scan) -> None:
    builder = StreamBuilder().ram_start({"pc.ram": 1 * MiB})
    at = bytes(builder.data).index(named("pc.ram")) + 7
    builder.data[at : at + 8] = be(1 * MiB + 4096, 8)
    found = scan(bytes(builder.data))
    assert found.ram_blocks == ()


def test_counters_for_progress() -> None:
    builder = small()
    for scanner in (NativeScanner(), ReferenceScanner()):
        scanner.feed(bytes(builder.data))
        assert (scanner.ram_size, scanner.pages_seen, scanner.page_size) == (1 * MiB + 8 * KiB, 3, 4096)


@pytest.mark.parametrize("scanner", [NativeScanner(), ReferenceScanner()], ids=["native", "reference"])
def test_first_records_of_pieces(scanner: NativeScanner | ReferenceScanner) -> None:
    builder = StreamBuilder().ram_start({"pc.ram": 1 * MiB, "rom": 8 * KiB})
    start = len(builder.data) + 5
    builder.ram_part(
        builder.page(b"a" * 4096, block="pc.ram", offset=8192),
        builder.zero_page(offset=12288),
        builder.zero_page(block="rom"),
    )
    second = start + 8 + len("?pc.ram") + 4096
    third = second + 9
    found = []
    for piece in cut(bytes(builder.data), [start, second + 3, third]):
        scanner.feed(piece)
        found.append(scanner.first_record)
    begun_before = None
    assert found == [None, PageRecord(start, 0, 8192), begun_before, PageRecord(third, 1, 0)]
