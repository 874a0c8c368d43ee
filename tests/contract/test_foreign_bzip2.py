"""bzip2 payloads of other programs: whatever they look like, many threads decode them, and no damage gets through."""

from __future__ import annotations

import bz2
import random

import pytest

from streamsave.codecs.base import DecodeError
from streamsave.codecs.bzip2_blocks import BlockReframer
from streamsave.codecs.registry import find_codec
from streamsave.errors import CorruptImageError, ImageError, TruncatedImageError
from streamsave.units import KiB, MiB

from ..kit.tools import pipe_through
from .bzip2_craft import BLOCK, DIGITS, END, Block, block, stream
from .checks import payload_of, pieces, read_all
from .engine import restore
from .hostile import peak_growth
from .samples import mixed, noise, text, zeros

BZIP2 = find_codec("bzip2")
RANDOM = random.Random(7)


def frame_count(payload: bytes) -> int:
    """How many frames workers get."""
    reframer = BlockReframer(pieces(payload, 100_000))
    room = memoryview(bytearray(reframer.frame_bound))
    count = 0
    while reframer.next_frame(room):
        count += 1
    return count


def digits(count: int) -> str:
    return "".join(RANDOM.choices(DIGITS[2:], k=count))


# -- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 9])
def test_the_blocks_of_one_stream_are_frames(level: int) -> None:
    data = noise(2 * MiB) + text(MiB)
    payload = bz2.compress(data, level)
    assert restore(BZIP2, payload)[0] == data
    assert restore(BZIP2, payload)[1].parallel
    assert frame_count(payload) == -(-len(data) // (level * 100_000 - 19))


@pytest.mark.parametrize("command", ["bzip2 -c", "bzip2 -1 -c", "lbzip2 -c", "lbzip2 -1 -c", "pbzip2 -c", "pbzip2 -b30 -c"])
def test_what_tools_write_is_decoded_by_all_threads(command: str) -> None:
    data = mixed(3 * MiB) + noise(2 * MiB) + text(2 * MiB)
    payload = pipe_through(command, data)
    restored, stats = restore(BZIP2, payload)
    assert restored == data
    assert stats.parallel
    assert stats.frame_count > 6


def test_streams_one_after_the_other() -> None:
    parts = [noise(300_000), b"", text(2 * MiB), b"x", mixed(1_000_000), b""]
    payload = b"".join(bz2.compress(part, 1 + number) for number, part in enumerate(parts))
    for threads in (1, 2, 5):
        assert restore(BZIP2, payload, threads=threads)[0] == b"".join(parts)
    for step in (1000, 65_537):
        assert read_all(BZIP2, payload, step=step, room=MiB) == b"".join(parts)


@pytest.mark.parametrize("tail", [b"x", b"trailing garbage", bytes(3000), noise(3 * MiB), b"\x17rE8P\x90" * 1000])
def test_what_follows_the_last_stream_is_ignored(tail: bytes) -> None:
    data = noise(250_000)
    assert restore(BZIP2, bz2.compress(data, 1) + tail)[0] == data
    assert restore(BZIP2, payload_of(BZIP2, data, text(100)) + tail)[0] == data + text(100)


def test_later_streams_may_be_larger_than_chunks() -> None:
    """The first one looks like a frame of ours, and so do the others until they are decoded."""
    parts = [text(1000), zeros(3 * MiB), text(2 * MiB), zeros(2 * MiB), zeros(30 * MiB), noise(1000), mixed(MiB)]
    payload = b"".join(map(bz2.compress, parts))
    restored, stats = restore(BZIP2, payload)
    assert restored == b"".join(parts)
    assert stats.parallel


def test_a_block_larger_than_its_room_takes_no_more_memory() -> None:
    """45 MB of zeros are a block like any other."""
    data = zeros(200 * MiB)
    payload = bz2.compress(data) + bz2.compress(text(MiB))

    def read_some() -> None:
        reader = BZIP2.stream_reader(pieces(payload, 1000))
        view = memoryview(bytearray(MiB))
        for _ in range(200):
            assert reader.readinto(view) == MiB
            assert not any(view[::4096])
        assert reader.readinto(view) == MiB
        assert view == text(MiB)
        assert reader.readinto(view) == 0

    assert peak_growth(read_some) < 24 * MiB
    assert restore(BZIP2, payload)[0] == data + text(MiB)


def test_streams_of_nothing_without_end_take_no_memory() -> None:
    count = 200_000
    payload = bz2.compress(b"") * count + bz2.compress(b"x")
    assert peak_growth(lambda: read_all(BZIP2, payload)) < 16 * MiB
    with pytest.raises(DecodeError, match="empty"):
        read_all(BZIP2, payload[:-1].replace(bytes(4), b"\0\0\0\1") + b"")


@pytest.mark.parametrize("bound", [100, 5000, 100_000])
def test_blocks_larger_than_frames_are_put_together(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockReframer, "frame_bound", bound)
    data = noise(150_000) + text(150_000) + noise(10_000)
    payload = bz2.compress(data, 1) + bz2.compress(b"more")
    assert frame_count(payload) > 2 * len(payload) // bound // 3
    assert restore(BZIP2, payload)[0] == data + b"more"
    with pytest.raises(TruncatedImageError):
        restore(BZIP2, payload[:100_000])


# -- magics where there should be none --------------------------------------------------------------------------------


def with_magics() -> dict[str, tuple[list[Block], int]]:
    """Blocks whose data hold magics, and how many frames that makes."""
    true, end = f"{BLOCK:012x}", f"{END:012x}"
    plain = block(digits(1000))
    return {
        "none": ([plain, block(digits(3))], 2),
        "a block's": ([plain, block(digits(500) + true + digits(500)), plain], 4),
        "at once": ([plain, block(true + digits(300)), plain], 4),
        "last": ([block(digits(77) + true)], 2),
        "many": ([block((digits(60) + true) * 20), plain, block((digits(5) + true + true) * 3)], 29),
        "an end's": ([plain, block(digits(500) + end + digits(500)), plain], 4),
        "an end's last": ([plain, block(digits(30) + end)], 3),
        "ends": ([block(digits(30) + end * 9 + digits(500)), plain], 11),
        "both": ([block(digits(31) + true + digits(40) + end + digits(3) + true + end + digits(99)), plain], 6),
    }


@pytest.mark.parametrize("kind", with_magics())
def test_magics_in_data_are_data(kind: str) -> None:
    blocks, frames = with_magics()[kind]
    payload, data = stream(*blocks), b"".join(each.data for each in blocks)
    assert bz2.decompress(payload) == data, "the stock library agrees"
    assert frame_count(payload) == frames
    for tail, more in ((b"", b""), (b"garbage", b""), (bz2.compress(b"more"), b"more"), (payload, data)):
        restored, stats = restore(BZIP2, payload + tail, split=False)
        assert restored == data + more
        assert stats.parallel
        for step in (1, 1000):
            assert read_all(BZIP2, payload + tail, step=step) == data + more


@pytest.mark.parametrize("kind", with_magics())
def test_damage_to_blocks_with_magics_shows(kind: str) -> None:
    blocks, _ = with_magics()[kind]
    payload, data = bytearray(stream(*blocks)), b"".join(each.data for each in blocks)
    for bit in RANDOM.sample(range(8 * len(payload)), 300):
        payload[bit // 8] ^= 1 << bit % 8
        try:
            assert read_all(BZIP2, bytes(payload)) == data, bit
        except DecodeError:
            pass
        payload[bit // 8] ^= 1 << bit % 8


# -- damage -----------------------------------------------------------------------------------------------------------


def small() -> tuple[bytes, bytes]:
    """One stream of several blocks, and a small one behind it."""
    blocks = [block(digits(count)) for count in (40, 300, 3)]
    return stream(*blocks) + bz2.compress(b"end"), b"".join(each.data for each in blocks) + b"end"


def test_every_cut_of_a_foreign_payload_shows() -> None:
    payload, data = small()
    first = len(payload) - len(bz2.compress(b"end"))
    for size in range(1, len(payload)):
        if size == first:
            assert restore(BZIP2, payload[:size], split=False)[0] == data[:-3]
            continue
        with pytest.raises(TruncatedImageError):
            restore(BZIP2, payload[:size], split=False)


def test_every_flipped_bit_of_a_foreign_payload_shows_or_means_nothing() -> None:
    made, data = small()
    payload = bytearray(made)
    shown = 0
    for bit in range(8 * len(payload)):
        payload[bit // 8] ^= 1 << bit % 8
        try:
            assert restore(BZIP2, bytes(payload), split=False)[0] == data, bit
        except ImageError:
            shown += 1
        payload[bit // 8] ^= 1 << bit % 8
    assert shown > 6 * len(payload)


def test_blocks_in_another_order_show() -> None:
    """Each is right, only the checksum of the stream knows."""
    blocks = [block(digits(100)) for _ in range(3)]
    payload = stream(*blocks)
    swapped = stream(blocks[1], blocks[0], blocks[2])
    with pytest.raises(CorruptImageError, match="checksum of a bzip2 stream"):
        restore(BZIP2, swapped[:-5] + payload[-5:], split=False)


def test_damage_says_where() -> None:
    payload = bytearray(bz2.compress(noise(3_000_000), 1))
    payload[len(payload) // 2] ^= 1
    with pytest.raises(CorruptImageError, match=r"near offset (\d+): .*damaged") as caught:
        restore(BZIP2, bytes(payload))
    assert abs(caught.value.offset - 4096 - len(payload) // 2) < 300 * KiB
    assert 1_300_000 < caught.value.good_size < 1_500_000, "whole blocks before the damage"
