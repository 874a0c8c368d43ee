"""The inner parts, each alone: ``make test ARGS="bench --benchmark-only"``. Bytes per second are in ``extra_info``.

The data is what a guest's RAM is full of: programs and libraries, in chunks as they pass through the pipeline.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.kit.pipelines import run_to_end

from streamsave._native.scan import StreamScanner
from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.pipeline.compress import Compression
from streamsave.pipeline.decompress import Decompression
from streamsave.units import MiB

CHUNK_COUNT = 8


@cache
def programs() -> bytes:
    """16 MiB of the host's libraries."""
    data = b""
    for path in sorted(Path("/usr/lib").rglob("*.so*")):
        if path.is_file() and not path.is_symlink():
            data += path.read_bytes()
        if len(data) >= 16 * MiB:
            break
    return (data * (16 * MiB // len(data) + 1))[: 16 * MiB]


def chunks_of(codec: Codec) -> list[memoryview]:
    """``CHUNK_COUNT`` chunks of the codec's size, no two the same where there is enough data."""
    data = memoryview(programs())
    starts = [(number * codec.chunk_size) % (len(data) - codec.chunk_size) for number in range(CHUNK_COUNT)]
    return [data[start : start + codec.chunk_size] for start in starts]


def new_room(size: int) -> memoryview:
    """Memory for a frame or a chunk, as a slot has it."""
    return memoryview(bytearray(size))


def rate(benchmark: Any, size: int) -> None:
    """Note the rate beside the times."""
    if benchmark.stats is not None:
        benchmark.extra_info["MiB/s"] = round(size / MiB / benchmark.stats.stats.median)


@pytest.mark.parametrize("codec", codecs().values(), ids=lambda codec: codec.name)
def test_encode(benchmark: Any, codec: Codec) -> None:
    encoder, chunks = codec.encoder(codec.default_level), chunks_of(codec)
    rooms = [new_room(codec.bound(codec.chunk_size)) for _ in chunks]
    frames = benchmark(lambda: [encoder.encode(chunk, room) for chunk, room in zip(chunks, rooms, strict=True)])
    assert len(frames) == CHUNK_COUNT
    rate(benchmark, CHUNK_COUNT * codec.chunk_size)


@pytest.mark.parametrize("codec", codecs().values(), ids=lambda codec: codec.name)
def test_decode(benchmark: Any, codec: Codec) -> None:
    encoder, decoder, chunks = codec.encoder(codec.default_level), codec.decoder(), chunks_of(codec)
    frames = [memoryview(b"".join(encoder.encode(chunk, new_room(codec.bound(len(chunk)))))) for chunk in chunks]
    room = new_room(codec.chunk_size)
    sizes = benchmark(lambda: [len(decoder.decode(frame, room)) for frame in frames])
    assert sizes == [codec.chunk_size] * CHUNK_COUNT
    rate(benchmark, CHUNK_COUNT * codec.chunk_size)


def test_scan_pages(benchmark: Any) -> None:
    """The scanner over 64 MiB of whole pages: what the reader adds to each chunk."""
    setup = b"\1" + (2).to_bytes(4, "big") + b"\3ram" + bytes(4) + (4).to_bytes(4, "big")
    setup += (64 * MiB | 4).to_bytes(8, "big") + b"\6pc.ram" + (64 * MiB).to_bytes(8, "big") + (16).to_bytes(8, "big")
    pages = b"".join((page * 4096 | 0x28).to_bytes(8, "big") + bytes(4096) for page in range(16384))
    stream = b"QEVM\0\0\0\3\7\0\0\0\2pc" + setup + b"\x7e" + (2).to_bytes(4, "big") + b"\2" + (2).to_bytes(4, "big") + pages

    def scan() -> int:
        scanner = StreamScanner()
        for start in range(0, len(stream), MiB):
            scanner.feed(memoryview(stream)[start : start + MiB])
        return scanner.pages_seen

    assert benchmark(scan) == 16384
    rate(benchmark, len(stream))


def test_pipeline_of_raw(benchmark: Any) -> None:
    """The engine with a codec that costs nothing: what is left is its own."""
    data, codec = programs() * 8, codecs()["raw"]

    def run() -> int:
        sink = DiscardSink()
        run_to_end(Compression(MemorySource(data), sink, codec, level=0, threads=2, observe=lambda view: None))
        return sink.size

    assert benchmark(run) == len(data)
    rate(benchmark, len(data))


def test_pipeline_back_of_zstd(benchmark: Any) -> None:
    """Parallel decoding into nowhere."""
    codec, packed = codecs()["zstd"], MemorySink()
    run_to_end(Compression(MemorySource(programs()), packed, codec, level=3, threads=2, observe=lambda view: None))

    def run() -> int:
        sink = DiscardSink()
        source = MemorySource(packed.data)
        run_to_end(
            Decompression(source, sink, codec, threads=2, observe=lambda view: None, path=Path("-"), payload_offset=0)
        )
        return sink.size

    assert benchmark(run) == len(programs())
    rate(benchmark, len(programs()))
