"""The index byte by byte: what is written comes back, and nothing else is believed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128_digest

from streamsave.errors import UnsupportedImageError
from streamsave.format.digest import leaves_of, root_of
from streamsave.format.frames import FrameTable
from streamsave.format.index import (
    CRITICAL,
    END,
    DamagedIndexError,
    Index,
    IndexPointer,
    encode_index,
    encode_pointer,
    parse_index,
    parse_pointer,
)
from streamsave.format.levels import LevelUse
from streamsave.format.migration import PageRecord, RamBlock, StreamMap
from streamsave.format.pages import FirstRecords
from streamsave.format.stream_map import decode_stream_map, encode_stream_map
from streamsave.units import MiB

STREAM = Random(0).randbytes(5 * MiB // 2)


def index_of(stream: bytes = STREAM, chunk_size: int = MiB, *, sizes: list[int] | None = None) -> Index:
    count = -(-len(stream) // chunk_size)
    frames = FrameTable(chunk_size, payload_start=7, stream_size=len(stream))
    frames.sizes.extend(sizes or [1000 + number for number in range(count)])
    records = FirstRecords()
    for number in range(count):
        records.append(number * chunk_size, PageRecord(number * chunk_size + 9, 0, 4096 * number) if number % 2 else None)
    return Index(
        bytes(range(16)),
        frames,
        leaves_of(memoryview(stream)),
        a_map(len(stream)),
        records,
        b"of the metadata!",
        (LevelUse(0, 2, 3 * MiB, 1 << 40), LevelUse(9, 1, MiB, 500)),
    )


def a_map(size: int = 9) -> StreamMap:
    return StreamMap(
        size=size,
        machine="pc-q35-7.2",
        page_size=4096,
        ram_blocks=(RamBlock("pc.ram", 1 << 40), RamBlock("größe", 8192)),
        ram_offset=23,
        ram_end=100,
        device_offset=105,
        page_count=3,
        zero_page_count=4,
        pages_in_order=True,
        description_offset=-1,
        well_formed_end=True,
        problem="",
    )


def assert_same(one: Index, other: Index) -> None:
    for name in ("image_id", "leaves", "stream_map", "root", "metadata_digest", "levels"):
        assert getattr(one, name) == getattr(other, name), name
    assert list(one.frames) == list(other.frames)
    assert (one.frames.payload_start, one.frames.payload_end) == (other.frames.payload_start, other.frames.payload_end)
    assert one.first_records.packed() == other.first_records.packed()


@pytest.mark.parametrize("chunk_size", [MiB, 2 * MiB, 16 * MiB])
@pytest.mark.parametrize("size", [0, 1, MiB, MiB + 1, len(STREAM)])
def test_comes_back(size: int, chunk_size: int) -> None:
    index = index_of(STREAM[:size], chunk_size)
    assert_same(parse_index(encode_index(index)), index)


def test_every_flipped_bit_and_every_cut_shows() -> None:
    data = encode_index(index_of())
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(DamagedIndexError):
            parse_index(bytes(damaged))
        with pytest.raises(DamagedIndexError):
            parse_index(data[:at])


@given(st.binary(max_size=300))
def test_anything_else_is_no_index(data: bytes) -> None:
    with pytest.raises(DamagedIndexError):
        parse_index(data)


def record(kind: int, body: bytes, flags: int = 0) -> bytes:
    data = struct.pack("<HHQ", kind, flags, len(body)) + body
    return data + struct.pack("<I", crc32(data))


def reassembled(change: Callable[[list[tuple[int, int, bytes]]], None]) -> bytes:
    """An index whose records (type, flags, body) were changed, and whose checksums hold."""
    data, position, records = encode_index(index_of()), 0, []
    while position < len(data):
        kind, flags, size = struct.unpack_from("<HHQ", data, position)
        records.append((kind, flags, data[position + 12 : position + 12 + size]))
        position += 12 + size + 4
    assert records.pop()[0] == END
    change(records)
    out = b"".join(record(kind, body, flags) for kind, flags, body in records)
    return out + record(END, struct.pack("<Q8s", len(out) + 32, b"SSINDEX1"))


def test_unknown_records_are_skipped_unless_critical() -> None:
    assert_same(parse_index(reassembled(lambda records: records.insert(1, (99, 0, b"from the future")))), index_of())
    with pytest.raises(UnsupportedImageError, match="type 17"):
        parse_index(reassembled(lambda records: records.append((17, CRITICAL, bytes(16)))))


def test_a_body_may_come_in_pieces() -> None:
    def split(records: list[tuple[int, int, bytes]]) -> None:
        kind, flags, body = records[2]
        records[2:3] = [(kind, flags, body[:5]), (kind, flags, body[5:])]

    assert_same(parse_index(reassembled(split)), index_of())


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("what", ["missing", "longer", "shorter", "empty"])
def test_records_that_do_not_fit_one_another(number: int, what: str) -> None:
    def change(records: list[tuple[int, int, bytes]]) -> None:
        kind, flags, body = records.pop(number)
        if what != "missing":
            records.append((kind, flags, {"longer": body + bytes(16), "shorter": body[:-1], "empty": b""}[what]))

    if (number, what) == (3, "longer"):  # a later version may add to the stream's map
        assert_same(parse_index(reassembled(change)), index_of())
        return
    with pytest.raises(DamagedIndexError):
        parse_index(reassembled(change))


def test_every_cut_of_a_stream_map_shows() -> None:
    data = encode_stream_map(a_map())
    assert decode_stream_map(data) == a_map()
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"that breaks off|a stream map of \d+ bytes"):
            decode_stream_map(data[:size])


@pytest.mark.parametrize(("chunk_size", "leaf_size"), [(0, MiB), (MiB + 1, MiB), (17 * MiB, MiB), (MiB, MiB // 2)])
def test_sizes_that_cannot_be(chunk_size: int, leaf_size: int) -> None:
    def change(records: list[tuple[int, int, bytes]]) -> None:
        body = records[0][2]
        records[0] = (1, 0, body[:24] + struct.pack("<II", chunk_size, leaf_size) + body[32:])

    with pytest.raises(DamagedIndexError, match="cannot be"):
        parse_index(reassembled(change))


def test_levels_of_another_size_show() -> None:
    with pytest.raises(DamagedIndexError):
        parse_index(reassembled(lambda records: records.append((7, 0, b"more"))))
    without = parse_index(reassembled(lambda records: records.remove(next(each for each in records if each[0] == 7))))
    assert without.levels == ()


def test_a_wrong_root_shows() -> None:
    with pytest.raises(DamagedIndexError, match="root"):
        parse_index(reassembled(lambda records: records.insert(0, (1, 0, records.pop(0)[2][:-1] + b"?"))))


def test_the_last_record_tells_the_size() -> None:
    data = encode_index(index_of())
    body = struct.pack("<Q8s", len(data), b"SSINDEX1")
    assert data.endswith(record(END, body))
    for other in (struct.pack("<Q8s", len(data) - 1, b"SSINDEX1"), body[:8] + b"SSINDEX2", body + b"?", b""):
        with pytest.raises(DamagedIndexError, match="breaks off"):
            parse_index(data[: -len(record(END, body))] + record(END, other))


def test_what_is_held_against_a_chunk() -> None:
    index = index_of()
    chunk = STREAM[MiB : 2 * MiB]
    assert index.objection(1, memoryview(chunk)) == ""
    assert index.objection(2, memoryview(STREAM[2 * MiB :])) == ""
    assert "its digest is not the one in the index" in index.objection(0, memoryview(chunk))
    assert "its digest" in index.objection(1, memoryview(chunk[:-1] + bytes([chunk[-1] ^ 1])))
    assert index.objection(1, memoryview(chunk[:-1])) == "a chunk of 1048575 bytes instead of the 1048576 in the index"
    assert "instead of the 524288" in index.objection(2, memoryview(STREAM[2 * MiB :] + b"?"))


def test_pointer() -> None:
    pointer = IndexPointer(offset=1 << 40, size=12345)
    data = encode_pointer(pointer)
    assert len(data) == 32
    assert parse_pointer(data) == pointer
    assert parse_pointer(bytes(32)) is None
    for at in range(4, 28):
        with pytest.raises(DamagedIndexError, match="pointer"):
            parse_pointer(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    later = struct.pack("<4sIQQ", b"SSIX", 2, 0, 0)
    assert parse_pointer(later + struct.pack("<II", crc32(later), 0)) is None


def test_digest_is_what_the_documentation_says() -> None:
    leaves = leaves_of(memoryview(STREAM))
    assert leaves == b"".join(xxh3_128_digest(STREAM[start : start + MiB]) for start in (0, MiB, 2 * MiB))
    assert root_of(len(STREAM), leaves) == xxh3_128_digest(struct.pack("<QQ", len(STREAM), MiB) + leaves)
    assert leaves_of(memoryview(b"")) == b""


def test_frame_table_finds_its_way() -> None:
    table = index_of(sizes=[10, 300, 5]).frames
    assert [table.frame_offset(number) for number in range(3)] == [7, 17, 317]
    assert table.payload_end == 322
    assert [table.frame_at(offset) for offset in (0, MiB - 1, MiB, len(STREAM) - 1)] == [0, 0, 1, 2]
    assert [table.frame_of_payload(offset) for offset in (7, 16, 17, 316, 321)] == [0, 0, 1, 1, 2]
    assert [table.chunk_size_of(number) for number in range(3)] == [MiB, MiB, MiB // 2]


def test_first_records_find_the_frame_of_a_page() -> None:
    records = FirstRecords()
    found = [None, PageRecord(MiB + 5, 0, 8192), None, PageRecord(3 * MiB, 0, 1 << 30), PageRecord(4 * MiB + 1, 2, 0), None]
    for number, record_ in enumerate(found):
        records.append(number * MiB, record_)
    assert [records.of_frame(number, number * MiB) for number in range(6)] == found
    assert records.frame_before(0, 4096) == -1
    assert records.frame_before(0, 8192) == 1
    assert records.frame_before(0, (1 << 30) - 4096) == 1
    assert records.frame_before(1, 0) == 3
    assert records.frame_before(2, 4096) == 4
    strange = FirstRecords()
    strange.append(0, PageRecord(1, 0, 1 << 61))
    strange.append(MiB, PageRecord(MiB, -1, 0))
    assert [strange.of_frame(0, 0), strange.of_frame(1, MiB)] == [None, None]
