"""Both scanners find what a stream holds, however it is cut, and agree bit for bit on whatever they are fed."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsave._native.scan import StreamScanner as NativeScanner
from streamsave.format.migration import PageContents, StreamMap
from streamsave.format.scanner import StreamScanner as ReferenceScanner

from .streams import RAM_ID, StreamBuilder, built_streams, cut, jumbled_streams

splits = st.lists(st.integers(0, 1 << 15), max_size=12) | st.integers(1, 9).map(lambda step: range(0, 1 << 10, step))


def scan(pieces: Iterable[bytes]) -> StreamMap:
    """What both found, after every single piece the same."""
    native, reference = NativeScanner(), ReferenceScanner()
    for piece in pieces:
        native.feed(piece)
        reference.feed(piece)
        assert native.map() == reference.map()
        assert native.first_record == reference.first_record
        assert (native.ram_size, native.pages_seen, native.page_size) == (
            reference.ram_size,
            reference.pages_seen,
            reference.page_size,
        )
    return native.map()


@given(built_streams(), splits)
def test_streams_are_understood_at_any_split(built: StreamBuilder, places: Iterable[int]) -> None:
    assert scan(cut(bytes(built.data), places)) == built.map()


@given(built_streams(), splits, st.data())
def test_twins_agree_on_damage(built: StreamBuilder, places: Iterable[int], data: st.DataObject) -> None:
    damaged = built.data
    for _ in range(data.draw(st.integers(1, 4), label="damages")):
        at = data.draw(st.integers(0, len(damaged)), label="at")
        size = data.draw(st.integers(0, 12), label="replaced")
        damaged[at : at + size] = data.draw(st.binary(max_size=12) | marks, label="by")
    scan(cut(bytes(damaged), places))


marks = st.sampled_from(
    [
        b"\x7e\0\0\0\2\0",
        b"\x7e\0\0\0\2\0\6\0\0\0\4",
        b"\0\6\0\0\0\4{",
        b"\0\0\0\0\0\0\0\x10",
        b"\x7e\0\0\x7e\0\0\6\0\0\0\4",
        b"\4",
    ]
)
"""What a scanner reacts to."""
fragments = st.lists(st.binary(max_size=8) | marks | st.just(b"QEVM\0\0\0\3"), max_size=12).map(b"".join)


@given(fragments, splits, st.booleans())
def test_twins_agree_on_anything(noise: bytes, places: Iterable[int], begins_well: bool) -> None:
    scan(cut((b"QEVM\0\0\0\3" if begins_well else b"") + noise, places))


@settings(max_examples=300)
@given(jumbled_streams, splits)
def test_twins_agree_on_sections_out_of_place(jumbled: bytes, places: Iterable[int]) -> None:
    scan(cut(jumbled, places))


@given(built_streams(), fragments, splits)
def test_twins_agree_in_the_opaque_part(built: StreamBuilder, noise: bytes, places: Iterable[int]) -> None:
    opaque = built.device_offset + 1
    scan(cut(bytes(built.data[:opaque]) + noise, [place + opaque for place in places]))


@settings(max_examples=50)
@given(built_streams(footers=st.just(True)))
def test_no_shorter_stream_passes_for_a_whole_one(built: StreamBuilder) -> None:
    """But one: QEMU loads a stream that ends with the end mark, without the description."""
    scanner = NativeScanner()
    whole = []
    for piece in cut(bytes(built.data), [*range(0, built.ram_end, 199), *range(built.ram_end, len(built.data))]):
        scanner.feed(piece)
        if scanner.map().well_formed_end:
            whole.append(scanner.map().size)
    assert whole == sorted({built.end_offset, len(built.data)})


@settings(max_examples=50)
@given(built_streams(footers=st.just(True)), st.binary(min_size=1, max_size=20).filter(lambda more: b"\x7e" not in more))
def test_no_longer_stream_passes_for_a_whole_one(built: StreamBuilder, more: bytes) -> None:
    if built.description_offset < 0 and more[0] == 6:
        more = b"\7" + more[1:]
    found = scan([bytes(built.data), more])
    assert not found.well_formed_end
    assert found.problem


def test_builder_writes_something_else_each_time() -> None:
    """A property that never sees an interesting stream would hold for nothing."""
    seen: set[tuple[bool, bool, bool]] = set()

    @settings(database=None, max_examples=1000, derandomize=True)
    @given(built_streams())
    def look(built: StreamBuilder) -> None:
        seen.add((built.footers, built.description_offset >= 0, built.page_count > 0))

    look()
    assert len(seen) == 8


@pytest.mark.parametrize("scanner", [NativeScanner, ReferenceScanner])
def test_borrowed_memory_is_given_back(scanner: type[NativeScanner | ReferenceScanner]) -> None:
    data = bytearray(b"QEVM\0\0\0\3\7")
    with memoryview(data) as view:
        scanner().feed(view)
        scanner().feed(view.toreadonly()[3:])
    data.clear()  # BufferError if an export were left


@given(built_streams(), splits)
def test_twins_log_the_same_pages(built: StreamBuilder, places: Iterable[int]) -> None:
    native, reference = NativeScanner(), ReferenceScanner()
    reference.log = []
    logged: list[PageContents] = []
    for piece in cut(bytes(built.data), places):
        logged += native.feed_logging(piece)
        reference.feed(piece)
    assert logged == reference.log
    assert len(logged) == built.page_count + built.zero_page_count


@given(built_streams(), st.data())
def test_twins_go_on_at_any_page_record(built: StreamBuilder, data: st.DataObject) -> None:
    """From there on they find what they would have found."""
    stream = bytes(built.data)
    at = data.draw(st.integers(0, len(stream)), label="at")
    whole = NativeScanner()
    whole.feed(stream[:at])
    log = list(whole.feed_logging(stream[at:]))
    record = whole.first_record
    if record is None or record.block < 0:
        return
    while log and log[0].stream_offset <= record.stream_offset:  # its word began before
        log.pop(0)
    native = NativeScanner.resumed(whole.map(), RAM_ID, record)
    reference = ReferenceScanner.resumed(whole.map(), RAM_ID, record)
    reference.log = []
    reference.feed(stream[record.stream_offset :])
    assert list(native.feed_logging(stream[record.stream_offset :])) == reference.log == log
    assert native.map() == reference.map()
