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
from streamsave.endpoints.faults import StalledSink
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.errors import CorruptImageError, TruncatedImageError
from streamsave.format.frames import FrameTable
from streamsave.pipeline.bufpool import slot_count
from streamsave.pipeline.compress import Compression
from streamsave.pipeline.decompress import Decompression
from streamsave.types import DurableSink, Sink
from streamsave.units import MiB
from tests.contract.checks import payload_of as payload_with
from tests.contract.samples import mixed
from tests.fakes.codec import SIZE, UNFRAMED, FakeCodec, FakeEncoder

CHUNK = FakeCodec.chunk_size
DATA = (os.urandom(5000) + bytes(20_000) + b"text " * 9000) * 9
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, len(DATA)]


class SlowEncoder(FakeEncoder):
    """Finishes out of order on purpose."""

    def encode(self, chunk: memoryview):  # type: ignore[no-untyped-def]
        if random.random() < 0.3:
            time.sleep(0.003)
        return super().encode(chunk)


class SlowCodec(FakeCodec):
    def encoder(self, level: int) -> SlowEncoder:
        return SlowEncoder()


def compress(data: bytes, threads: int, sink: DurableSink, codec: FakeCodec | None = None) -> tuple[Compression, bytes]:
    seen = bytearray()
    pipeline = Compression(MemorySource(data), sink, codec or FakeCodec(), level=1, threads=threads, observe=seen.extend)
    pipeline.start()
    try:
        pipeline.wait()
    finally:
        pipeline.join()
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
    pipeline.start()
    try:
        pipeline.wait()
    finally:
        pipeline.join()
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
    pipeline.start()
    try:
        pipeline.wait()
    finally:
        pipeline.join()
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
