"""zstd payloads of other programs: several frames are decoded by many threads, large windows when they are allowed."""

from __future__ import annotations

import struct
from random import Random

import pytest
import zstandard

from streamsave.codecs.base import DecodeError, OversizedError
from streamsave.codecs.registry import find_codec
from streamsave.codecs.zstd import Zstd
from streamsave.codecs.zstd_structure import SIZE_PREFIX
from streamsave.errors import CorruptImageError, ImageError, TruncatedImageError
from streamsave.units import GiB, KiB, MiB

from ..kit.tools import pipe_through
from .checks import payload_of, read_all
from .engine import restore
from .samples import mixed, noise, text, zeros

ZSTD = find_codec("zstd")


def frame(data: bytes, *, sized: bool = False, checksum: bool = True) -> bytes:
    if sized:
        return zstandard.ZstdCompressor(write_checksum=checksum).compress(data)
    stream = zstandard.ZstdCompressor(write_checksum=checksum).compressobj()
    return stream.compress(data) + stream.flush()


def skippable(size: int) -> bytes:
    return struct.pack("<II", 0x184D2A57, size) + bytes(size)


def test_frames_of_any_kind_go_to_the_workers() -> None:
    chunks = [text(3 * MiB), b"", noise(200 * KiB), zeros(9 * MiB), b"x", mixed(MiB)]
    for sized in (False, True):
        for checksum in (False, True):
            frames = [frame(chunk, sized=sized, checksum=checksum) for chunk in chunks]
            for between in (b"", skippable(0), skippable(3 * MiB)):
                payload = between.join([b"", *frames, b""])
                restored, stats = restore(ZSTD, payload)
                assert restored == b"".join(chunks)
                assert stats.parallel
                assert stats.frame_count == len(chunks)
                assert read_all(ZSTD, payload) == restored


def test_an_unsized_frame_larger_than_its_room() -> None:
    """Only its end tells: what is decoded before is not passed on for all of it."""
    data = text(MiB)
    packed = frame(data)
    framed = memoryview(SIZE_PREFIX + struct.pack("<I", len(packed)) + packed)
    decoder = ZSTD.decoder()
    assert decoder.decode(framed, memoryview(bytearray(len(data)))) == data
    with pytest.raises(OversizedError, match="a chunk of more than the 1048575 bytes that are expected"):
        decoder.decode(framed, memoryview(bytearray(len(data) - 1)))


def test_what_pzstd_writes_is_decoded_by_all_threads() -> None:
    data = noise(10 * MiB) + mixed(20 * MiB)
    restored, stats = restore(ZSTD, pipe_through("pzstd -c -p 2", data))
    assert restored == data
    assert stats.parallel
    assert stats.frame_count == 4, "its frames are of 8 MiB"


@pytest.mark.parametrize("command", ["zstd -c", "zstd -1 -c", "zstd -c -T2", "zstd -c --long=27", "zstd -19 -c"])
def test_one_frame_is_decoded_by_the_reader(command: str) -> None:
    data = mixed(18 * MiB) + noise(MiB)
    restored, stats = restore(ZSTD, pipe_through(command, data))
    assert restored == data
    assert not stats.parallel


def test_a_frame_too_large_for_a_slot_is_read_from_its_start() -> None:
    """Whatever its header says, and behind frames that were not."""
    large = [text(17 * MiB), noise(18 * MiB)]
    for sized in (False, True):
        for data in large:
            payload = payload_of(ZSTD, text(5000)) + frame(b"small", sized=True) + frame(data, sized=sized) + frame(b"last")
            restored, stats = restore(ZSTD, payload)
            assert restored == text(5000) + b"small" + data + b"last"
            assert stats.frame_count == 2
            assert not stats.parallel


def with_window(log: int) -> bytes:
    """A frame of one stored block that claims a window."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([log - 10 << 3]) + (4 << 3 | 1).to_bytes(3, "little") + b"data"


@pytest.mark.parametrize("log", [27, 28, 30, 31])
def test_large_windows_are_allowed_by_the_option(log: int) -> None:
    payload = with_window(log)
    for allowed in (128 * MiB, 1 * GiB, 2 * GiB):
        codec = ZSTD.allowing(allowed)
        if 1 << log <= allowed:
            assert restore(codec, payload)[0] == b"data"
        else:
            with pytest.raises(CorruptImageError, match=rf"needs a window of {1 << log} bytes.*--max-window"):
                restore(codec, payload)


def test_every_window_is_what_the_tool_says() -> None:
    """By the binding, which refuses what is larger than its limit."""
    for byte in range(256):
        payload = with_window(10)[:5] + bytes([byte]) + with_window(10)[6:]
        try:
            window = zstandard.get_frame_parameters(payload).window_size
        except zstandard.ZstdError:
            with pytest.raises(DecodeError, match="window of"):
                read_all(Zstd(2 * GiB), payload)
            continue
        if window <= 2 * GiB:
            assert read_all(Zstd(window), payload) == b"data"
        if window > KiB:
            with pytest.raises(DecodeError, match=f"window of {window} bytes"):
                read_all(Zstd(min(window - 1, 2 * GiB)), payload)


def test_what_long_mode_wrote_is_refused_until_it_is_allowed() -> None:
    payload = pipe_through("zstd -c --long=30", mixed(3 * MiB))
    with pytest.raises(CorruptImageError, match="--max-window"):
        restore(ZSTD, payload)
    assert restore(ZSTD.allowing(1 * GiB), payload)[0] == mixed(3 * MiB)


# -- damage -----------------------------------------------------------------------------------------------------------


def test_every_cut_shows() -> None:
    """Between two frames it is a shorter payload."""
    parts = [(skippable(3), b""), (frame(text(300)), text(300)), (skippable(20), b""), (frame(b"2", sized=True), b"2")]
    payload, whole, data = b"", {}, b""
    for part, chunk in parts:
        payload, data = payload + part, data + chunk
        whole[len(payload)] = data
    for size in range(1, len(payload) + 1):
        if size in whole:
            assert restore(ZSTD, payload[:size])[0] == whole[size]
        else:
            with pytest.raises(TruncatedImageError):
                restore(ZSTD, payload[:size])


def test_an_announced_frame_has_to_follow() -> None:
    announcement = struct.pack("<III", 0x184D2A50, 4, 100)
    with pytest.raises(TruncatedImageError):
        restore(ZSTD, frame(b"x") + announcement)


@pytest.mark.parametrize("tail", [b"x", b"garbage", bytes(4), bytes(3000)])
def test_nothing_else_may_follow(tail: bytes) -> None:
    with pytest.raises(ImageError):
        restore(ZSTD, frame(text(300)) + tail)


def test_damage_shows() -> None:
    data = [text(2000), noise(300), zeros(9000)]
    payload = bytearray(b"".join(frame(chunk, sized=number == 1) for number, chunk in enumerate(data)))
    shown = 0
    bits = Random(5).sample(range(8 * len(payload)), 700)
    for bit in bits:
        payload[bit // 8] ^= 1 << bit % 8
        try:
            assert restore(ZSTD, bytes(payload))[0] == b"".join(data), bit
        except ImageError:
            shown += 1
        payload[bit // 8] ^= 1 << bit % 8
    assert shown > len(bits) * 3 // 4
