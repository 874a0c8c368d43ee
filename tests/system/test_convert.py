"""Conversions: every format into every other, foreign images, pipes, in place; stream and metadata stay what they were."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs
from streamsave.errors import (
    CorruptImageError,
    DestinationError,
    IncompleteImageError,
    NotAnImageError,
    TruncatedImageError,
    UnsupportedImageError,
    UsageError,
)
from streamsave.format.header import HEADER_SIZE, MAGIC_PARTIAL, encode_header, parse_header, unused_field
from streamsave.format.index import encode_pointer, parse_pointer
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.operations.reports import ConvertReport
from streamsave.options import CompressOptions
from streamsave.types import Progress
from streamsave.units import KiB, MiB

from ..kit.cli import streamsave
from ..kit.device import block_device
from ..kit.images import METADATA, flip, long_stream, made_up_stream, restored, save_bytes, save_pieces
from ..kit.sparse import sparse_guest, write_sparse

pytestmark = pytest.mark.timeout(60)
GOLDEN = Path(__file__).parents[1] / "data" / "golden"
NAMES = tuple(codecs())
SUMS = dict(re.findall(r"^\| (tiny\.\w+\.save) .*`([0-9a-f]{64})`", (GOLDEN / "README.md").read_text(), re.MULTILINE))
STREAM = made_up_stream()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One image of ``STREAM`` per format. Only to be read."""
    folder = tmp_path_factory.mktemp("images")
    for name in NAMES:
        save_bytes(STREAM, folder / name, format=name)
    return {name: folder / name for name in NAMES}


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new.save"


def check(path: Path, name: str, stream: bytes = STREAM) -> None:
    """The image at ``path`` is one of ``stream``, with an index."""
    info = read_info(path)
    assert info.format == name
    assert info.index is not None
    assert info.index.frames.stream_size == len(stream)
    assert info.payload_offset % 4096 == 0
    assert restored(path)[0] == stream


@pytest.mark.parametrize("after", NAMES)
@pytest.mark.parametrize("before", NAMES)
def test_every_format_into_every_format(before: str, after: str, images: dict[str, Path], new: Path) -> None:
    old = images[before].read_bytes()
    report = convert(images[before], new, CompressOptions(format=after))
    check(new, after)
    was, is_now = read_info(images[before]), read_info(new)
    assert was.index
    assert is_now.index
    assert is_now.metadata == METADATA
    assert is_now.header.was_running
    assert (report.source_format, report.format, report.parallel, report.root_compared) == (before, after, True, True)
    assert report.root == is_now.index.root.hex() == was.index.root.hex()
    assert is_now.index.image_id != was.index.image_id
    assert is_now.index.stream_map == was.index.stream_map == report.stream
    assert (report.stream_size, report.image_size) == (len(STREAM), new.stat().st_size)
    assert images[before].read_bytes() == old


@pytest.mark.parametrize("after", NAMES)
@pytest.mark.parametrize("before", sorted(SUMS))
def test_what_libvirt_wrote(before: str, after: str, new: Path) -> None:
    report = convert(GOLDEN / before, new, CompressOptions(format=after))
    assert not report.root_compared, "libvirt writes no index"
    stream = restored(new)[0]
    assert hashlib.sha256(stream).hexdigest() == SUMS[before]
    check(new, after, stream)
    metadata = read_info(new).metadata
    assert metadata.xml == (GOLDEN / "tiny.xml").read_text()
    assert metadata.cookie == (GOLDEN / "tiny.cookie.xml").read_text()
    assert report.was_running


def test_a_header_of_the_other_byte_order_and_paused(new: Path, tmp_path: Path) -> None:
    data = (GOLDEN / "tiny.zstd.save").read_bytes()
    header = parse_header(data)
    other = tmp_path / "other.save"
    swapped = bytearray(data[:HEADER_SIZE])
    for at in range(16, 36, 4):
        swapped[at : at + 4] = swapped[at : at + 4][::-1]
    swapped[24:28] = bytes(4)
    other.write_bytes(bytes(swapped) + data[HEADER_SIZE:])
    assert read_info(other).header.byte_order != header.byte_order
    report = convert(other, new, CompressOptions(format="gzip"))
    assert (read_info(new).header.byte_order, report.was_running) == (header.byte_order, False)
    assert hashlib.sha256(restored(new)[0]).hexdigest() == SUMS["tiny.zstd.save"]


