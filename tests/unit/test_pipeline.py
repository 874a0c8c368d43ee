"""The engine with memory on both sides: the right bytes in the right order, within the pool, whatever the thread count."""

from __future__ import annotations

import os
import random
import threading
import time
import zlib
from pathlib import Path
from zlib import adler32

import pytest

from streamsave.codecs.registry import find_codec
from streamsave.endpoints.faults import StalledSink, ThrottledSink, ThrottledSource
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.errors import CorruptImageError, TruncatedImageError
from streamsave.format.frames import FrameTable
from streamsave.pipeline.adaptive import KEPT_ENCODERS, AutoLevel
from streamsave.pipeline.bufpool import slot_count
from streamsave.pipeline.compress import Compression
from streamsave.pipeline.decompress import Decompression
from streamsave.pipeline.stats import Stats
from streamsave.types import DurableSink, Sink, Source
from streamsave.units import MiB
from tests.contract.checks import payload_of as payload_with
from tests.contract.samples import mixed
from tests.fakes.codec import SIZE, UNFRAMED, FakeCodec, FakeEncoder
from tests.kit.pipelines import run_to_end

CHUNK = FakeCodec.chunk_size
DATA = (os.urandom(5000) + bytes(20_000) + b"text " * 9000) * 9
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, len(DATA)]


class SlowEncoder(FakeEncoder):
    """Finishes out of order on purpose."""

    def encode(self, chunk: memoryview, room: memoryview):  # type: ignore[no-untyped-def]
        if random.random() < 0.3:
            time.sleep(0.003)
        return super().encode(chunk, room)


class SlowCodec(FakeCodec):
    def encoder(self, level: int) -> SlowEncoder:
        return SlowEncoder()


def compress(data: bytes, threads: int, sink: DurableSink, codec: FakeCodec | None = None) -> tuple[Compression, bytes]:
    seen = bytearray()
    pipeline = Compression(MemorySource(data), sink, codec or FakeCodec(), level=1, threads=threads, observe=seen.extend)
    run_to_end(pipeline)
    return pipeline, bytes(seen)


def decompress(payload: bytes, threads: int, sink: Sink) -> tuple[Decompression, bytes]:
    seen = bytearray()
    pipeline = Decompression(
        MemorySource(payload),
        sink,
        FakeCodec(),
        threads=threads,
        observe=seen.extend,
        path=Path("image"),
        payload_offset=4096,
    )
    run_to_end(pipeline)
    return pipeline, bytes(seen)


def payload_of(data: bytes) -> bytes:
    sink = MemorySink()
    compress(data, 1, sink)
    return bytes(sink.data)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", SIZES)
