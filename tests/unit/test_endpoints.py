"""Endpoints one at a time: what they do once they were aborted, and what they leave alone."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from streamsave.endpoints import exchange
from streamsave.endpoints.descriptor import name_of
from streamsave.endpoints.faults import FailingSink, FailingSource, StalledSink
from streamsave.endpoints.file import FileSource, NewImage
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.endpoints.pipe import PipeSink, PipeSource
from streamsave.endpoints.socket import SocketSink, SocketSource
from streamsave.errors import DestinationError, SourceError

from ..kit.unfinished import without_nameless_files


def test_a_file_is_not_read_after_abort(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something")
    source = FileSource(os.open(tmp_path / "file", os.O_RDONLY), tmp_path / "file")
    view = memoryview(bytearray(4))
    assert source.readinto(view) == 4
    source.abort()
    with pytest.raises(SourceError, match="reading was aborted"):
        source.readinto(view)
    source.close()
    source.close()


def test_nothing_is_written_once_it_was_given_up(tmp_path: Path) -> None:
    with NewImage(tmp_path / "image", b"head") as image:
        image.abort()
        with pytest.raises(DestinationError, match="Operation canceled"):
            image.write([b"more"])
        assert os.pread(image.fileno(), 100, 0) == b"head"
        with pytest.raises(DestinationError, match="Operation canceled"):
            image.commit(b"HEAD", b"head")
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_puts_in_the_place_of_an_unfinished_image_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_nameless_files(monkeypatch)
    with NewImage(tmp_path / "image", b"head") as image:
        image.temporary.unlink()
        image.temporary.write_text("somebody else's")
    assert image.temporary.read_text() == "somebody else's"


def test_memory_that_was_given_up() -> None:
    source, sink, discard = MemorySource(b"something"), MemorySink(), DiscardSink()
    for each in (source, sink, discard):
        each.abort()
        each.abort()
    with pytest.raises(SourceError, match="aborted"):
        source.readinto(memoryview(bytearray(4)))
    for each in (sink, discard):
        with pytest.raises(DestinationError, match="aborted"):
            each.write([b"something"])
    source.close()
    sink.flush()
    sink.close()


def test_ends_that_fail_pass_the_rest_on() -> None:
    data = MemorySink()
    for sink in (FailingSink(data, 20), StalledSink(data)):
        if isinstance(sink, StalledSink):
            sink.release()
        sink.write([b"0123", b"456789"])
        sink.flush()
        sink.close()
    assert data.data == b"0123456789" * 2
    source = FailingSource(MemorySource(b"0123456789"), 8)
    view = memoryview(bytearray(8))
    assert (source.readinto(view), bytes(view)) == (8, b"01234567")
    with pytest.raises(SourceError, match="the source broke"):
        source.readinto(view)
    source.abort()
    source.close()


def test_names_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    exchange.exchange(one, other)
    assert (one.read_text(), other.read_text()) == ("2", "1")
    other.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        exchange.exchange(one, other)
    assert (caught.value.filename, caught.value.filename2) == (str(one), str(other))
    assert one.read_text() == "2"


def test_names_cannot_change_places_where_the_system_does_not_know_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    with pytest.raises(OSError, match="Function not implemented") as caught:
        exchange.exchange(tmp_path / "one", tmp_path / "other")
    assert caught.value.errno in exchange.CANNOT


def test_what_a_descriptor_is_called(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        assert str(name_of(reading)) == f"descriptor {reading}"
        with (tmp_path / "file").open("wb") as file:
            assert name_of(file.fileno()) == tmp_path / "file"
    finally:
        os.close(reading)
        os.close(writing)
    assert str(name_of(writing)) == f"descriptor {writing}", "not open: whoever uses it says so"


@pytest.mark.parametrize("kind", [PipeSource, PipeSink])
def test_a_pipes_end_is_given_up_and_closed_at_any_time(kind: type[PipeSource | PipeSink]) -> None:
    reading, writing = os.pipe()
    ours, other = (reading, writing) if kind is PipeSource else (writing, reading)
    end = kind(ours)
    end.abort()
    end.abort()
    if isinstance(end, PipeSource):
        assert end.readinto(memoryview(bytearray(4))) == 0
    else:
        with pytest.raises(DestinationError, match="writing the pipe failed: aborted"):
            end.write([b"something"])
    end.close()
    end.close()
    end.abort()
    os.close(other)


def test_a_pipe_takes_a_pipeful_at_a_time() -> None:
    reading, writing = os.pipe()
    source, sink = PipeSource(reading), PipeSink(writing)
    data = os.urandom(3_000_000)

    def write() -> None:
        sink.write([data[:10], b"", data[10:]])
        sink.close()

    thread = threading.Thread(target=write)
    thread.start()
    room = memoryview(bytearray(len(data) + 1))
    assert source.readinto(room) == len(data)
    assert room[: len(data)] == data
    thread.join()
    source.close()


def test_a_pipe_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    sink = PipeSink(writing)
    os.close(reading)
    with pytest.raises(DestinationError, match="Broken pipe") as caught:
        sink.write([b"something"])
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    sink.close()


def test_a_socket_that_is_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    source, sink = SocketSource(ours), SocketSink(ours)
    assert source.readinto(memoryview(bytearray(4))) == 0
    with pytest.raises(DestinationError, match="writing the migration socket failed"):
        sink.write([b"something"])
    source.close()
    sink.close()
    sink.abort()
    with pytest.raises(SourceError, match="reading the migration socket failed"):
        source.readinto(memoryview(bytearray(4)))
