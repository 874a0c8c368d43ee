"""The commit beside the thread that waits for it: given up until the image gets its name, waited for from then on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from streamsave.cancel import Cancellation, Waker
from streamsave.endpoints.image_sink import ImageSink
from streamsave.errors import Aborted, DestinationError, ResourceError
from streamsave.operations.commit import Commit
from streamsave.resources import Thread


class Waited(Cancellation):
    """Tells when somebody waits for the commit."""

    def __init__(self) -> None:
        super().__init__()
        self._entered = threading.Event()

    @contextmanager
    def waking(self, wake: Waker) -> Iterator[None]:
        with super().waking(wake):
            self._entered.set()
            yield

    def wait_for_it(self) -> None:
        assert self._entered.wait(20)
        time.sleep(0.2)  # from there to the wait itself it is not far


class File:
    """What a commit needs of a file."""

    def __init__(self) -> None:
        self.naming = False
        self.aborted = threading.Event()

    def abort(self) -> None:
        self.aborted.set()


def commit_of(file: File, commit: Callable[[], None]) -> Commit:
    return Commit(cast(ImageSink, file), commit)


def test_its_error_is_raised() -> None:
    def fail() -> None:
        raise DestinationError("the disk is full")

    commit = commit_of(File(), fail)
    with pytest.raises(DestinationError, match="the disk is full"):
        commit.run(Cancellation())
    commit.join()


def test_given_up_at_once_and_for_good() -> None:
    """Who waits goes on while the disk hangs, and the image can never get its name then."""
    file, cancel, disk_is_back = File(), Waited(), threading.Event()
    aborted_in_time: list[bool] = []

    def hang() -> None:
        cancel.wait_for_it()
        cancel.cancel("enough")
        aborted_in_time.append(file.aborted.is_set())
        assert disk_is_back.wait(20)

    commit = commit_of(file, hang)
    with pytest.raises(Aborted, match="enough"):
        commit.run(cancel)
    assert aborted_in_time == [True], "before anybody is told that it was given up"
    disk_is_back.set()
    commit.join()


@pytest.mark.parametrize("how", ["cancelled", "Ctrl-C"])
def test_waited_for_once_the_image_gets_its_name(how: str) -> None:
    file, cancel = File(), Waited()
    done: list[bool] = []

    def name() -> None:
        cancel.wait_for_it()
        file.naming = True
        if how == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            cancel.cancel("enough")
        time.sleep(0.3)
        done.append(True)

    commit = commit_of(file, name)
    if how == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            commit.run(cancel)
    else:
        commit.run(cancel)
    assert done == [True]
    commit.join()


def test_interrupted_before_that() -> None:
    file, cancel, disk_is_back = File(), Waited(), threading.Event()

    def hang() -> None:
        cancel.wait_for_it()
        os.kill(os.getpid(), signal.SIGINT)
        assert disk_is_back.wait(20)

    commit = commit_of(file, hang)
    with pytest.raises(KeyboardInterrupt):
        commit.run(cancel)
    assert file.aborted.is_set()
    disk_is_back.set()
    commit.join()


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "about to begin"])
def test_interrupted_while_its_thread_starts(begun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs, or is about to, and nobody was told: it must not finish an image whose guest is freed."""
    file, calls = File(), threading.Event()
    threads: list[Thread] = []
    start = Thread.start

    def interrupted(thread: Thread) -> None:
        threads.append(thread)
        if begun:
            start(thread)
            assert calls.wait(20)
        raise KeyboardInterrupt

    def hang() -> None:
        calls.set()
        assert file.aborted.wait(20)

    monkeypatch.setattr(Thread, "start", interrupted)
    commit = commit_of(file, hang)
    with pytest.raises(KeyboardInterrupt):
        commit.run(Cancellation())
    assert file.aborted.is_set()
    if not begun:
        start(threads[0])
    commit.join()
    threads[0].join()
    assert calls.is_set() == begun


def test_no_thread_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    commit = commit_of(File(), lambda: None)
    with pytest.raises(ResourceError, match="cannot start a thread for the commit"):
        commit.run(Cancellation())
    commit.join()
