"""The stream of an image as a file, and the guest's pages in it: the right bytes at any place, in every format."""

from __future__ import annotations

import gc
import io
import os
import threading
import weakref
from pathlib import Path
from random import Random

import pytest

from streamsave.codecs.registry import codecs, find_codec
from streamsave.endpoints.file import FileSource
from streamsave.errors import CorruptImageError, IncompleteImageError, StreamsaveError, TruncatedImageError, UsageError
from streamsave.format.header import HEADER_SIZE, POINTER_SIZE
from streamsave.format.migration import PageKind
from streamsave.operations.image import read_info
from streamsave.operations.image_stream import CACHED_CHUNKS, open_stream
from streamsave.units import KiB, MiB

from ..kit.images import flip, made_up_stream, save_bytes
from ..property.streams import StreamBuilder

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
PAGE_COUNT = 1500
ALL = pytest.mark.parametrize("name", codecs())


@pytest.fixture(scope="module")
def stream() -> bytes:
    return made_up_stream(PAGE_COUNT)


@pytest.fixture(scope="module")
def saved(stream: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("saved")
    for name in codecs():
        save_bytes(stream, folder / name, format=name)
    return {name: folder / name for name in codecs()}


@pytest.fixture
def unindexed(saved: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The same images without their index."""
    images = {}
    for name, path in saved.items():
        info, data = read_info(path), path.read_bytes()
        images[name] = tmp_path / name
        head = data[: HEADER_SIZE - POINTER_SIZE] + bytes(POINTER_SIZE)
        images[name].write_bytes(head + data[HEADER_SIZE : info.payload_offset + info.payload_size])
    return images


@ALL
def test_reads_anywhere(name: str, stream: bytes, saved: dict[str, Path]) -> None:
    random = Random(name)
    with open_stream(saved[name]) as file:
        assert file.size == len(stream)
        assert (file.readable(), file.seekable(), file.writable(), file.tell()) == (True, True, False, 0)
        for _ in range(60):
            offset, size = random.randrange(len(stream) + 100), random.choice([0, 1, 4 * KiB, 2 * MiB + 5])
            assert file.seek(offset) == offset
            assert file.read(size) == stream[offset : offset + size]
            assert file.tell() == min(offset + size, max(len(stream), offset))
            assert file.read_at(offset, size) == stream[offset : offset + size]
        assert file.seek(-10, os.SEEK_END) == len(stream) - 10
        assert file.seek(5, os.SEEK_CUR) == len(stream) - 5
        assert file.read() == stream[-5:]
        assert file.read(10) == b""
        file.seek(0)
        assert file.readall() == stream
        with pytest.raises(UsageError, match="before the start"):
            file.seek(-1)
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


@ALL
def test_reads_anywhere_without_an_index(name: str, stream: bytes, unindexed: dict[str, Path]) -> None:
    with open_stream(unindexed[name]) as file:
        for offset in (3 * MiB, 100, len(stream) - 7, len(stream) + 1, 0):
            assert file.read_at(offset, 4096) == stream[offset : offset + 4096]
        assert file.size == len(stream)
    with open_stream(unindexed[name]) as file:
        assert file.size == len(stream)
        assert file.read() == stream


def test_raw_is_read_where_it_is_wanted(stream: bytes, unindexed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    honest = FileSource.read_at

    def read_at(source: FileSource, size: int, offset: int) -> bytes:
        read.append(size)
        return honest(source, size, offset)

    with open_stream(unindexed["raw"]) as file:
        monkeypatch.setattr(FileSource, "read_at", read_at)
        for offset in (5 * MiB, 1 * MiB, 64 * KiB - 1, len(stream) - 1, len(stream), 1 << 60, 1 * MiB):
            assert file.read_at(offset, 4096) == stream[offset : offset + 4096]
        assert file.size == len(stream)
    assert sum(read) < 400 * KiB


def test_what_is_missing_of_a_raw_image_is_told(stream: bytes, saved: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "guest.save"
    data, start = saved["raw"].read_bytes(), read_info(saved["raw"]).payload_offset
    image.write_bytes(data[: start + 3 * MiB + 7])
    with open_stream(image) as file:
        assert file.read_at(2 * MiB, MiB) == stream[2 * MiB : 3 * MiB]
        for offset in (3 * MiB, 4 * MiB, len(stream) - 1):
            with pytest.raises(TruncatedImageError, match="bytes before the payload does") as caught:
                file.read_at(offset, 4096)
            assert caught.value.offset == len(file.info.path.read_bytes())


@ALL
def test_decodes_what_it_reads_and_nothing_else(name: str, saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    codec = find_codec(name)
    decoded = []
    decoder = codec.decoder()

    class Watched:
        def decode(self, frame: memoryview, room: memoryview) -> object:
            decoded.append(len(frame))
            return decoder.decode(frame, room)

    monkeypatch.setattr(type(codec), "decoder", lambda self: Watched())
    with open_stream(saved[name]) as file:
        assert decoded == []
        file.read_at(MiB // 2, 4096)
        file.read_at(MiB // 2 + 5000, 4096)
        assert len(decoded) == 1
        if codec.chunk_size == MiB:
            for number in range(CACHED_CHUNKS):
                file.read_at((number + 1) * MiB, 1)
            file.read_at(MiB // 2, 1)
            assert len(decoded) == CACHED_CHUNKS + 2
            assert len(file._cache) == CACHED_CHUNKS


def test_is_a_file_for_others(stream: bytes, saved: dict[str, Path]) -> None:
    with open_stream(saved["zstd"]) as file, io.BufferedReader(file) as buffered:
        assert buffered.read(8) == b"QEVM\0\0\0\3"
        buffered.seek(1 * MiB - 3)
        assert buffered.read(10) == stream[MiB - 3 : MiB + 7]
        room = bytearray(3 * MiB)
        buffered.seek(0)
        assert buffered.readinto(room) == len(room)
        assert room == stream[: len(room)]


def test_many_threads_read_one_stream(stream: bytes, saved: dict[str, Path]) -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        random = Random(seed)
        for _ in range(40):
            offset = random.randrange(len(stream))
            if file.read_at(offset, 9000) != stream[offset : offset + 9000]:
                wrong.append(offset)

    with open_stream(saved["zstd"]) as file:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_image_that_is_cut_while_it_is_read(stream: bytes, saved: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "guest.save"
    image.write_bytes(saved["raw"].read_bytes())
    with open_stream(image) as file:
        offset = read_info(image).payload_offset
        os.truncate(image, offset + 3 * MiB + 100)
        assert file.read_at(2 * MiB, MiB) == stream[2 * MiB : 3 * MiB]
        with pytest.raises(TruncatedImageError, match=f"in frame 3 at offset {offset + 3 * MiB}: the file ends inside it"):
            file.read_at(3 * MiB, 1)


@ALL
def test_damage_is_an_error_where_it_is_read(name: str, stream: bytes, saved: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "guest.save"
    image.write_bytes(saved[name].read_bytes())
    info = read_info(image)
    assert info.index
    frames = info.index.frames
    last = len(frames) - 1
    flip(image, info.payload_offset + frames.frame_offset(last) + frames.sizes[last] // 2)
    with open_stream(image) as file:
        if last:
            assert file.read_at(0, 100) == stream[:100]
        with pytest.raises(CorruptImageError, match=f"in frame {last} at offset") as caught:
            file.read_at(len(stream) - 10, 10)
        assert caught.value.frame == last
    image.write_bytes(image.read_bytes()[: info.payload_offset + frames.frame_offset(last) + 5])
    with open_stream(image) as file, pytest.raises(StreamsaveError):
        file.read()


@ALL
@pytest.mark.parametrize("with_index", [True, False])
def test_nothing_is_kept_of_a_closed_stream(
    name: str, saved: dict[str, Path], unindexed: dict[str, Path], *, with_index: bool
) -> None:
    """Not even in a cycle that the collector cannot break, as there was one through zstd's reader."""
    with open_stream((saved if with_index else unindexed)[name]) as file:
        file.read_at(5000, 4096)
    left = weakref.ref(file._chunks)
    del file
    gc.collect()
    assert left() is None


@pytest.mark.parametrize("name", [name for name, codec in codecs().items() if codec.detects_damage])
@pytest.mark.parametrize("what", ["flip", "cut"])
def test_an_error_without_an_index_comes_again(name: str, what: str, unindexed: dict[str, Path]) -> None:
    """The reader has lost its place: what it says next must not pass for the stream."""
    image = unindexed[name]
    info = read_info(image)
    middle = info.payload_offset + info.payload_size // 2
    if what == "flip":
        flip(image, middle)
    else:
        image.write_bytes(image.read_bytes()[:middle])
    with open_stream(image) as file:
        for _ in range(3):
            with pytest.raises(TruncatedImageError if what == "cut" else CorruptImageError) as caught:
                file.read_at(0, 100 * MiB)
            assert caught.value.offset > info.payload_offset


def test_what_cannot_be_opened(tmp_path: Path, saved: dict[str, Path]) -> None:
    image = tmp_path / "guest.save"
    image.write_bytes(b"LibvirtQemudPart" + saved["zstd"].read_bytes()[16:])
    with pytest.raises(IncompleteImageError):
        open_stream(image)
    image.write_bytes(saved["zstd"].read_bytes()[:5000])
    with pytest.raises(TruncatedImageError):
        open_stream(image)


def expected_page(number: int) -> bytes:
    """Page ``number`` of pc.ram in ``made_up_stream``: found in the stream itself, by its record."""
    if number % 2:
        return bytes(4096)
    word = (number // 2 * 8192 | 0x08 | (0x20 if number else 0)).to_bytes(8, "big")
    stream = made_up_stream(PAGE_COUNT)
    at = stream.index(word) + 8 + (0 if number else len("?pc.ram"))
    return stream[at : at + 4096]


@ALL
@pytest.mark.parametrize("with_index", [True, False])
def test_every_page_is_found(name: str, saved: dict[str, Path], unindexed: dict[str, Path], *, with_index: bool) -> None:
    with open_stream((saved if with_index else unindexed)[name]) as file:
        ram = file.ram
        assert file.ram is ram
        assert {block.name: block.size for block in ram.blocks} == {"pc.ram": 2 * PAGE_COUNT * 4096, "rom": 64 * KiB}
        assert ram.page_size == 4096
        numbers = {0, 1, 2 * PAGE_COUNT - 1, *Random(1).sample(range(2 * PAGE_COUNT), 80)}
        for number in sorted(numbers, key=lambda number: number * 7919 % 3001):
            page = ram.locate("pc.ram", number * 4096 + 17)
            assert (page.block, page.page_offset) == (0, number * 4096)
            assert page.kind == (PageKind.REPEATED if number % 2 else PageKind.WHOLE)
            assert ram.read("pc.ram", number * 4096, 4096) == expected_page(number), number
        assert ram.read("pc.ram", 4096 * 6 + 4000, 300) == (expected_page(6) + expected_page(7))[4000:4300]
        assert ram.read("rom", 0, 4096) == bytes(4096)
        assert len(ram.read("pc.ram", 2 * PAGE_COUNT * 4096 - 10, 100)) == 10


def test_a_record_whose_head_ends_in_the_next_frame(tmp_path: Path) -> None:
    """Its eight bytes in every position across the end of a frame."""
    pages = [number.to_bytes(4, "big") * 1024 for number in range(300)]

    def stream_with(padding: int) -> bytes:
        builder = StreamBuilder().configuration("m").command(1, bytes(padding)).ram_start({"pc.ram": 300 * 4096})
        records = [builder.page(data, block=None if at else "pc.ram", offset=at * 4096) for at, data in enumerate(pages)]
        builder.ram_part(*records, last=True).device(3, "cpu", b"state").end(b"{}")
        return bytes(builder.data)

    padding = (MiB - 8 - (stream_with(0).index(pages[100]) - 8)) % (8 + 4096)
    heads = set()
    for shift in range(9):
        stream = stream_with(padding + shift)
        heads |= {stream.index(pages[at]) - 8 - MiB for at in range(250, 260)} & set(range(-8, 1))
        save_bytes(stream, tmp_path / "image")
        with open_stream(tmp_path / "image") as file:
            for at in range(250, 260):
                assert file.ram.read("pc.ram", at * 4096, 4096) == pages[at], (shift, at)
    assert heads == set(range(-8, 1))


def test_pages_that_are_not_there(saved: dict[str, Path]) -> None:
    with open_stream(saved["zstd"]) as file:
        with pytest.raises(UsageError, match=r"no RAM at 0 of vga: its blocks are pc\.ram"):
            file.ram.locate("vga", 0)
        for offset in (-1, 2 * PAGE_COUNT * 4096):
            with pytest.raises(UsageError, match="no RAM at"):
                file.ram.read("pc.ram", offset, 10)
        with pytest.raises(CorruptImageError, match="no page at 4096 of rom"):
            file.ram.read("rom", 4096, 10)


def test_a_page_that_was_sent_twice_is_the_later_one(tmp_path: Path) -> None:
    """As a guest that runs while it migrates sends them: the pages are in no order, and the index says so."""
    builder = StreamBuilder().ram_start({"pc.ram": 16 * KiB})
    builder.ram_part(
        builder.page(b"b" * 4096, block="pc.ram", offset=8192),
        builder.page(b"a" * 4096, offset=4096),
        builder.page(b"B" * 4096, offset=8192),
        builder.zero_page(offset=0, fill=7),
        builder.xbzrle_page(b"difference", offset=12288),
        last=True,
    )
    save_bytes(bytes(builder.device(3, "cpu", b"state").end(b"{}").data), tmp_path / "image")
    with open_stream(tmp_path / "image") as file:
        index = file.info.index
        assert index
        assert not index.stream_map.pages_in_order
        assert file.ram.read("pc.ram", 0, 12288) == b"\7" * 4096 + b"a" * 4096 + b"B" * 4096
        with pytest.raises(StreamsaveError, match="as delta only"):
            file.ram.read("pc.ram", 12288, 1)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.save")), ids=lambda path: path.name)
def test_the_firmware_in_images_of_stock_virsh(path: Path) -> None:
    """The reset vector is at the end of the BIOS: a far jump to f000:e05b."""
    with open_stream(path) as file:
        bios = next(block for block in file.ram.blocks if block.name == "pc.bios")
        assert file.ram.read("pc.bios", bios.size - 16, 5) == bytes.fromhex("ea5be000f0")
