"""Payloads with an index: frames that workers read for themselves, and the same frames from a source that only goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streamsave._native.scan import StreamScanner
from streamsave.codecs.registry import find_codec
from streamsave.endpoints.faults import FailingRandomSource, FailingSource, StalledSink
from streamsave.endpoints.file import FileSource
from streamsave.endpoints.limited import LimitedSource, SourcePart
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.errors import Aborted, CorruptImageError, SourceError, TruncatedImageError
from streamsave.format.index import IMAGE_ID_SIZE, Index
from streamsave.format.pages import FirstRecords
from streamsave.pipeline.bufpool import slot_count
from streamsave.pipeline.compress import Compression
from streamsave.pipeline.decompress import Decompression
from streamsave.types import RandomSource, Sink, Source
from streamsave.units import MiB
from tests.contract.samples import mixed
from tests.kit.pipelines import run_to_end

LZOP = find_codec("lzop")
"""A codec with something before and behind its frames."""
DATA = mixed(9 * MiB + 5000)
AT = 4096
"""Where the payload begins, for messages."""


def packed(data: bytes) -> tuple[bytes, Index]:
    """A payload and its index."""
    sink = MemorySink()
    pipeline = Compression(MemorySource(data), sink, LZOP, level=1, threads=2, observe=lambda view: None)
    run_to_end(pipeline)
    records = FirstRecords()
    return bytes(sink.data), Index(
        bytes(IMAGE_ID_SIZE), pipeline.frames, bytes(pipeline.leaves), StreamScanner().map(), records
    )


PAYLOAD, INDEX = packed(DATA)
FRAME_5 = INDEX.frames.frame_offset(5)


def decompression(source: Source, sink: Sink, index: Index = INDEX, threads: int = 2) -> Decompression:
    return Decompression(
        source, sink, LZOP, threads=threads, observe=lambda view: None, path=Path("image"), payload_offset=AT, index=index
    )


class ReadBy(MemorySource):
    """Knows which threads read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.threads: set[str] = set()

    def readinto_at(self, view: memoryview, offset: int) -> int:
        self.threads.add(threading.current_thread().name)
        return super().readinto_at(view, offset)


def in_order(data: bytes) -> Source:
    return LimitedSource(MemorySource(data), len(data))


each_way = pytest.mark.parametrize("make", [pytest.param(in_order, id="in-order"), pytest.param(MemorySource, id="random")])


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", [0, 1, MiB, len(DATA)])
@each_way
def test_all_of_it(make: Callable[[bytes], Source], size: int, threads: int) -> None:
    payload, index = (PAYLOAD, INDEX) if size == len(DATA) else packed(DATA[:size])
    sink = MemorySink()
    pipeline = decompression(make(payload), sink, index, threads)
    run_to_end(pipeline)
    assert sink.data == DATA[:size]
    stats = pipeline.stats
    assert (stats.bytes_in, stats.bytes_out, stats.frame_count) == (len(payload), size, len(index.frames))
    assert stats.read_s > 0 or not size
    assert stats.parallel


def test_who_reads() -> None:
    source = ReadBy(PAYLOAD)
    assert isinstance(source, RandomSource)
    run_to_end(decompression(source, DiscardSink()))
    assert source.threads == {"streamsave-worker-0", "streamsave-worker-1"}
    source = ReadBy(PAYLOAD)
    first = LimitedSource(source, len(PAYLOAD))
    assert not isinstance(first, RandomSource)
    run_to_end(decompression(first, DiscardSink()))
    assert source.threads == {"streamsave-reader"}


@each_way
def test_a_frame_that_is_cut(make: Callable[[bytes], Source]) -> None:
    sink = MemorySink()
    pipeline = decompression(make(PAYLOAD[: FRAME_5 + 100]), sink)
    expected = f"image: the lzop payload ends too early in frame 5 at offset {AT + FRAME_5}: the file ends inside it"
    with pytest.raises(TruncatedImageError, match=expected) as caught:
        run_to_end(pipeline)
    assert sink.data == DATA[: 5 * MiB]
    assert caught.value.good_size == 5 * MiB


