"""xz streams of every kind that the stock tool writes, its readers over ours, and streams that claim what is not so."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path
from random import Random
from zlib import crc32

import pytest

from streamsave.codecs.base import DecodeError, NotFramed, TruncatedError
from streamsave.codecs.registry import find_codec
from streamsave.codecs.xz import _head, _sizes, _tail
from streamsave.units import KiB, MiB

from ..kit.tools import pipe_through
from .checks import decode, encode, frame_sizes, payload_of, read_all
from .hostile import peak_growth, refuses
from .samples import mixed, noise, text, zeros

XZ = find_codec("xz")
DATA = mixed(300 * KiB)
HEAD = 32


def tool(*options: str, data: bytes) -> bytes:
    return pipe_through(["xz", *options], data)


def with_block_header(frame: bytes, block: bytes) -> bytes:
    """``frame`` with other fields in its block header, whose checksum is right."""
    block = block.ljust(16, b"\0")
    return frame[:12] + block + struct.pack("<I", crc32(block)) + frame[HEAD:]


def number(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


# -- ours, read by others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-dc"], ["-T2", "-dc"], ["-T2", "-dc", "--memlimit=5MiB"], ["-t"]], ids=" ".join)
@pytest.mark.parametrize("size", [None, 0, 3, 4, 5, 300_000])
def test_the_tool_reads_ours_whatever_we_carry(options: list[str], size: int | None) -> None:
    chunks = [DATA, b"", noise(100_000), b"x"]
    payload = payload_of(XZ, *chunks) + (b"" if size is None else XZ.carry(noise(size), None))  # type: ignore[arg-type]
    assert tool(*options, data=payload) == (b"".join(chunks) if "-dc" in options else b"")
    assert lzma.decompress(payload) == b"".join(chunks)


def test_the_tool_lists_ours(tmp_path: Path) -> None:
    path = tmp_path / "payload.xz"
    path.write_bytes(payload_of(XZ, DATA, b"x") + XZ.carry(noise(1000), None))  # type: ignore[arg-type]
    listed = tool("-l", "--robot", str(path), data=b"")
    totals = next(line for line in listed.decode().splitlines() if line.startswith("totals")).split("\t")
    assert totals[1:5] == ["3", "86", str(path.stat().st_size), str(len(DATA) + 1)]


# -- what the tool writes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        *(["-C", check] for check in ("none", "crc32", "crc64", "sha256")),
        ["--block-size=10000"],
        ["-T2", "--block-size=50000"],
        ["-0e"],
        ["--x86", "--lzma2=preset=1"],
        ["--delta=dist=4", "--lzma2=dict=4KiB,lc=0,pb=0"],
        ["--lzma2=preset=0,dict=100MiB"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("step", [999, MiB])
def test_every_option_of_the_tool(options: list[str], step: int) -> None:
    payload = tool("-c", *options, data=DATA)
    assert read_all(XZ, payload, step=step) == DATA
    assert read_all(XZ, payload_of(XZ, b"one") + payload, step=step) == b"one" + DATA
    with pytest.raises(NotFramed):
        list(frame_sizes(XZ, payload, 64))
    for size in (1, 5, 6, 12, 100, len(payload) // 2, len(payload) - 1):
        with pytest.raises(TruncatedError):
            read_all(XZ, payload[:size], step=step)


@pytest.mark.parametrize("count", [4, 8, 400, 200_000])
def test_padding_may_stand_between_and_behind_streams(count: int) -> None:
    payload = lzma.compress(DATA) + bytes(count) + lzma.compress(b"x") + bytes(count)
    for step in (7, MiB):
        assert read_all(XZ, payload, step=step) == DATA + b"x"
    assert read_all(XZ, payload_of(XZ, DATA) + bytes(count)) == DATA
    assert read_all(XZ, bytes(count)) == b"", "a reader that goes on behind the frames"
    with pytest.raises(NotFramed):
        list(frame_sizes(XZ, payload_of(XZ, DATA) + bytes(count), 64))


@pytest.mark.parametrize("tail", [b"\0", bytes(7), b"x", b"trailing garbage", b"\0\0\0\0x", bytes(3) + lzma.compress(b"x")])
def test_nothing_else_may_follow(tail: bytes) -> None:
    for payload in (lzma.compress(DATA), payload_of(XZ, DATA)):
        for step in (1, MiB):
            with pytest.raises(DecodeError):
                read_all(XZ, payload + tail, step=step)


def test_a_stream_of_no_block() -> None:
    assert read_all(XZ, lzma.compress(b"") * 2 + lzma.compress(b"x") + lzma.compress(b"")) == b"x"


# -- what is none of ours ---------------------------------------------------------------------------------------------


def test_every_bit_around_the_data_counts() -> None:
    for data in (b"", b"x", text(1000), noise(1001)):
        frame = bytearray(encode(XZ, data))
        end = len(frame) - 24
        for bit in (*range(8 * HEAD), *range(8 * (end - 8), 8 * len(frame))):
            frame[bit // 8] ^= 1 << bit % 8
            with pytest.raises(DecodeError):
                decode(XZ, frame, len(data) + 100)
            frame[bit // 8] ^= 1 << bit % 8


def test_block_headers_that_are_not_ours() -> None:
    """With a checksum that holds: other filters, a larger dictionary, sizes that are wrong or not the shortest."""
    frame = encode(XZ, DATA)
    size, data_size = number(len(DATA)), frame[14:]
    compressed = data_size[: next(at for at, byte in enumerate(data_size) if byte < 0x80) + 1]
    ours = b"\x04\xc0" + compressed + size + b"\x21\x01\x14"
    assert with_block_header(frame, ours) == frame
    for block in (
        b"\x04\x40" + compressed + b"\x21\x01\x14",
        b"\x04\x80" + size + b"\x21\x01\x14",
        b"\x04\xc0" + compressed + size + b"\x21\x01\x28",  # 4 GiB
        b"\x04\xc0" + compressed + size + b"\x21\x01\x15",
        b"\x04\xc0" + compressed + number(XZ.chunk_size + 1) + b"\x21\x01\x14",
        b"\x04\xc0" + number(XZ.bound(XZ.chunk_size)) + size + b"\x21\x01\x14",
        b"\x04\xc0" + compressed + b"\x81\x80\x80\x00" + b"\x21\x01\x14",
        b"\x04\xc0" + b"\xff" * 9 + b"\x7f" + size,
        b"\x04\xc0" + compressed + b"\xff\xff\xff\xff\x7f\x21\x01\x14",
        ours + b"\x01",
    ):
        damaged = with_block_header(frame, block)
        with pytest.raises(NotFramed):
            XZ.splitter().frame_size(memoryview(damaged), final=True)
        try:
            assert decode(XZ, damaged, len(DATA)) == DATA, "no frame of ours, but right as another program's"
        except DecodeError:
            pass
    for cut in range(1, HEAD):
        assert XZ.splitter().frame_size(memoryview(frame)[:cut], final=False) == 0
        with pytest.raises(NotFramed):
            XZ.splitter().frame_size(memoryview(frame)[:cut], final=True)


@pytest.mark.parametrize("claimed", [0, 1, len(DATA) - 1, len(DATA) + 1, 4 * MiB])
def test_a_frame_holds_what_it_claims(claimed: int) -> None:
    """In the block header and in the index alike, so that nothing but the data contradicts."""
    frame = encode(XZ, DATA)
    data_size, size = _sizes(memoryview(frame))
    assert frame == _head(data_size, size) + frame[HEAD : -len(_tail(data_size, size))] + _tail(data_size, size)
    hostile = _head(data_size, claimed) + frame[HEAD : -len(_tail(data_size, size))] + _tail(data_size, claimed)
    assert len(hostile) == XZ.splitter().frame_size(memoryview(hostile), final=True)
    for room in (len(DATA), 4 * MiB):
        with pytest.raises(DecodeError):
            decode(XZ, hostile, room)


def test_dictionaries_that_the_reader_takes_and_those_it_does_not() -> None:
    """Up to 128 MiB: twice what ``xz -9`` has."""

    def stream(dictionary: int) -> bytes:
        return lzma.compress(b"data", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": dictionary}])

    small = bytearray(stream(1 * MiB))
    at = small.index(b"\x21\x01") + 2
    end = 12 + (small[12] + 1) * 4

    def claiming(byte: int) -> bytes:
        small[at] = byte
        small[end - 4 : end] = struct.pack("<I", crc32(small[12 : end - 4]))
        return bytes(small)

    assert read_all(XZ, claiming(30)) == b"data"  # 128 MiB
    for byte in (31, 40):
        with pytest.raises(DecodeError, match=r"[Mm]emory"):
            read_all(XZ, claiming(byte))


def test_a_frame_and_a_stream_that_explode() -> None:
    bomb = lzma.compress(zeros(200 * MiB), preset=0)
    assert peak_growth(lambda: refuses(XZ, bomb)) < 16 * MiB

    def read_some() -> None:
        reader = XZ.stream_reader(lambda size: bomb)
        view = memoryview(bytearray(MiB))
        for _ in range(20):
            assert reader.readinto(view) == MiB

    assert peak_growth(read_some) < 16 * MiB


@pytest.mark.parametrize("kind", ["hard", "random"])
def test_what_does_not_compress_stays_within_the_bound(kind: str) -> None:
    """Bytes that the model has just learned not to expect cost most."""
    random = Random(6)
    data = (
        noise(MiB) if kind == "random" else b"".join(bytes([value] * 3) + random.randbytes(50) for value in range(256)) * 70
    )
    for level in (0, 3, 6):
        frame = encode(XZ, data, level)
        assert len(frame) <= XZ.bound(len(data))


# -- carriers ---------------------------------------------------------------------------------------------------------


def test_a_carrier_is_what_it_must_be_or_refused() -> None:
    data = noise(10_000)
    carrier = XZ.carry(data, None)  # type: ignore[arg-type]
    assert XZ.uncarry(carrier) == data
    assert read_all(XZ, carrier) == b""
    random = Random(8)
    for _ in range(500):
        damaged = bytearray(carrier)
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        with pytest.raises(DecodeError):
            XZ.uncarry(bytes(damaged))
    for other in (b"", b"x", carrier[:-4], carrier[4:], carrier + bytes(4), carrier * 2, encode(XZ, data), bytes(100)):
        with pytest.raises(DecodeError):
            XZ.uncarry(other)


def test_a_carrier_of_a_large_index() -> None:
    data = noise(3 * MiB)
    carrier = XZ.carry(data, None)  # type: ignore[arg-type]
    assert XZ.uncarry(carrier) == data
    assert tool("-dc", data=carrier) == b""