def test_round_trip(size: int, threads: int) -> None:
    packed, plain = MemorySink(), MemorySink()
    there, seen = compress(DATA[:size], threads, packed, SlowCodec())
    assert seen == DATA[:size]
    back, seen_back = decompress(bytes(packed.data), threads, plain)
    assert plain.data == DATA[:size] == seen_back
    assert there.stats.bytes_in == back.stats.bytes_out == size
    assert there.stats.bytes_out == back.stats.bytes_in == len(packed.data)
    assert there.stats.frame_count == back.stats.frame_count == -(-size // CHUNK)
    assert back.stats.parallel


def test_the_payload_is_made_durable_once_all_of_it_is_written() -> None:
    class Disk(MemorySink):
        flushed_at = -1

        def flush(self) -> None:
            assert self.flushed_at == -1, "twice"
            assert threading.current_thread().name == "streamsave-writer"
            self.flushed_at = len(self.data)

    disk = Disk()
    compress(DATA, 2, disk)
    assert disk.flushed_at == len(disk.data) > 0


def test_what_cannot_be_split_is_decoded_all_the_same() -> None:
    framed = payload_of(DATA[: 5 * CHUNK])
    rest = SIZE.pack(UNFRAMED) + payload_of_one(DATA[5 * CHUNK :])
    for payload, expected in ((rest, DATA[5 * CHUNK :]), (framed + rest, DATA)):
        sink = MemorySink()
        pipeline, seen = decompress(payload, 2, sink)
        assert sink.data == expected == seen
        assert not pipeline.stats.parallel


def payload_of_one(data: bytes) -> bytes:
    return zlib.compress(data)


def test_memory_is_bounded_by_the_pool_while_the_disk_is_slow() -> None:
    sink = StalledSink(DiscardSink())
    source = MemorySource(bytes(100 * CHUNK))
    pipeline = Compression(source, sink, FakeCodec(), level=1, threads=2, observe=lambda view: None)
    pipeline.start()
    assert sink.entered.wait(5)
    time.sleep(0.2)
    assert pipeline.stats.bytes_in <= slot_count(2) * CHUNK
    sink.release()
    pipeline.wait()
    pipeline.join()
    assert pipeline.stats.bytes_in == 100 * CHUNK


LZOP = find_codec("lzop")
"""A codec with something before and behind its frames."""


def read_lzop(payload: bytes) -> tuple[bytes, Decompression]:
    sink = MemorySink()
    pipeline = Decompression(
        MemorySource(payload), sink, LZOP, threads=2, observe=lambda view: None, path=Path("image"), payload_offset=4096
    )
    run_to_end(pipeline)
    return bytes(sink.data), pipeline


@pytest.mark.parametrize("size", [0, 1, MiB, 2 * MiB + 5000])
def test_what_stands_around_the_frames_is_skipped(size: int) -> None:
    data, packed = mixed(size), MemorySink()
    compression = Compression(MemorySource(data), packed, LZOP, level=3, threads=2, observe=lambda view: None)
    compression.start()
    compression.wait()
    compression.join()
    payload = bytes(packed.data)
    other = LZOP.prologue[:-4].replace(b"\x81\x80", b"\x81\xa4")  # another mode, as a foreign header has
    other += adler32(other[9:]).to_bytes(4, "big") + payload[len(LZOP.prologue) :]
    for each in (payload, other):
        decoded, pipeline = read_lzop(each)
        assert decoded == data
        assert pipeline.stats.parallel
        assert pipeline.stats.frame_count == -(-size // MiB)
    assert other != payload
    for follows in (b"", payload):  # the second file is as good as the first
        carried = payload + LZOP.carry(b"data", FrameTable(MiB)) + follows
        decoded, pipeline = read_lzop(carried)
        assert decoded == (data * 2 if follows else data)
        assert not pipeline.stats.parallel


@pytest.mark.parametrize("cut", [1, 4, 5, 100, 10**9])
def test_a_payload_without_its_end_is_truncated(cut: int) -> None:
    payload = payload_with(LZOP, mixed(MiB))
    with pytest.raises(TruncatedImageError, match=r"image: the (file ends inside frame|lzop payload ends too early)"):
        read_lzop(payload[: max(len(payload) - cut, 0)])


def test_damage_names_frame_and_offset() -> None:
    payload = bytearray(payload_of(DATA))
    first = 4 + SIZE.unpack(payload[:4])[0]
    payload[first + 20] ^= 0x40
    with pytest.raises(CorruptImageError, match=rf"image: the fake payload is damaged in frame 1 at offset {4096 + first}"):
        decompress(bytes(payload), 2, DiscardSink())


@pytest.mark.parametrize("cut", [1, 3, 4, 100])
def test_a_payload_that_ends_inside_a_frame_is_truncated(cut: int) -> None:
    payload = payload_of(DATA)
    with pytest.raises(TruncatedImageError, match=r"ends too early in frame \d+ at offset \d+: the file ends inside it"):
        decompress(payload[:-cut], 2, DiscardSink())


def test_ticks_come_while_the_pipeline_works() -> None:
    sink = StalledSink(DiscardSink())
    pipeline = Compression(MemorySource(DATA), sink, FakeCodec(), level=1, threads=1, observe=lambda view: None)
    ticks: list[str] = []

    def tick() -> None:
        ticks.append(threading.current_thread().name)
        if len(ticks) == 3:
            sink.release()

    pipeline.start()
    pipeline.wait(tick, tick_s=0.01)
    pipeline.join()
    assert len(ticks) >= 3
    assert set(ticks) == {threading.current_thread().name}


class LevelledEncoder(FakeEncoder):
    def __init__(self, level: int) -> None:
        self._level = level

    def encode(self, chunk: memoryview, room: memoryview):  # type: ignore[no-untyped-def]
        time.sleep(0.001 * self._level)
        return super().encode(chunk, room)


class LevelledCodec(FakeCodec):
    """A chunk takes as many milliseconds as its level says; begins in the middle."""

    default_level = 5

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        """By which thread an encoder of which level."""

    def encoder(self, level: int) -> LevelledEncoder:
        self.made.append((threading.current_thread().name, level))
        return LevelledEncoder(level)


def adapt(codec: LevelledCodec, source: Source, sink: DurableSink) -> Compression:
    pipeline = Compression(source, sink, codec, level=AutoLevel(codec, 2), threads=2, observe=lambda view: None)
    run_to_end(pipeline)
    return pipeline


@pytest.mark.parametrize("slow", ["sink", "source", "neither"])
def test_the_level_follows_whoever_is_slow(slow: str) -> None:
    count = 900 if slow == "neither" else 500
    data, packed, codec = bytes(CHUNK) * count, MemorySink(), LevelledCodec()
    source: Source = MemorySource(data)
    sink: DurableSink = packed
    if slow == "sink":
        sink = ThrottledSink(packed, 150 * len(payload_of(bytes(CHUNK))))
    elif slow == "source":
        source = ThrottledSource(source, 150 * CHUNK)
    pipeline = adapt(codec, source, sink)
    levels = pipeline.levels
    assert levels[0].level == 1 if slow == "neither" else levels[-1].level > 5, levels
    assert [use.level for use in levels] == sorted({use.level for use in levels})
    assert pipeline.stats.level in codec.levels
    assert sum(use.frame_count for use in levels) == pipeline.stats.frame_count == count
    assert sum(use.stream_size for use in levels) == len(data)
    assert sum(use.payload_size for use in levels) == len(packed.data)
    plain = MemorySink()
    decompress(bytes(packed.data), 2, plain)
    assert plain.data == data


def test_a_thread_keeps_the_encoders_of_the_levels_around() -> None:
    codec = LevelledCodec()
    auto, order = AutoLevel(codec, 1), [5, 6, 5, 6, 4, 5, 6, 4, 1, 4, 6, 1, 5]
    encoder = auto.encoder(lambda: 0, Stats())
    for level in order:
        auto._control.level = level
        encoder.encode(memoryview(b"chunk"), memoryview(bytearray(codec.bound(5))))
    assert KEPT_ENCODERS == 3
    assert [level for _, level in codec.made] == [5, 6, 4, 1, 5]
    assert {use.level: use.frame_count for use in auto.uses()} == {1: 2, 4: 3, 5: 4, 6: 4}


def test_a_level_of_ones_own_takes_one_encoder_per_thread() -> None:
    codec = LevelledCodec()
    pipeline, _ = compress(DATA, 2, MemorySink(), codec)
    assert sorted(codec.made) == [("streamsave-worker-0", 1), ("streamsave-worker-1", 1)]
    (use,) = pipeline.levels
    assert (use.level, use.frame_count, use.stream_size) == (1, -(-len(DATA) // CHUNK), len(DATA))
    assert use.payload_size == pipeline.stats.bytes_out
    assert pipeline.stats.level is None
