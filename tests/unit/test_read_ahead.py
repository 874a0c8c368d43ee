"""Reading ahead of one decoder: all bytes in order, no more than the buffers hold, and every way to end wakes both sides."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsave.codecs.base import ReadBytes
from streamsave.endpoints.faults import FailingSource
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.errors import Aborted, ResourceError, SourceError
from streamsave.pipeline.decompress import Decompression
from streamsave.pipeline.gate import Gate, GateClosed
from streamsave.pipeline.payload import Payload
from streamsave.pipeline.read_ahead import PIECE_COUNT, PIECE_SIZE, ReadAhead
from streamsave.pipeline.stats import Stats
from streamsave.types import Source
from tests.fakes.codec import SIZE, UNFRAMED, FakeCodec, FakeReader
from tests.kit.pipelines import run_to_end

DATA = os.urandom(9 * PIECE_SIZE + 1000)
pytestmark = pytest.mark.timeout(10)


@contextmanager
def reading(ahead: ReadAhead) -> Iterator[list[BaseException]]:
    """What its thread was ended by."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            ahead.run()
        except GateClosed as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield errors
    except BaseException:
        ahead.stop()
        raise
    finally:
        thread.join(5)
    assert not thread.is_alive()


def ahead_of(data: bytes, gate: Gate | None = None) -> tuple[ReadAhead, Stats]:
    stats = Stats()
    return ReadAhead(Payload(MemorySource(data), stats), gate or Gate()), stats


def until(stats: Stats, size: int) -> None:
    """``size`` bytes were read, and after a while no more."""
    deadline = time.monotonic() + 5
    while stats.bytes_in < size and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert stats.bytes_in == size


@pytest.mark.parametrize("step", [1000, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 10 * PIECE_SIZE])
@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE, PIECE_SIZE + 1, len(DATA)])
def test_all_of_it(size: int, step: int) -> None:
    ahead, stats = ahead_of(DATA[:size])
    with reading(ahead) as errors:
        got = bytearray()
        while piece := ahead.read(step):
            assert len(piece) <= step
            got += piece
            assert ahead.position == len(got)
    assert got == DATA[:size]
    assert not ahead.read(step)
    assert stats.bytes_in == size
    assert not errors


def test_no_more_is_read_than_the_buffers_hold() -> None:
    ahead, stats = ahead_of(DATA)
    with reading(ahead):
        until(stats, PIECE_COUNT * PIECE_SIZE)
        first = bytes(ahead.read(PIECE_SIZE))
        until(stats, PIECE_COUNT * PIECE_SIZE)  # that one is borrowed until the next call
        second = bytes(ahead.read(PIECE_SIZE))
        until(stats, (PIECE_COUNT + 1) * PIECE_SIZE)
        ahead.stop()
    assert first + second == DATA[: 2 * PIECE_SIZE]


def test_when_the_pipeline_ends_both_sides_wake() -> None:
    gate = Gate()
    ahead, stats = ahead_of(DATA, gate)
    with reading(ahead) as errors:
        until(stats, PIECE_COUNT * PIECE_SIZE)
        gate.close()
    assert [type(error) for error in errors] == [GateClosed]
    gate = Gate()
    silent, _ = ahead_of(DATA, gate)  # nobody reads
    threading.Timer(0.05, gate.close).start()
    with pytest.raises(GateClosed):
        silent.read(1)


def restore(source: Source, codec: FakeCodec) -> bytes:
    sink = MemorySink()
    pipeline = Decompression(source, sink, codec, threads=2, observe=lambda view: None, path=Path("image"), payload_offset=0)
    limit = threading.Timer(5, pipeline.fail, [Aborted("it hangs")])
    limit.start()
    try:
        run_to_end(pipeline)
    finally:
        limit.cancel()
    return bytes(sink.data)


PAYLOAD = SIZE.pack(UNFRAMED) + zlib.compress(DATA)


def test_a_payload_that_cannot_be_read_is_not_the_codecs_fault() -> None:
    class Lazy(FakeReader):
        def __init__(self, read: ReadBytes) -> None:
            self._read = read

        def readinto(self, view: memoryview) -> int:
            super().__init__(self._read)
            return super().readinto(view)

    class LazyCodec(FakeCodec):
        def stream_reader(self, read: ReadBytes) -> Lazy:
            return Lazy(read)

    with pytest.raises(SourceError, match="the source broke") as caught:
        restore(FailingSource(MemorySource(PAYLOAD), 5 * PIECE_SIZE), LazyCodec())
    assert not hasattr(caught.value, "__notes__")


def test_what_nobody_wants_need_not_be_readable() -> None:
    """Behind the last byte of a payload, say, on a device."""
    failed = threading.Event()

    class Failing(FailingSource):
        def readinto(self, view: memoryview) -> int:
            try:
                return super().readinto(view)
            except SourceError:
                failed.set()
                raise

    class Satisfied(FakeReader):
        def __init__(self, read: ReadBytes) -> None:
            self._rest = memoryview(bytes(read(1000)))
            assert failed.wait(5)

    class SatisfiedCodec(FakeCodec):
        def stream_reader(self, read: ReadBytes) -> Satisfied:
            return Satisfied(read)

    assert restore(Failing(MemorySource(PAYLOAD), 2 * PIECE_SIZE), SatisfiedCodec()) == PAYLOAD[:1000]


def test_a_decoder_that_wants_no_more_ends_the_reading_too() -> None:
    class Satisfied(FakeReader):
        def __init__(self, read: object) -> None:
            self._rest = memoryview(DATA[:5000])

    class SatisfiedCodec(FakeCodec):
        def stream_reader(self, read: object) -> Satisfied:
            return Satisfied(read)

    assert restore(MemorySource(PAYLOAD), SatisfiedCodec()) == DATA[:5000]


def test_who_reads_and_who_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: set[str] = set()
    readinto = MemorySource.readinto

    def seen(source: MemorySource, view: memoryview) -> int:
        readers.add(threading.current_thread().name)
        return readinto(source, view)

    monkeypatch.setattr(MemorySource, "readinto", seen)
    assert restore(MemorySource(PAYLOAD), FakeCodec()) == DATA
    assert readers == {"streamsave-reader", "streamsave-read-ahead"}, "the first looked for frames"


def test_no_thread_for_reading_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "streamsave-read-ahead":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pipeline = Decompression(
        MemorySource(PAYLOAD),
        DiscardSink(),
        FakeCodec(),
        threads=1,
        observe=lambda view: None,
        path=Path("image"),
        payload_offset=0,
    )
    with pytest.raises(ResourceError, match="cannot start a thread for the pipeline's read-ahead"):
        run_to_end(pipeline)
