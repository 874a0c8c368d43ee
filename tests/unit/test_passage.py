"""Pipes behind a path that is opened several times."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsave.errors import ResourceError
from streamsave.libvirt import passage
from streamsave.libvirt.passage import DescriptorPassage, FifoPassage, Passage, remove_stale, runtime_folder


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where FIFOs go."""
    folder = tmp_path / "streamsave"
    monkeypatch.setattr(passage, "runtime_folder", lambda: folder)
    return folder


@pytest.fixture(params=[DescriptorPassage, FifoPassage])
def way(request: pytest.FixtureRequest, base: Path) -> Iterator[Passage]:
    kind: type[Passage] = request.param
    with kind() as made:
        yield made


def test_each_opening_finds_the_newest_pipe(way: Passage) -> None:
    with way.next_pipe() as first, open(way.path, "wb", buffering=0) as one, way.next_pipe() as second:
        with open(way.path, "wb", buffering=0) as two:
            one.write(b"one")
            two.write(b"two")
        assert (os.read(first.reader, 10), os.read(second.reader, 10)) == (b"one", b"two")


def test_a_pipe_ends_when_its_writers_have_gone(way: Passage) -> None:
    with way.next_pipe() as pipe, way.next_pipe():
        pass
    with way.next_pipe() as pipe:
        with open(way.path, "wb", buffering=0) as file:
            pipe.close_writer()
            file.write(b"all")
        assert os.read(pipe.reader, 10) == b"all"
        assert os.read(pipe.reader, 10) == b""


def test_a_writer_hears_that_nobody_reads_once_the_path_leads_elsewhere(way: Passage) -> None:
    with way.next_pipe() as pipe, open(way.path, "wb", buffering=0) as file, way.next_pipe():
        pipe.close_reader()
        with pytest.raises(BrokenPipeError):
            file.write(b"x")


def test_a_full_pipe_holds_a_writer_up_until_it_is_drained(way: Passage) -> None:
    with way.next_pipe() as pipe:
        size = pipe.fill()
        assert size >= os.sysconf("SC_PAGE_SIZE")
        assert pipe.waiting() == size
        written = threading.Event()

        def write() -> None:
            with open(way.path, "wb", buffering=0) as file:
                file.write(b"header")
            written.set()

        thread = threading.Thread(target=write)
        thread.start()
        assert not written.wait(0.2)
        drained = len(pipe.drain())
        assert drained >= size
        assert written.wait(5)
        thread.join()
        assert (drained, pipe.drain()) in [(size, b"header"), (size + 6, b"")]


def test_a_shut_path_cannot_be_opened_nor_made_anew(way: Passage) -> None:
    with way.next_pipe():
        way.shut()
        way.shut()
        with pytest.raises(OSError, match="No such"):  # device or address, or file or directory
            os.open(way.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)


def test_the_number_stays_taken_until_the_end() -> None:
    """Another file of this process must never stand where the daemon is about to open something."""
    with DescriptorPassage() as way:
        number = int(way.path.rsplit("/", 1)[1])
        way.next_pipe().close()
        way.shut()
        assert stat.S_ISSOCK(os.fstat(number).st_mode)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    way.close()


def test_an_opener_of_a_fifo_that_waits_for_nobody_is_woken(base: Path) -> None:
    with FifoPassage() as way, way.next_pipe() as pipe:
        path = f"/proc/self/fd/{pipe.writer}"
        pipe.close_reader()
        opened = threading.Event()

        def opens() -> None:
            os.close(os.open(path, os.O_WRONLY))
            opened.set()

        thread = threading.Thread(target=opens)
        thread.start()
        assert not opened.wait(0.2)
        pipe.wake_opener()
        assert opened.wait(5)
        thread.join()


def test_a_fifo_is_for_this_user_alone_and_gone_at_the_end(base: Path) -> None:
    with FifoPassage() as way, way.next_pipe():
        assert Path(way.path).is_fifo()
        assert stat.S_IMODE(os.stat(way.path).st_mode) == 0o600
        assert stat.S_IMODE(base.stat().st_mode) == stat.S_IMODE(Path(way.path).parent.stat().st_mode) == 0o700
    assert list(base.iterdir()) == []


def test_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(base: Path) -> None:
    with FifoPassage() as living:
        dead = base / "pipe-dead"
        dead.mkdir()
        os.mkfifo(dead / "stream")
        (base / "gone-pipe-dead").mkdir()
        (base / "other").mkdir()
        with FifoPassage() as second:
            expected = {Path(living.path).parent, Path(second.path).parent, base / "other"}
            assert set(base.iterdir()) == expected
        living.next_pipe().close()
    remove_stale(base)
    assert list(base.iterdir()) == [base / "other"]


def test_where_no_folder_can_be_made(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base.write_text("a file")
    with pytest.raises(ResourceError, match="cannot make a folder for a pipe in"):
        FifoPassage()


def test_the_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime_folder() == Path("/run/streamsave")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert runtime_folder() == Path("/run/user/1000/streamsave")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(ResourceError, match="XDG_RUNTIME_DIR"):
        runtime_folder()
