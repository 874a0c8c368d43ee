"""Every failure of the engine ends in the right error, at once, with no thread left."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamsave.endpoints.faults import FailingSink, FailingSource, StalledSink
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.endpoints.socket import SocketSink, SocketSource
from streamsave.errors import Aborted, CodecError, DestinationError, ResourceError, SourceError
from streamsave.pipeline.compress import Compression
from streamsave.pipeline.decompress import Decompression
from streamsave.pipeline.stages import Pipeline
from streamsave.types import DurableSink, Sink, Source
from tests.fakes.codec import FailingCodec, FakeCodec

from ..kit.pipelines import run_to_end
from .saving import failing

CHUNK = FakeCodec.chunk_size
DATA = os.urandom(60 * CHUNK)
pytestmark = pytest.mark.timeout(20)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def compression(source: Source, sink: DurableSink, codec: FakeCodec | None = None, threads: int = 2) -> Compression:
    return Compression(source, sink, codec or FakeCodec(), level=1, threads=threads, observe=lambda view: None)


def decompression(source: Source, sink: Sink, threads: int = 2) -> Decompression:
    return Decompression(
        source, sink, FakeCodec(), threads=threads, observe=lambda view: None, path=Path("image"), payload_offset=0
    )


def payload() -> bytes:
    sink = MemorySink()
    run_to_end(compression(MemorySource(DATA), sink))
    return bytes(sink.data)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("fail_after", [0, 1, CHUNK, 30 * CHUNK, 59 * CHUNK])
def test_full_disk(fail_after: int, threads: int) -> None:
    with pytest.raises(DestinationError, match="disk is full"):
        run_to_end(compression(MemorySource(DATA), FailingSink(DiscardSink(), fail_after), threads=threads))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("fail_after", [0, CHUNK, 30 * CHUNK])
def test_broken_source(fail_after: int, threads: int) -> None:
    with pytest.raises(SourceError, match="source broke"):
        run_to_end(compression(FailingSource(MemorySource(DATA), fail_after), DiscardSink(), threads=threads))
    with pytest.raises(SourceError, match="source broke"):
        run_to_end(decompression(FailingSource(MemorySource(payload()), fail_after), DiscardSink(), threads=threads))


@pytest.mark.parametrize("fail_at", [0, 1, 4])
def test_broken_codec(fail_at: int) -> None:
    expected = r"fake failed to compress chunk \d+ \(stream offset \d+\): the codec broke"
    with pytest.raises(CodecError, match=expected) as caught:
        run_to_end(compression(MemorySource(DATA), DiscardSink(), FailingCodec(fail_at)))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_observer_that_raises_ends_the_pipeline() -> None:
    def observe(view: memoryview) -> None:
        raise RuntimeError("observer")

    pipeline = Compression(MemorySource(DATA), DiscardSink(), FakeCodec(), level=1, threads=2, observe=observe)
    with pytest.raises(RuntimeError, match="observer"):
        run_to_end(pipeline)


def test_full_disk_wakes_a_reader_that_waits_for_a_silent_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(DATA[: 3 * CHUNK])  # and then nothing, without an end
        with pytest.raises(DestinationError, match="disk is full"):
            run_to_end(compression(SocketSource(ours), FailingSink(DiscardSink(), CHUNK)))


def test_broken_source_wakes_a_writer_whose_peer_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the first chunk fills it
        pipeline = decompression(FailingSource(MemorySource(payload()), 5 * CHUNK), SocketSink(ours))
        with pytest.raises(SourceError, match="source broke"):
            run_to_end(pipeline)


def test_a_peer_that_goes_away_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(DestinationError, match="migration socket"):
            run_to_end(decompression(MemorySource(payload()), SocketSink(ours)))


@pytest.mark.parametrize(
    "make", [lambda s: compression(MemorySource(DATA), s), lambda s: decompression(MemorySource(payload()), s)]
)
def test_cancelling_from_another_thread(make: Callable[[StalledSink], Pipeline]) -> None:
    sink = StalledSink(DiscardSink())
    pipeline = make(sink)
    pipeline.start()
    assert sink.entered.wait(5)
    time.sleep(0.1)  # now everybody waits for the sink, directly or for the slots that it holds
    canceller = threading.Thread(target=pipeline.fail, args=(Aborted("enough"),))
    canceller.start()
    with pytest.raises(Aborted, match="enough") as caught:
        pipeline.wait()
    canceller.join()
    pipeline.join()
    assert any("writing was aborted" in note for note in caught.value.__notes__)
    assert all("was aborted" in note for note in caught.value.__notes__), "who only waited has nothing to say"


def test_first_error_wins_and_the_next_is_a_note() -> None:
    pipeline = compression(MemorySource(DATA), DiscardSink())
    pipeline.fail(DestinationError("first"))
    pipeline.fail(SourceError("second"))
    with pytest.raises(DestinationError, match="first") as caught:
        pipeline.wait()
    assert caught.value.__notes__ == ["afterwards: SourceError: second"]


def test_no_memory_for_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "mmap", failing(mmap.mmap, 3, error=OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))))
    with pytest.raises(ResourceError, match=r"no memory for one more buffer of .* \(Cannot allocate memory\)"):
        compression(MemorySource(DATA), DiscardSink())


def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "streamsave-worker-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:  # where nothing comes from: those that were started would wait for ever
        pipeline = compression(SocketSource(ours), DiscardSink())
        with pytest.raises(ResourceError, match=r"cannot start a thread for the pipeline's worker-1 .*raise the limit"):
            pipeline.start()
        pipeline.join()