@each_way
def test_a_frame_that_is_damaged(make: Callable[[bytes], Source]) -> None:
    payload, sink = bytearray(PAYLOAD), MemorySink()
    payload[FRAME_5 + 1000] ^= 0x10
    with pytest.raises(CorruptImageError, match=rf"is damaged in frame 5 at offset {AT + FRAME_5}:"):
        run_to_end(decompression(make(bytes(payload)), sink))
    assert sink.data == DATA[: 5 * MiB]


@pytest.mark.parametrize("size", [0, LZOP.bound(MiB) + 1])
@each_way
def test_a_size_that_no_frame_has(make: Callable[[bytes], Source], size: int) -> None:
    payload, index = packed(DATA)
    index.frames.sizes[5] = size
    sink = MemorySink()
    with pytest.raises(CorruptImageError, match=rf"in frame 5 at offset {AT + FRAME_5}: in the index it has {size} bytes"):
        run_to_end(decompression(make(payload), sink, index))
    assert sink.data == DATA[: 5 * MiB]


@pytest.mark.parametrize("failing", [FailingSource, FailingRandomSource])
def test_a_source_that_fails(failing: Callable[[RandomSource, int], Source]) -> None:
    with pytest.raises(SourceError, match="the source broke"):
        run_to_end(decompression(failing(MemorySource(PAYLOAD), FRAME_5), DiscardSink()))


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(AT) + PAYLOAD + b"index")
    file = FileSource(os.open(path, os.O_RDONLY), path)
    source = SourcePart(file, AT, len(PAYLOAD))
    sink = StalledSink(MemorySink())
    pipeline = decompression(source, sink, threads=1)
    pipeline.start()
    assert sink.entered.wait(5)
    os.truncate(path, AT + len(PAYLOAD) - 8)
    sink.release()
    with pytest.raises(TruncatedImageError, match="in frame 9 at offset"):
        pipeline.wait()
    pipeline.join()
    file.close()


def test_giving_up_while_workers_read() -> None:
    """A read from a dead disk cannot be woken: who waits is told at once, and nothing goes on once the disk is back."""

    class Dead(MemorySource):
        read, back = threading.Semaphore(0), threading.Event()

        def readinto_at(self, view: memoryview, offset: int) -> int:
            self.read.release()
            self.back.wait(10)
            return super().readinto_at(view, offset)

    source, sink = Dead(PAYLOAD), MemorySink()
    pipeline = decompression(source, sink)
    pipeline.start()
    for _ in range(2):  # both are at it
        assert source.read.acquire(timeout=5)
    pipeline.fail(Aborted("enough"))
    with pytest.raises(Aborted, match="enough"):
        pipeline.wait()
    source.back.set()
    pipeline.join()
    assert not source.read.acquire(blocking=False)
    assert not sink.data


def test_no_more_is_read_than_there_are_slots_for() -> None:
    source, sink = ReadBy(PAYLOAD), StalledSink(DiscardSink())
    pipeline = decompression(source, sink, threads=1)
    pipeline.start()
    assert sink.entered.wait(5)
    assert pipeline.stats.frame_count <= slot_count(1) < len(INDEX.frames)
    sink.release()
    pipeline.wait()
    pipeline.join()


def test_a_part_of_a_source_ends_where_it_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    file = FileSource(os.open(tmp_path / "file", os.O_RDONLY), tmp_path / "file")
    for source in (file, MemorySource(b"0123456789")):
        part = SourcePart(source, 2, 6)
        view = memoryview(bytearray(4))
        for offset, expected in ((0, b"2345"), (4, b"67"), (5, b"7"), (6, b""), (7, b"")):
            assert view[: part.readinto_at(view, offset)] == expected
        assert [bytes(view[: part.readinto(view)]) for _ in range(3)] == [b"2345", b"67", b""]
        assert bytes(view[: source.readinto(view)]) == b"0123"
        assert bytes(view[: source.readinto_at(view, 8)]) == b"89"
        part.abort()
        part.close()
        with pytest.raises(SourceError, match="aborted"):
            part.readinto_at(view, 0)
        source.close()
