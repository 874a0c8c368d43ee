"""lz4 frames as the stock tool and the python binding write them, and what is none."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import lz4.block
import lz4.frame
import pytest
import xxhash

from streamsave.codecs.base import DecodeError, NotFramed, TruncatedError
from streamsave.codecs.registry import find_codec
from streamsave.errors import CorruptImageError, ImageError, TruncatedImageError
from streamsave.units import KiB, MiB

from ..kit.missing import require_tools
from ..kit.tools import pipe_through
from .checks import decode, encode, frame_sizes, payload_of, read_all
from .engine import restore
from .hostile import peak_growth, refuses
from .samples import mixed, noise, text, zeros

LZ4 = find_codec("lz4")
DATA = mixed(300 * KiB)


def tool(*options: str, data: bytes) -> bytes:
    return pipe_through(["lz4", "-c", *options], data)


def skippable(content: bytes, kind: int = 3) -> bytes:
    return struct.pack("<II", 0x184D2A50 + kind, len(content)) + content


def frame(chunk: bytes, size: int, block: bytes, checksum: int | None = None) -> bytes:
    """A frame with our header, whatever is said to be in it."""
    descriptor = b"\x6c\x70" + struct.pack("<Q", size)
    head = b"\x04\x22\x4d\x18" + descriptor + bytes([xxhash.xxh32_intdigest(descriptor) >> 8 & 0xFF])
    return head + block + struct.pack("<II", 0, xxhash.xxh32_intdigest(chunk) if checksum is None else checksum)


def block(data: bytes, *, stored: bool = True) -> bytes:
    return struct.pack("<I", len(data) | stored << 31) + data


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("size", ["4", "5", "6", "7"])
def test_every_block_size_of_the_tool(size: str, linked: bool) -> None:
    data = mixed(5 * MiB) + noise(100_000)
    payload = tool(f"-B{size}", "-BD" if linked else "-BI", data=data)
    assert read_all(LZ4, payload, room=MiB) == data
    with pytest.raises(NotFramed):
        list(frame_sizes(LZ4, payload, 64))


@pytest.mark.parametrize(
    "options", [["--no-frame-crc"], ["-BX"], ["--fast=5"], ["-BX", "-BD", "-9"], ["--favor-decSpeed", "-10"]]
)
@pytest.mark.parametrize("step", [1000, MiB])
def test_every_option_of_the_tool(options: list[str], step: int) -> None:
    assert read_all(LZ4, tool(*options, data=DATA), step=step) == DATA


def test_a_frame_with_its_content_size(tmp_path: Path) -> None:
    require_tools("lz4")
    (tmp_path / "data").write_bytes(DATA)
    payload = subprocess.run(["lz4", "-c", "--content-size", tmp_path / "data"], capture_output=True, check=True).stdout
    assert lz4.frame.get_frame_info(payload)["content_size"] == len(DATA)
    assert read_all(LZ4, payload) == DATA


@pytest.mark.parametrize("step", [1, 1000, MiB])
def test_frames_of_any_kind_in_a_row(step: int) -> None:
    frames = [
        skippable(b""),
        lz4.frame.compress(b"one ", block_linked=True),
        skippable(bytes(70_000), 0),
        lz4.frame.compress(b""),
        encode(LZ4, b"two "),
        skippable(b"abc", 15),
        lz4.frame.compress(DATA, block_checksum=True, content_checksum=True, store_size=False),
        skippable(encode(LZ4, b"not this")),
    ]
    assert read_all(LZ4, b"".join(frames), step=step) == b"one two " + DATA
    assert read_all(LZ4, b"".join(frames[:3]), step=step, room=1) == b"one "


def test_skippable_frames_alone_are_an_empty_payload() -> None:
    assert read_all(LZ4, skippable(b"only this")) == b""


@pytest.mark.parametrize("size", [1, 3, 4, 7, 8, 9, 307])
def test_a_cut_skippable_frame(size: int) -> None:
    for before in (b"", encode(LZ4, DATA)):
        with pytest.raises(TruncatedError):
            read_all(LZ4, before + skippable(bytes(300))[:size])


@pytest.mark.parametrize("tail", [b"x", b"trailing garbage", bytes(4), bytes(100), b"\x02\x21\x4c\x18" + bytes(50)])
def test_nothing_else_may_follow(tail: bytes) -> None:
    for step in (1, MiB):
        with pytest.raises(DecodeError):
            read_all(LZ4, payload_of(LZ4, DATA) + tail, step=step)


def test_what_does_not_compress_is_stored() -> None:
    for size in (1, 5, 1000, MiB):
        data = noise(size)
        assert len(encode(LZ4, data)) == size + 27 <= LZ4.bound(size)
        assert decode(LZ4, encode(LZ4, data), size) == data
        assert lz4.frame.decompress(encode(LZ4, data)) == data


def test_every_bit_of_a_frames_header_and_end_counts() -> None:
    for data in (DATA, noise(100), b""):
        whole = bytearray(encode(LZ4, data))
        for bit in (*range(8 * 19), *range(8 * (len(whole) - 8), 8 * len(whole))):
            whole[bit // 8] ^= 1 << bit % 8
            with pytest.raises(DecodeError):
                decode(LZ4, whole, len(data) + 100)
            whole[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("claimed", [0, 1, len(DATA) - 1, len(DATA) + 1, 2**32, 2**64 - 1])
def test_a_frame_holds_what_it_claims(claimed: int) -> None:
    compressed = lz4.frame.compress(DATA, block_size=lz4.frame.BLOCKSIZE_MAX4MB)[15:-4]
    for content in (compressed, block(DATA)):
        for room in (len(DATA), 2 * len(DATA)):
            assert decode(LZ4, frame(DATA, len(DATA), content), room) == DATA
            with pytest.raises(DecodeError):
                decode(LZ4, frame(DATA, claimed, content), room)
            with pytest.raises(DecodeError):
                decode(LZ4, frame(DATA, len(DATA), content, checksum=1), room)


def test_frames_that_are_not_ours_are_not_split() -> None:
    for payload in (
        lz4.frame.compress(DATA),
        frame(DATA, LZ4.chunk_size + 1, block(DATA)),
        frame(DATA, len(DATA), struct.pack("<I", LZ4.bound(LZ4.chunk_size) - 26)),
        frame(b"", 0, block(b"x")),
        frame(b"x", 1, block(b"", stored=False)),
        encode(LZ4, DATA)[:18],
        skippable(b"abc"),
    ):
        with pytest.raises(NotFramed):
            LZ4.splitter().frame_size(memoryview(payload), final=True)
    for size in range(1, 19):
        assert LZ4.splitter().frame_size(memoryview(encode(LZ4, DATA))[:size], final=False) == 0


def test_a_frame_that_claims_the_world() -> None:
    rng = random.Random(4)
    for claimed in (2**40, 2**63):
        hostile = frame(b"", claimed, block(rng.randbytes(100), stored=False))
        assert peak_growth(lambda hostile=hostile: refuses(LZ4, hostile)) < 4 * MiB  # type: ignore[misc]
        with pytest.raises(DecodeError):
            read_all(LZ4, hostile)


def test_reading_a_bomb_takes_no_more_than_was_asked_for() -> None:
    bomb = lz4.frame.compress(zeros(200 * MiB), block_size=lz4.frame.BLOCKSIZE_MAX4MB)

    def read_some() -> None:
        reader = LZ4.stream_reader(lambda size: bomb)
        view = memoryview(bytearray(MiB))
        for _ in range(20):
            assert reader.readinto(view) == MiB

    assert peak_growth(read_some) < 24 * MiB


def test_a_carrier_is_one_skippable_frame() -> None:
    data = noise(100_000)
    carrier = LZ4.carry(data, None)  # type: ignore[arg-type]
    assert carrier == skippable(data, 10)
    for damaged in (b"", carrier[:7], carrier[:-1], carrier + b"x", skippable(data, 9), encode(LZ4, text(100))):
        with pytest.raises(DecodeError):
            LZ4.uncarry(damaged)


# -- on all cores -----------------------------------------------------------------------------------------------------

LARGE = mixed(5 * MiB) + noise(300_000) + zeros(100_000)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", ["4", "5", "6", "7"])
@pytest.mark.parametrize("options", [[], ["-BX"], ["--no-frame-crc"], ["-9"]])
def test_independent_blocks_are_decoded_by_all_threads(size: str, options: list[str], threads: int) -> None:
    payload = tool(f"-B{size}", *options, data=LARGE)
    data, stats = restore(LZ4, payload, threads=threads)
    assert data == LARGE
    assert stats.parallel
    assert stats.frame_count == -(-len(LARGE) // (4 * MiB))


def test_blocks_that_refer_back_are_decoded_by_one() -> None:
    data, stats = restore(LZ4, tool("-BD", "-B4", data=LARGE))
    assert data == LARGE
    assert not stats.parallel


def test_frames_of_any_kind_in_a_row_through_the_engine() -> None:
    independent = {"block_linked": False, "content_checksum": True}
    frames = [
        skippable(bytes(3 * MiB), 0),
        lz4.frame.compress(LARGE, block_checksum=True, **independent),
        lz4.frame.compress(b"", **independent),
        lz4.frame.compress(b"", block_linked=False, store_size=False),
        skippable(b"abc", 15),
        lz4.frame.compress(b"short", block_size=lz4.frame.BLOCKSIZE_MAX64KB, **independent),
        encode(LZ4, b" and ours"),
        lz4.frame.compress(b", linked", block_linked=True),
        lz4.frame.compress(b", or not", **independent),
    ]
    expected = LARGE + b"short and ours, linked, or not"
    assert restore(LZ4, b"".join(frames))[0] == expected
    assert restore(LZ4, b"".join(frames[:7]))[1].parallel
    assert restore(LZ4, b"".join(frames), split=False)[0] == expected


@pytest.mark.parametrize("options", [["-B4"], ["-B7"], ["-B4", "-BX"], ["-B5", "--content-size"]])
def test_no_damage_to_independent_blocks_gets_through(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    require_tools("lz4")
    payload = subprocess.run(["lz4", "-c", *options, tmp_path / "data"], capture_output=True, check=True).stdout
    assert restore(LZ4, payload)[0] == DATA
    rng = random.Random("".join(options))
    for _ in range(150):
        damaged = bytearray(payload)
        damaged[rng.choice([rng.randrange(20), rng.randrange(len(payload)), -1 - rng.randrange(12)])] ^= 1 << rng.randrange(
            8
        )
        with pytest.raises(ImageError):
            restore(LZ4, bytes(damaged))
    for _ in range(50):
        with pytest.raises(TruncatedImageError):
            restore(LZ4, payload[: rng.randrange(1, len(payload))])


def test_what_came_before_the_damage_is_good() -> None:
    payload = tool("-B4", data=LARGE)
    with pytest.raises(TruncatedImageError) as caught:
        restore(LZ4, payload[: len(payload) * 9 // 10])
    assert caught.value.good_size > LZ4.chunk_size
    assert caught.value.good_size % (64 * KiB) == 0


@pytest.mark.parametrize("claimed", [0, len(DATA) - 1, len(DATA) + 1, 1 << 63])
def test_a_frame_of_independent_blocks_holds_what_it_claims(claimed: int) -> None:
    whole = lz4.frame.compress(DATA, block_linked=False)
    descriptor = whole[4:6] + struct.pack("<Q", claimed)
    head = whole[:4] + descriptor + bytes([xxhash.xxh32_intdigest(descriptor) >> 8 & 0xFF])
    with pytest.raises(CorruptImageError, match="its size or its checksum is wrong"):
        restore(LZ4, head + whole[15:])


def test_blocks_larger_than_they_may_be() -> None:
    head = lz4.frame.compress(b"", block_linked=False, store_size=False, block_size=lz4.frame.BLOCKSIZE_MAX64KB)[:7]
    bomb = lz4.block.compress(zeros(MiB), store_size=False)
    for content in (block(noise(64 * KiB + 1)), block(bomb, stored=False), struct.pack("<I", (1 << 31) - 1) + bytes(9)):
        for times in (1, 30):
            with pytest.raises(ImageError):
                restore(LZ4, head + block(noise(100)) + content * times + bytes(4))
