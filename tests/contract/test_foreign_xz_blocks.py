"""xz payloads of other programs: blocks are decoded by many threads, and no damage to blocks or index gets through."""

from __future__ import annotations

import lzma
from random import Random
from zlib import crc32

import pytest

from streamsave.codecs.registry import find_codec
from streamsave.errors import CorruptImageError, ImageError, TruncatedImageError
from streamsave.units import KiB, MiB

from .checks import payload_of
from .engine import restore
from .samples import mixed, noise, text, zeros
from .test_foreign_xz import tool

XZ = find_codec("xz")
RANDOM = Random(11)
DATA = mixed(200 * KiB) + noise(100 * KiB) + zeros(200 * KiB)


@pytest.mark.parametrize("options", ["-T2", "-0 -T2", "-T1"], ids=str)
@pytest.mark.parametrize("more", ["", "-C none", "-C crc32", "-C sha256", "--x86 --lzma2=preset=1", "--delta --lzma2"])
def test_the_blocks_of_a_stream_are_frames(options: str, more: str) -> None:
    payload = tool("-c", "--block-size=50000", *options.split(), *more.split(), data=DATA)
    restored, stats = restore(XZ, payload)
    assert restored == DATA
    assert stats.parallel
    assert stats.frame_count == -(-len(DATA) // 50_000)


@pytest.mark.parametrize("level", range(7))
def test_blocks_of_the_tools_threads(level: int) -> None:
    data = mixed(30 * MiB) + noise(MiB)
    restored, stats = restore(XZ, tool("-c", f"-{level}", "-T2", data=data))
    assert restored == data
    assert stats.parallel
    assert stats.frame_count > 1


def test_streams_and_padding() -> None:
    def blocks(data: bytes) -> bytes:
        return tool("-c", "-T2", "--block-size=20000", data=data)

    parts = [DATA, b"x", text(70_000), noise(30_000)]
    for padding in (0, 4, 400_000):
        payload = bytes(padding).join([*map(blocks, parts), b""])
        restored, stats = restore(XZ, payload)
        assert restored == b"".join(parts)
        assert stats.parallel
    assert restore(XZ, payload_of(XZ, DATA) + blocks(DATA))[0] == DATA + DATA
    assert restore(XZ, blocks(DATA) + XZ.carry(noise(5000), None))[0] == DATA  # type: ignore[arg-type]
    for wrong in (b"\0", bytes(5), b"garbage", bytes(4) + b"x"):
        with pytest.raises(ImageError):
            restore(XZ, blocks(DATA) + wrong)


def test_a_stream_whose_first_block_is_too_large_is_read_from_its_start() -> None:
    """Whether its header says so or not, and behind one that was not."""
    large = text(25 * MiB)
    for options in (["-T1"], ["-T2", "--block-size=26MiB"], ["-T1", "--block-size=26MiB"]):
        payload = tool("-c", "-T2", "--block-size=100000", data=DATA) + tool("-c", "-0", *options, data=large)
        restored, stats = restore(XZ, payload)
        assert restored == DATA + large
        assert stats.frame_count == 6
        assert not stats.parallel


def test_a_later_block_that_is_too_large_is_told() -> None:
    payload = tool("-c", "-0", "--block-list=1MiB,26MiB", data=text(27 * MiB))
    with pytest.raises(CorruptImageError, match="follows smaller ones"):
        restore(XZ, payload)


# -- damage -----------------------------------------------------------------------------------------------------------


def small() -> tuple[bytes, bytes]:
    data = text(700) + noise(60) + zeros(300)
    return tool("-c", "-T2", "--block-size=500", data=data) + tool(
        "-c", "--block-size=100", data=b"more" * 60
    ), data + b"more" * 60


def test_every_cut_shows() -> None:
    payload, data = small()
    first = payload.index(b"\xfd7zXZ", 1)
    for size in range(1, len(payload)):
        if size == first:
            assert restore(XZ, payload[:size])[0] == data[:-240]
        else:
            with pytest.raises(TruncatedImageError):
                restore(XZ, payload[:size])


def test_every_flipped_bit_shows_or_means_nothing() -> None:
    made, data = small()
    payload, shown = bytearray(made), 0
    for bit in range(8 * len(payload)):
        payload[bit // 8] ^= 1 << bit % 8
        try:
            assert restore(XZ, bytes(payload))[0] == data, bit
        except ImageError:
            shown += 1
        payload[bit // 8] ^= 1 << bit % 8
    assert shown > 7 * len(payload)


def test_an_index_of_other_blocks_shows() -> None:
    """Two whole streams of as many blocks, each with the index of the other: only comparing tells."""
    one, other = (tool("-c", "-T2", "--block-size=1000", data=data) for data in (text(3000), noise(2000) + text(1000)))
    for first, second in ((one, other), (other, one)):
        size = (int.from_bytes(second[-8:-4], "little") + 1) * 4 + 12
        own = (int.from_bytes(first[-8:-4], "little") + 1) * 4 + 12
        spliced = first[:-own] + second[-size:]
        with pytest.raises(lzma.LZMAError):
            lzma.decompress(spliced)
        with pytest.raises(CorruptImageError, match="index"):
            restore(XZ, spliced)


def test_an_index_of_another_number_of_blocks_shows() -> None:
    payload = bytearray(tool("-c", "-T2", "--block-size=1000", data=text(3000)))
    index = len(payload) - 12 - (int.from_bytes(payload[-8:-4], "little") + 1) * 4
    assert payload[index : index + 2] == b"\0\3"
    payload[index + 1] = 2
    with pytest.raises(CorruptImageError, match="the index of an xz stream has another number of blocks"):
        restore(XZ, bytes(payload))


@pytest.mark.parametrize(
    "block",
    [b"\x02\x04\x21\x01\x16", b"\x02\0\x03\x01\0", b"\x02\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x02\0\x21\x01\x28"],
)
def test_block_headers_that_nobody_writes(block: bytes) -> None:
    """With a checksum that holds: reserved flags, another filter, a number without end, a dictionary of 4 GiB."""
    payload = tool("-c", "-C", "crc32", "--block-size=100000", data=DATA)
    head = block.ljust(8, b"\0")[:8]
    with pytest.raises(ImageError):
        restore(XZ, payload[:12] + head + crc32(head).to_bytes(4, "little") + payload[24:])