def test_bytes_of_the_metadata_that_are_no_text_stay(new: Path, tmp_path: Path) -> None:
    data = (GOLDEN / "tiny.raw.save").read_bytes().replace(b"</name>", b"\xff\xfe</name>", 1)
    data = data[:HEADER_SIZE] + data[HEADER_SIZE:].replace(b"\0\0", b"", 1)  # of the padding
    header = parse_header(data)
    odd = tmp_path / "odd.save"
    cookie = data.index(b"<cookie>") - HEADER_SIZE
    words = encode_header(header)
    odd.write_bytes(words[:32] + cookie.to_bytes(4, "little") + words[36:] + data[HEADER_SIZE:])
    convert(odd, new, CompressOptions(format="lz4"))
    assert read_info(new).metadata == read_info(odd).metadata
    assert b"\xff\xfe</name>" in new.read_bytes()[: 8 * KiB]


@pytest.mark.parametrize("level", [1, 9])
def test_another_level(level: int, images: dict[str, Path], new: Path) -> None:
    report = convert(images["gzip"], new, CompressOptions(format="gzip", level=level))
    assert report.level == level
    check(new, "gzip")


def test_in_place_takes_over_owner_mode_and_attributes(images: dict[str, Path], tmp_path: Path) -> None:
    path, link = tmp_path / "guest.save", tmp_path / "link"
    path.write_bytes(images["raw"].read_bytes())
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    link.symlink_to(path.name)
    report = convert(link, link, CompressOptions(format="zstd"))
    check(path, "zstd")
    after = path.stat()
    assert link.is_symlink()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.getxattr(path, "user.note") == b"kept"
    assert report.path == path
    assert sorted(os.listdir(tmp_path)) == ["guest.save", "link"]


def test_elsewhere_the_new_image_is_its_owners(images: dict[str, Path], tmp_path: Path, new: Path) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(images["raw"].read_bytes())
    path.chmod(0o644)
    convert(path, new, CompressOptions(format="zstd"))
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


def test_in_place_by_another_of_its_names(images: dict[str, Path], tmp_path: Path, new: Path) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(images["raw"].read_bytes())
    os.link(path, new)
    convert(path, new, CompressOptions(format="zstd"))
    check(new, "zstd")
    check(path, "raw")


def test_onto_a_device(images: dict[str, Path], tmp_path: Path) -> None:
    """The image goes into it, as a save's does; the node itself is not replaced."""
    node = tmp_path / "device"
    with block_device(tmp_path / "backing", bytes(16 * MiB)) as device:
        os.mknod(node, stat.S_IFBLK | 0o600, device.stat().st_rdev)
        convert(images["raw"], node, CompressOptions(format="gzip"))
        assert node.is_block_device()
        assert read_info(device).format == "gzip"
        assert restored(device)[0] == restored(images["raw"])[0]
        with pytest.raises(DestinationError, match="not a regular file, so no new one can take its place"):
            convert(device, node, CompressOptions(format="raw"))
        assert node.is_block_device()


