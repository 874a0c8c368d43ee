"""Where an index is, and whether it is of this payload: nothing is read that is too large, or believed that cannot be."""

from __future__ import annotations

from typing import NoReturn

import pytest

from streamsave.codecs.registry import find_codec
from streamsave.format.header import Header, unused_field
from streamsave.format.index import (
    END,
    END_SIZE,
    MAX_INDEX_SIZE,
    Index,
    IndexPointer,
    encode_index,
    encode_pointer,
    pointer_by_end,
)
from streamsave.operations.image_index import FoundIndex, find_index, index_at
from streamsave.units import MiB

from .test_index import index_of, record

GZIP = find_codec("gzip")


def found(index: Index, offset: int) -> FoundIndex:
    """What becomes of ``index`` at ``offset`` of a payload of gzip."""
    carrier = GZIP.carry(encode_index(index), index.frames)
    return index_at(IndexPointer(offset, len(carrier)), GZIP, lambda: carrier)


def of_gzip(sizes: list[int]) -> Index:
    index = index_of(sizes=sizes)
    index.frames.payload_start = 0
    return index


def test_an_index_of_this_payload() -> None:
    assert found(of_gzip([10, 20, 30]), 60).problem == ""


@pytest.mark.parametrize(("start", "offset"), [(0, 61), (0, 59), (1, 61)])
def test_frames_that_do_not_fill_the_payload(start: int, offset: int) -> None:
    index = of_gzip([10, 20, 30])
    index.frames.payload_start = start
    assert found(index, offset) == FoundIndex(offset, problem=f"its frames do not fill the payload of {offset} bytes")


def test_a_frame_larger_than_can_be() -> None:
    largest = GZIP.bound(MiB)
    assert found(of_gzip([10, largest, 30]), 40 + largest).problem == ""
    assert found(of_gzip([10, largest + 1, 30]), 41 + largest).problem == f"a frame of {largest + 1} bytes cannot be"


def test_an_index_larger_than_any_is_not_read() -> None:
    def read() -> NoReturn:
        raise AssertionError("read")

    assert index_at(IndexPointer(7, MAX_INDEX_SIZE + 1), GZIP, read).problem == "it is said to have 268435457 bytes"


def test_a_file_that_ends_before_its_index() -> None:
    """How much of the payload is missing, by what the header says; nothing else is looked at."""

    def read_at(_size: int, _offset: int) -> NoReturn:
        raise AssertionError("read")

    pointer = encode_pointer(IndexPointer(1000, 60))
    header = Header(complete=True, data_size=1, was_running=True, format=1, unused=unused_field(pointer=pointer))
    cut = find_index(header, 700, read_at)
    assert (cut.payload_size, cut.missing_size, cut.index) == (700, 300, None)
    assert cut.problem == "it is said to be 60 bytes at 1000 of 700"
    barely = find_index(header, 1059, read_at)
    assert (barely.payload_size, barely.missing_size) == (1000, 0)
    assert find_index(header, 1060, lambda size, _offset: bytes(size)).problem != barely.problem


def test_an_index_that_breaks_off() -> None:
    assert "breaks off after 5 of 60 bytes" in index_at(IndexPointer(7, 60), GZIP, lambda: b"short").problem


def test_an_end_that_cannot_be() -> None:
    index = encode_index(index_of())
    tail = index[-END_SIZE:]
    assert pointer_by_end(tail, 9000) == IndexPointer(9000 - len(index), len(index))
    assert pointer_by_end(tail, len(index)) == IndexPointer(0, len(index))
    assert pointer_by_end(tail, len(index) - 1) is None, "it begins before the payload"
    assert pointer_by_end(tail[1:], 9000) is None
    assert pointer_by_end(tail[:-1] + bytes([tail[-1] ^ 1]), 9000) is None, "its checksum"
    assert pointer_by_end(record(END, tail[12:28], flags=1), 9000) is None
    assert pointer_by_end(record(END, tail[12:20] + b"ssindex1"), 9000) is None
