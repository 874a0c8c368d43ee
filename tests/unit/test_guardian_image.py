"""What the guardian does to an image's file, in which order: nothing is decided by what a power failure could undo."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from streamsave.endpoints import exchange as exchange_module
from streamsave.format.header import MAGIC_COMPLETE, MAGIC_PARTIAL
from streamsave.guardian import child
from streamsave.guardian.child import _Image
from streamsave.guardian.plan import GuardianPlan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(MAGIC_COMPLETE + b"more")
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What happens to which file."""
    calls: list[tuple[str, str]] = []
    for name in ("fsync", "pwrite"):
        real = getattr(os, name)

        def noted(fd: int, *rest: object, name: str = name, real: object = real) -> object:
            calls.append((name, Path(os.readlink(f"/proc/self/fd/{fd}")).name))
            return real(fd, *rest)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noted)
    return calls


def plan(kind: str, path: Path) -> GuardianPlan:
    return GuardianPlan(
        kind=kind,
        temporary=str(path.with_name("temporary")),
        destination=str(path),
        partial=MAGIC_PARTIAL.decode(),
        complete=MAGIC_COMPLETE.decode(),
    )


def test_an_image_is_durable_before_its_guest_is_ended(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    """The save may have been killed right behind the rename."""
    assert _Image(plan("file", path), fd).is_committed()
    assert calls == [("fsync", "image"), ("fsync", path.parent.name)]


def test_on_a_device_there_is_no_name(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    """And the header is written anew: an fsync that failed may have left it in memory alone."""
    assert _Image(plan("in place", path), fd).is_committed()
    assert calls == [("pwrite", "image"), ("fsync", "image")]


def test_what_is_in_place_is_marked_durably(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    _Image(plan("in place", path), fd).take_back()
    assert calls == [("pwrite", "image"), ("fsync", "image")]
    assert path.read_bytes() == MAGIC_PARTIAL + b"more"


def test_what_is_partial_is_left_as_it_is(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    path.write_bytes(MAGIC_PARTIAL)
    image = _Image(plan("in place", path), fd)
    assert not image.is_committed()
    image.take_back()
    assert calls == []


def test_an_older_image_has_its_name_again(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    """The two had changed places, and then the new one could not be made durable: the guest runs on."""
    older = path.with_name("temporary")
    older.write_bytes(b"the older one")
    _Image(plan("file", path), fd).take_back()
    assert path.read_bytes() == b"the older one"
    assert list(path.parent.iterdir()) == [path]
    assert calls == [("fsync", path.parent.name), ("pwrite", "temporary"), ("fsync", "temporary")], "each before the next"
    assert os.pread(fd, 100, 0) == MAGIC_PARTIAL + b"more"


def test_an_image_that_took_the_place_of_nothing_is_marked_before_it_goes(
    path: Path, fd: int, calls: list[tuple[str, str]]
) -> None:
    """Its name may come back with the power."""
    _Image(plan("file", path), fd).take_back()
    assert list(path.parent.iterdir()) == []
    assert calls == [("pwrite", "image"), ("fsync", "image")]


def test_two_that_cannot_change_places_back_both_stay(path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a whole image, and nobody can tell which will be needed."""

    def fail(one: str, other: str) -> None:
        raise OSError(5, "Input/output error")

    older = path.with_name("temporary")
    older.write_bytes(b"the older one")
    monkeypatch.setattr(exchange_module, "exchange", fail)
    _Image(plan("file", path), fd).take_back()
    assert path.read_bytes() == MAGIC_COMPLETE + b"more"
    assert older.read_bytes() == b"the older one"


def test_a_disk_that_hangs_does_not_keep_the_guest(path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it does late is undone: the guest runs on by then."""
    disk_is_back = threading.Event()
    pwrite = os.pwrite
    monkeypatch.setattr(child, "DISK_S", 0.1)

    def hang(fd: int, data: bytes, offset: int) -> int:
        if data.startswith(MAGIC_COMPLETE):
            assert disk_is_back.wait(20)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", hang)
    image = _Image(plan("in place", path), fd)
    began = time.monotonic()
    assert not image.is_committed_in_time()
    assert time.monotonic() - began < 2
    threading.Timer(0.2, disk_is_back.set).start()
    image.take_back()
    assert disk_is_back.is_set(), "it waited for what was under way"
    time.sleep(0.1)
    assert os.pread(fd, 100, 0) == MAGIC_PARTIAL + b"more"
    assert not image.is_committed_in_time()


def test_no_thread_to_ask_the_disk(path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    image = _Image(plan("file", path), fd)
    assert image.is_committed_in_time()
    image.take_back()
    assert not path.exists()


def test_a_rename_that_a_dying_parent_has_under_way(path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, and undone then."""
    temporary = path.with_name("temporary")
    os.rename(path, temporary)
    path.write_bytes(b"the older one")
    monkeypatch.setattr(child, "_orphaned", lambda control, *rest: control.close() is None)
    monkeypatch.setattr(child, "_act", lambda *arguments: False)
    monkeypatch.setattr(child, "_is_dying", lambda pid: True)
    waited: list[int] = []

    def wait(fd: int) -> None:
        waited.append(fd)
        exchange_module.exchange(temporary, path)

    monkeypatch.setattr(child, "_wait_readable", wait)
    monkeypatch.setattr(signal, "signal", lambda number, action: None)
    ours, its = socket.socketpair()
    ours.sendall(json.dumps(asdict(plan("file", path))).encode() + b"\n")
    assert child.main([str(its.detach()), "-1", "77", str(fd)]) == 0
    assert waited == [77]
    assert path.read_bytes() == b"the older one"
    assert list(path.parent.iterdir()) == [path]
    ours.close()
