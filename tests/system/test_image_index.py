"""The index of an image: there in every format, believed while it holds, and done without where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs, find_codec
from streamsave.errors import CorruptImageError, TruncatedImageError
from streamsave.format.digest import leaves_of, root_of
from streamsave.format.header import HEADER_SIZE, POINTER_SIZE
from streamsave.format.scanner import StreamScanner
from streamsave.operations.image import ImageInfo, read_info
from streamsave.units import MiB

from ..kit.images import flip, made_up_stream, restored, save_bytes

ALL = pytest.mark.parametrize("name", codecs())


@pytest.fixture(scope="module")
def stream() -> bytes:
    return made_up_stream()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest.save"


def index_offset(info: ImageInfo) -> int:
    return info.payload_offset + info.payload_size


@ALL
def test_says_what_is_in_the_payload(name: str, stream: bytes, image: Path) -> None:
    report = save_bytes(stream, image, format=name)
    info, codec = read_info(image), find_codec(name)
    index = info.index
    assert index is not None
    assert info.index_problem == ""
    assert len(index.image_id) == 16
    assert (index.frames.chunk_size, index.frames.stream_size) == (codec.chunk_size, len(stream))
    assert index.frames.payload_end + len(codec.epilogue) == info.payload_size == report.payload_size
    assert len(index.frames) == report.frame_count == -(-len(stream) // codec.chunk_size)
    assert index.leaves == leaves_of(memoryview(stream))
    assert index.root == root_of(len(stream), index.leaves)
    assert index.stream_map == report.stream
    data, decoder, room = image.read_bytes(), codec.decoder(), memoryview(bytearray(codec.chunk_size))
    for number, (size, chunk_size) in enumerate(index.frames):
        start = info.payload_offset + index.frames.frame_offset(number)
        at = number * codec.chunk_size
        assert decoder.decode(memoryview(data)[start : start + size], room) == stream[at : at + chunk_size]


@ALL
def test_leads_to_pages(name: str, stream: bytes, image: Path) -> None:
    """The first record of each frame is one: the word that begins there is of the page that it says."""
    save_bytes(stream, image, format=name)
    index = read_info(image).index
    assert index is not None
    assert index.stream_map.pages_in_order
    found = 0
    for number in range(len(index.frames)):
        record = index.first_records.of_frame(number, number * index.frames.chunk_size)
        if record:
            word = int.from_bytes(stream[record.stream_offset : record.stream_offset + 8], "big")
            assert (record.block, record.page_offset) == (0, word & ~0xFFF)
            assert index.first_records.frame_before(record.block, record.page_offset) == number
            found += 1
    assert found == len(index.frames)


@ALL
def test_every_save_is_told_from_every_other(name: str, stream: bytes, image: Path) -> None:
    ids = set()
    for _ in range(2):
        save_bytes(stream, image, format=name)
        index = read_info(image).index
        assert index
        ids.add(index.image_id)
    assert len(ids) == 2


@ALL
def test_damage_to_the_index_costs_the_index_only(name: str, stream: bytes, image: Path) -> None:
    save_bytes(stream, image, format=name)
    whole = read_info(image)
    for offset in (*(index_offset(whole) + at for at in (30, 60, 200)), HEADER_SIZE - POINTER_SIZE + 9):
        flip(image, offset)
        info = read_info(image)
        assert info.index is None or name in ("raw", "bzip2"), "found by its end where the pointer is damaged"
        assert bool(info.index_problem) == (info.index is None)
        assert restored(image)[0] == stream, offset
        flip(image, offset)
    assert read_info(image).index is not None


@ALL
def test_an_image_cut_in_its_index_restores(name: str, stream: bytes, image: Path) -> None:
    save_bytes(stream, image, format=name)
    info = read_info(image)
    for size in (info.file_size - 1, index_offset(info) + 10, index_offset(info)):
        image.write_bytes(image.read_bytes()[:size])
        cut = read_info(image)
        assert cut.index is None
        assert cut.index_problem
        assert restored(image)[0] == stream


@ALL
def test_an_image_cut_in_its_payload_does_not(name: str, stream: bytes, image: Path) -> None:
    save_bytes(stream, image, format=name)
    image.write_bytes(image.read_bytes()[: index_offset(read_info(image)) - 100])
    with pytest.raises(TruncatedImageError):
        restored(image)


@ALL
def test_every_flipped_bit_of_a_payload_shows(name: str, stream: bytes, image: Path) -> None:
    """Raw too, which has no checksum but those of the index; or the stream is the one that was saved."""
    save_bytes(stream, image, format=name)
    info = read_info(image)
    refused = 0
    for number in range(40):
        offset = info.payload_offset + number * (info.payload_size - 1) // 39
        flip(image, offset, number % 8)
        try:
            assert restored(image)[0] == stream, offset
        except CorruptImageError:
            refused += 1
        flip(image, offset, number % 8)
    assert refused > 30


def test_swapped_frames_show(stream: bytes, image: Path) -> None:
    save_bytes(stream, image, format="raw")
    info, data = read_info(image), image.read_bytes()
    first, second = (data[info.payload_offset + at : info.payload_offset + at + MiB] for at in (0, MiB))
    image.write_bytes(data[: info.payload_offset] + second + first + data[info.payload_offset + 2 * MiB :])
    with pytest.raises(CorruptImageError, match=r"frame [01] at offset \d+: it decodes to other bytes than were saved"):
        restored(image)


def test_the_reference_scanner_finds_the_same(stream: bytes, image: Path) -> None:
    save_bytes(stream, image, format="zstd")
    scanner = StreamScanner()
    scanner.feed(stream)
    index = read_info(image).index
    assert index
    assert index.stream_map == scanner.map()
