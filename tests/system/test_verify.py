"""Verify, over images of every format: what is good, what is not, where, and what the proof was worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs, find_codec
from streamsave.errors import CorruptImageError, IncompleteImageError, NotAnImageError, TruncatedImageError
from streamsave.format.digest import leaves_of, root_of
from streamsave.format.header import HEADER_SIZE, POINTER_SIZE
from streamsave.format.index import Index, encode_index
from streamsave.operations.image import read_info
from streamsave.operations.verify import verify
from streamsave.types import Progress
from streamsave.units import MiB

from ..kit.cli import streamsave
from ..kit.images import flip, made_up_stream, save_bytes

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
ALL = pytest.mark.parametrize("name", codecs())


@pytest.fixture(scope="module")
def stream() -> bytes:
    return made_up_stream(1500)


@pytest.fixture(scope="module")
def saved(stream: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """An image of each format."""
    path = tmp_path_factory.mktemp("saved") / "guest.save"
    images = {}
    for name in codecs():
        save_bytes(stream, path, format=name)
        images[name] = path.read_bytes()
    return images


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest.save"


@ALL
def test_a_good_image(name: str, stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    image.write_bytes(saved[name])
    seen: list[Progress] = []
    report = verify(image, progress=seen.append)
    assert (report.format, report.proof, report.parallel, report.metadata_as_saved) == (name, "digests", True, True)
    assert (report.image_size, report.stream_size) == (len(saved[name]), len(stream))
    assert report.root == root_of(len(stream), leaves_of(memoryview(stream))).hex()
    assert report.frame_count == -(-len(stream) // find_codec(name).chunk_size)
    assert seen[-1].fraction == 1
    assert image.read_bytes() == saved[name]


@ALL
def test_damage_is_named_with_its_place(name: str, stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    """The first of two damaged frames, and all of the stream before it."""
    image.write_bytes(saved[name])
    info = read_info(image)
    assert info.index
    last = len(info.index.frames) - 1
    places = [info.payload_offset + info.index.frames.frame_offset(number) for number in range(last + 1)]
    for number in (last, last // 2):
        flip(image, places[number] + info.index.frames.sizes[number] // 2)
        with pytest.raises(CorruptImageError, match=f"in frame {number} at offset {places[number]}: ") as caught:
            verify(image)
        error = caught.value
        assert (error.path, error.offset, error.frame) == (image, places[number], number)
        assert error.good_size == number * find_codec(name).chunk_size


@ALL
@pytest.mark.parametrize("with_index", [True, False])
def test_a_cut_image(name: str, stream: bytes, saved: dict[str, bytes], image: Path, *, with_index: bool) -> None:
    image.write_bytes(saved[name])
    info = read_info(image)
    cut = info.payload_offset + info.payload_size * 2 // 3
    image.write_bytes(saved[name][:cut] if with_index else without_pointer(saved[name])[:cut])
    with pytest.raises(TruncatedImageError) as caught:
        verify(image)
    assert str(image) in str(caught.value)
    assert 0 <= caught.value.good_size < len(stream)


def without_pointer(data: bytes) -> bytes:
    return data[: HEADER_SIZE - POINTER_SIZE] + bytes(POINTER_SIZE) + data[HEADER_SIZE:]


@ALL
def test_without_an_index(name: str, stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    image.write_bytes(saved[name])
    info = read_info(image)
    image.write_bytes(without_pointer(saved[name])[: info.payload_offset + info.payload_size])
    report = verify(image)
    assert report.proof == ("structure" if name == "raw" else "checksums")
    assert (report.root, report.metadata_as_saved, report.stream_size) == ("", None, len(stream))


@ALL
def test_a_damaged_index_is_damage(name: str, stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    image.write_bytes(saved[name])
    info = read_info(image)
    flip(image, info.payload_offset + info.payload_size + 100)
    with pytest.raises(CorruptImageError, match=f"the index is damaged: .* all {len(stream)} bytes of the stream") as caught:
        verify(image)
    assert caught.value.good_size == len(stream)


@pytest.mark.parametrize("name", [name for name, codec in codecs().items() if codec.prologue or codec.epilogue])
def test_damage_around_the_frames(name: str, stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    codec = find_codec(name)
    image.write_bytes(saved[name])
    info = read_info(image)
    places = [info.payload_offset] if codec.prologue else []
    places += [info.payload_offset + info.payload_size - 1] if codec.epilogue else []
    for place in places:
        flip(image, place)
        with pytest.raises(CorruptImageError, match="damaged around"):
            verify(image)
        flip(image, place)


def test_an_edited_description_is_no_damage(saved: dict[str, bytes], image: Path) -> None:
    image.write_bytes(saved["zstd"].replace(b"<name>made up</name>", b"<name>changed</name>"))
    assert verify(image).metadata_as_saved is False


def test_a_stream_that_is_not_all_of_one(stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    """Whole frames with good checksums, and still half a guest: an image whose writer was cut off."""
    image.write_bytes(saved["gzip"])
    info = read_info(image)
    assert info.index
    end = info.payload_offset + info.index.frames.frame_offset(3)
    image.write_bytes(without_pointer(saved["gzip"])[:end])
    with pytest.raises(TruncatedImageError, match="ends before the state of the devices") as caught:
        verify(image)
    assert caught.value.good_size == 3 * MiB


def test_an_index_of_another_image(stream: bytes, saved: dict[str, bytes], image: Path) -> None:
    """Frames of one save behind the header and before the index of another: each chunk is held against its digest."""
    other = made_up_stream(1501)
    save_bytes(other, image, format="raw")
    info, data = read_info(image), image.read_bytes()
    end = info.payload_offset + len(stream)
    image.write_bytes(saved["raw"][: info.payload_offset] + data[info.payload_offset : end] + saved["raw"][end:])
    with pytest.raises(CorruptImageError, match=r"frame 0 .* other bytes than were saved"):
        verify(image)


def with_index(data: bytes, image: Path, change: Callable[[Index], Index]) -> None:
    """The image of ``data``, whose index is what ``change`` makes of it: of the same size, and with good checksums."""
    image.write_bytes(data)
    info = read_info(image)
    assert info.index
    end = info.payload_offset + info.payload_size
    new = change(info.index)
    carrier = find_codec(info.format).carry(encode_index(new), new.frames)
    assert len(carrier) == len(data) - end
    image.write_bytes(data[:end] + carrier)


def test_an_index_that_describes_another_stream(saved: dict[str, bytes], image: Path) -> None:
    """Of the right frames with the right digests."""

    def one_page_more(index: Index) -> Index:
        return replace(index, stream_map=replace(index.stream_map, page_count=index.stream_map.page_count + 1))

    with_index(saved["zstd"], image, one_page_more)
    with pytest.raises(CorruptImageError, match="the index describes another stream than the payload holds"):
        verify(image)


def test_an_index_with_an_empty_frame(saved: dict[str, bytes], image: Path) -> None:
    def shifted(index: Index) -> Index:
        sizes = index.frames.sizes
        sizes[1], sizes[0] = sizes[0] + sizes[1], 0
        return index

    with_index(saved["gzip"], image, shifted)
    with pytest.raises(CorruptImageError, match=r"in frame 0 .*: in the index it has 0 bytes, and no frame has"):
        verify(image)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.save")), ids=lambda path: path.name)
def test_images_of_stock_virsh(path: Path) -> None:
    report = verify(path)
    assert report.proof == ("structure" if ".raw." in path.name else "checksums")
    assert report.stream_size == 581465


def test_others(image: Path, saved: dict[str, bytes]) -> None:
    image.write_bytes(b"LibvirtQemudPart" + saved["zstd"][16:])
    with pytest.raises(IncompleteImageError):
        verify(image)
    image.write_bytes(b"something else")
    with pytest.raises(NotAnImageError):
        verify(image)


def test_command_line(tmp_path: Path, saved: dict[str, bytes]) -> None:
    good, cut, damaged = (tmp_path / name for name in ("good.save", "cut.save", "damaged.save"))
    good.write_bytes(saved["zstd"])
    cut.write_bytes(saved["zstd"][:200_000])
    damaged.write_bytes(saved["gzip"])
    flip(damaged, 200_000)
    run = streamsave("verify", good)
    assert (run.status, run.err) == (0, "")
    assert run.out.startswith(f"{good}: good: ")
    assert "every MiB is the one that was saved" in run.out
    run = streamsave("verify", cut, good, damaged)
    assert run.status == 13
    assert run.out.startswith(f"{good}: good: ")
    assert run.err.count("streamsave: error: ") == 2
    assert run.err.count("of the stream (") == 2
    run = streamsave("verify", "--json", damaged, good, tmp_path / "missing.save")
    events = [event for event in map(json.loads, run.out.splitlines()) if event["event"] != "progress"]
    assert run.status == 14
    assert [event["event"] for event in events] == ["error", "verified", "error"]
    assert events[0]["class"] == "CorruptImageError"
    assert (events[0]["path"], events[0]["frame"], events[0]["good_size"]) == (str(damaged), 0, 0)
    assert (events[1]["good"], events[1]["proof"]) == (True, "digests")
    assert events[2]["exit_status"] == 41
