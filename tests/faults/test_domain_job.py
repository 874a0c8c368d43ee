"""libvirt's own figures while it saves a domain: told where it tells them, and waited for by nobody."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import streamsave
from streamsave.libvirt import job

from ..fakes.libvirt import SHUT_OFF, FakeDaemon, FakeError
from ..kit.images import made_up_stream
from ..kit.waiting import until


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    daemon = FakeDaemon(made_up_stream(20))
    daemon.install(monkeypatch)
    monkeypatch.setattr(job, "LOOK_S", 0.01)
    return daemon


def save(daemon: FakeDaemon, folder: Path, *, asked: threading.Event) -> list[streamsave.Progress]:
    """A save that waits until libvirt was asked; the looks at it."""
    looks: list[streamsave.Progress] = []
    daemon.before_header = lambda: bool(asked.wait(20))  # type: ignore[assignment]
    streamsave.save_domain("fake", folder / "image", streamsave.SaveOptions(format="raw"), progress=looks.append)
    assert asked.is_set()
    assert daemon.state == SHUT_OFF
    return looks


def test_told(daemon: FakeDaemon, tmp_path: Path) -> None:
    asked = threading.Event()
    count = iter(range(3))
    daemon.before_job = lambda: asked.set() if next(count, 3) == 2 else None
    looks = save(daemon, tmp_path, asked=asked)
    assert looks[-1].job == {"memory_total": 16 << 20, "memory_remaining": 1 << 20, "operation": 3}, "its numbers"


def test_not_told(daemon: FakeDaemon, tmp_path: Path) -> None:
    """A libvirt that cannot tell is not asked again, and saves all the same."""
    asked = threading.Event()
    count = 0

    def refuse() -> None:
        nonlocal count
        count += 1
        asked.set()
        raise FakeError("no job is active")

    daemon.before_job = refuse
    looks = save(daemon, tmp_path, asked=asked)
    assert (looks[-1].job, count) == ({}, 1)


def test_no_answer(daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt holds the domain locked at the end of a save: nothing waits for an answer then."""
    monkeypatch.setattr(job, "LAST_ANSWER_S", 0.1)
    asked, over = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        assert over.wait(20)

    daemon.before_job = hang
    looks = save(daemon, tmp_path, asked=asked)
    assert looks[-1].job == {}
    over.set()
    until(lambda: all(thread.name != "streamsave-libvirt" for thread in threading.enumerate()), what="the end of its thread")