def test_what_is_neither_a_file_nor_a_device_stays(images: dict[str, Path], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(DestinationError, match="is no regular file and no block device"):
        convert(images["raw"], fifo)
    assert fifo.is_fifo()


def test_an_image_that_changes_meanwhile_is_not_replaced(images: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "guest.save"
    path.write_bytes(images["raw"].read_bytes())

    def touch(_progress: Progress) -> None:
        os.utime(path, (1, 1))

    with pytest.raises(DestinationError, match="somebody else changed the image meanwhile: nothing was written"):
        convert(path, path, CompressOptions(format="zstd"), progress=touch)
    check(path, "raw")
    assert os.listdir(tmp_path) == ["guest.save"]


def test_the_guests_state_and_xml_can_be_changed(images: dict[str, Path], new: Path) -> None:
    xml = "<domain><name>made up</name><title>new</title></domain>"
    report = convert(images["gzip"], new, CompressOptions(format="raw"), xml=xml, state="paused")
    info = read_info(new)
    assert (info.metadata.xml, info.metadata.cookie) == (xml, METADATA.cookie)
    assert not info.header.was_running
    assert not report.was_running
    check(new, "raw")


@pytest.mark.parametrize(
    ("xml", "complaint"),
    [
        ("<domain><name>another</name></domain>", "the new XML has the name another, the image made up"),
        ("<domain></domain>", r"the new XML has the name \(none\)"),
        ("<network><name>made up</name></network>", "is a <network>, not a <domain>"),
        ("<domain><name>made up</name>", "the domain XML is not well-formed"),
        ("<!DOCTYPE domain><domain><name>made up</name></domain>", "has a document type"),
    ],
)
def test_another_guests_xml_is_refused(xml: str, complaint: str, images: dict[str, Path], new: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        convert(images["raw"], new, CompressOptions(format="raw"), xml=xml)
    assert not new.exists()


def test_a_partial_image_is_refused(images: dict[str, Path], new: Path, tmp_path: Path) -> None:
    path = tmp_path / "partial.save"
    path.write_bytes(MAGIC_PARTIAL + images["raw"].read_bytes()[16:])
    with pytest.raises(IncompleteImageError):
        convert(path, new, CompressOptions(format="raw"))
    assert not new.exists()


def test_a_damaged_index_is_told_and_made_anew(images: dict[str, Path], new: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.save"
    path.write_bytes(images["zstd"].read_bytes())
    info = read_info(path)
    flip(path, info.payload_offset + info.payload_size + 60)
    report = convert(path, new, CompressOptions(format="gzip"))
    assert not report.root_compared
    assert [warning for warning in report.warnings if "the index of the source is damaged" in warning]
    check(new, "gzip")


def test_a_stream_without_its_end_is_refused(new: Path, tmp_path: Path) -> None:
    data = (GOLDEN / "tiny.raw.save").read_bytes()
    cut = tmp_path / "cut.save"
    cut.write_bytes(data[:-1000])
    with pytest.raises(TruncatedImageError, match="are not all: it ends inside the description"):
        convert(cut, new, CompressOptions(format="zstd"))
    assert os.listdir(tmp_path) == ["cut.save"]


def through_pipes(source: Path, new: Path, after: str, **options: object) -> ConvertReport:
    """``source`` into a pipe, and out of that one into ``new`` in another pipe's format ``after``."""
    reader, writer = os.pipe()
    reports: list[ConvertReport] = []

    def write() -> None:
        with open(writer, "wb") as end:
            reports.append(convert(source, end.fileno(), CompressOptions(format=after)))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return convert(reader, new, CompressOptions(format="zstd"))
    finally:
        os.close(reader)
        thread.join()
        assert reports
        assert reports[0].root_compared


@pytest.mark.parametrize("name", NAMES)
def test_through_a_pipe(name: str, images: dict[str, Path], new: Path) -> None:
    report = through_pipes(images["raw"], new, name)
    assert report.source_format == name
    assert not report.warnings
    check(new, "zstd")
    assert read_info(new).metadata == METADATA


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_image_through_a_pipe_is_held_against_its_index(name: str, images: dict[str, Path], new: Path) -> None:
    with subprocess.Popen(["cat", images[name]], stdout=subprocess.PIPE) as cat:
        assert cat.stdout
        report = convert(cat.stdout.fileno(), new, CompressOptions(format="gzip"))
    assert report.root_compared
    check(new, "gzip")


def test_an_index_in_a_pipe_that_says_otherwise(images: dict[str, Path], new: Path, tmp_path: Path) -> None:
    """The payload of one stream, in front of the index of another of the same size."""
    other = tmp_path / "other.save"
    stream = bytearray(STREAM)
    at = stream.index(b"a page of text") + 30
    stream[at : at + 1] = b"!"
    save_bytes(bytes(stream), other, format="raw")
    ours, theirs = images["raw"].read_bytes(), other.read_bytes()
    end = read_info(other).payload_offset + len(STREAM)
    other.write_bytes(ours[:end] + theirs[end:])
    fd = os.open(other, os.O_RDONLY)
    try:
        with pytest.raises(CorruptImageError, match="the stream that was decoded is not the one that was saved"):
            convert(fd, new, CompressOptions(format="gzip"))
    finally:
        os.close(fd)
    assert not new.exists()


@pytest.mark.parametrize("cut", [-1, -200])
def test_a_pipe_that_ends_in_the_index(cut: int, images: dict[str, Path], new: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(images["zstd"].read_bytes()[:cut])
    fd = os.open(part, os.O_RDONLY)
    try:
        report = convert(fd, new, CompressOptions(format="gzip"))
    finally:
        os.close(fd)
    assert report.warnings
    check(new, "gzip")


@pytest.mark.parametrize(
    ("size", "error"),
    [(0, NotAnImageError), (50, TruncatedImageError), (5000, TruncatedImageError), (300_000, TruncatedImageError)],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_that_ends_before(name: str, size: int, error: type[Exception], images: dict[str, Path], new: Path) -> None:
    reader, writer = os.pipe()
    data = images[name].read_bytes()[:size]

    def feed() -> None:
        with open(writer, "wb") as pipe, suppress(BrokenPipeError):
            pipe.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with pytest.raises(error):
            convert(reader, new, CompressOptions(format="raw"))
    finally:
        os.close(reader)
        feeder.join()
    assert not new.exists()


def test_an_index_that_a_pipe_claims_to_be_huge_takes_no_memory(images: dict[str, Path], new: Path, tmp_path: Path) -> None:
    data = images["zstd"].read_bytes()
    header = parse_header(data)
    pointer = parse_pointer(header.pointer)
    assert pointer
    huge = encode_pointer(type(pointer)(pointer.offset, 1 << 40))
    path = tmp_path / "huge"
    path.write_bytes(data[: HEADER_SIZE - 56] + unused_field(pointer=huge) + data[HEADER_SIZE:])
    fd = os.open(path, os.O_RDONLY)
    try:
        report = convert(fd, new, CompressOptions(format="raw"))
    finally:
        os.close(fd)
    assert "it is said to have 1099511627776 bytes" in report.warnings[0]


def test_progress(images: dict[str, Path], new: Path) -> None:
    looks: list[Progress] = []
    report = convert(images["zstd"], new, CompressOptions(format="raw"), progress=looks.append)
    assert looks[-1].fraction == 1.0
    assert looks[-1].bytes_in == report.source_size
    assert looks[-1].bytes_out == report.payload_size


PEAK = """
import sys
from streamsave.cli.main import main
status = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""


def peak_of(*arguments: str | Path) -> int:
    """The most memory, in bytes, that a conversion in a process of its own had."""
    command = [sys.executable, "-c", PEAK, "convert", *map(str, arguments), "--quiet", "--threads", "2"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout) * KiB


@pytest.mark.parametrize("after", ["lz4", "gzip"])
def test_memory_is_bounded_by_the_slots(after: str, images: dict[str, Path], tmp_path: Path, new: Path) -> None:
    """Both pipelines have 7 slots of a chunk and perhaps a frame; a stream of 512 MiB takes no more than one of 3.5."""
    big = tmp_path / "big.save"
    report = save_pieces(long_stream(512 * MiB), big, format="zstd")
    assert report.stream_size > 512 * MiB
    small = peak_of(images["zstd"], new, "--format", after)
    large = peak_of(big, new, "--format", after)
    assert large < small + 40 * MiB
    assert large < 160 * MiB
    assert read_info(new).payload_size < 64 * MiB


def test_on_the_command_line(images: dict[str, Path], new: Path, tmp_path: Path) -> None:
    done = streamsave("convert", images["raw"], new, "--format", "zstd", "--level", "6")
    assert done.status == 0, done.err
    assert "from raw to zstd level 6" in done.out
    done = streamsave("convert", new, "--in-place", "--format", "gzip", "--json")
    assert done.status == 0, done.err
    assert (done.event["event"], done.event["format"], done.event["root_compared"]) == ("converted", "gzip", True)
    check(new, "gzip")
    copy = tmp_path / "copy.save"
    command = f"{sys.executable} -m streamsave.cli convert"
    pipe = f"{command} {new} - --format lz4 | {command} - {copy} --format raw"
    piped = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], capture_output=True, text=True, timeout=40)
    assert piped.returncode == 0, piped.stderr
    assert f"converted {new} from gzip to lz4 level 1: standard output, " in piped.stderr
    assert f"converted standard input from lz4 to raw: {copy}, " in piped.stdout
    check(copy, "raw")


def test_what_is_wrong_with_standard_input(images: dict[str, Path], new: Path) -> None:
    command = [sys.executable, "-m", "streamsave.cli", "convert", "-", "--format", "gzip", str(new)]
    cut = images["zstd"].read_bytes()[:80_000]
    piped = subprocess.run(command, input=cut, capture_output=True, timeout=40)
    assert piped.returncode == 13
    assert piped.stderr.startswith(b"streamsave: error: standard input: the zstd payload ends "), piped.stderr
    with images["zstd"].open("rb") as file:  # the shell's < FILE: that has a name
        named = subprocess.run(command, stdin=file, capture_output=True, timeout=40)
    assert named.stdout.startswith(f"converted {images['zstd']} from zstd to gzip".encode()), named.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["a"], 2, "give either DST or --in-place"),
        (["a", "b", "--in-place"], 2, "give either DST or --in-place"),
        (["-", "--in-place"], 2, "standard input cannot be replaced"),
        (["a", "-", "--json"], 2, "cannot both go to standard output"),
        (["/nowhere/a", "b"], 41, "/nowhere/a: cannot be opened"),
        (["a", "b", "--xml", "/nowhere/x"], 41, "/nowhere/x: cannot be read"),
    ],
)
def test_misuse(arguments: list[str], status: int, complaint: str) -> None:
    done = streamsave("convert", *arguments, "--format", "zstd")
    assert (done.status, complaint in done.error) == (status, True), done.err


@pytest.mark.parametrize("after", NAMES)
def test_libvirts_sparse_into_every_format(after: str, new: Path, tmp_path: Path) -> None:
    image, guest = tmp_path / "sparse.save", sparse_guest()
    write_sparse(image, guest)
    looks: list[Progress] = []
    report = convert(image, new, CompressOptions(format=after), progress=looks.append)
    check(new, after, guest.stream())
    assert (report.source_format, report.root_compared, report.was_running) == ("sparse", False, True)
    assert read_info(new).metadata == METADATA
    assert looks[-1].fraction == 1.0
    convert(image, image, CompressOptions(format=after))
    check(image, after, guest.stream())


def test_a_sparse_image_that_was_cut_names_itself(new: Path, tmp_path: Path) -> None:
    image = tmp_path / "sparse.save"
    write_sparse(image, sparse_guest())
    image.write_bytes(image.read_bytes()[: 3 * MiB])
    with pytest.raises(TruncatedImageError, match=rf"{image}: the file ends at offset {3 * MiB}, inside a block of RAM"):
        convert(image, new, CompressOptions(format="zstd"))
    assert not new.exists()


def test_a_sparse_image_has_no_order_that_a_pipe_could_keep(new: Path, tmp_path: Path) -> None:
    image = tmp_path / "sparse.save"
    write_sparse(image, sparse_guest())
    with image.open("rb") as file, pytest.raises(UnsupportedImageError, match="convert the file to another format first"):
        convert(file.fileno(), new, CompressOptions(format="zstd"))


def test_a_sparse_image_of_a_big_endian_host(new: Path, tmp_path: Path) -> None:
    image = tmp_path / "sparse.save"
    write_sparse(image, sparse_guest())
    data = bytearray(image.read_bytes())
    for at in range(16, 36, 4):
        data[at : at + 4] = data[at : at + 4][::-1]
    image.write_bytes(data)
    with pytest.raises(UnsupportedImageError, match="of a big-endian host"):
        convert(image, new, CompressOptions(format="zstd"))
