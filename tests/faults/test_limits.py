"""Time limits, and cancelling, at the worst moments: everything that waits is woken, and the guest comes first."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.socket import SocketSink
from streamsave.errors import Aborted, DestinationError, ResourceError, StreamsaveError, TimeLimitError
from streamsave.format.metadata import Metadata
from streamsave.guardian.parent import Guardian
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import CompressOptions, RestoreOptions, SaveOptions
from streamsave.types import Buffer
from streamsave.units import MiB

from ..conftest import Launch
from ..fakes.qmp import FakeQmp, Talk
from ..kit.cli import streamsave
from ..kit.qemu import RunningQemu, demo_guest
from ..kit.qmp import Qmp
from ..kit.waiting import until
from .saving import COMMIT, FOLDER, GLOBALS, HEADER, PAYLOAD, RAW, Fails, failing, goes_on, state_of

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]
GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"


def slow(*, timeout_s: float | None = None, max_stopped_s: float | None = None) -> SaveOptions:
    """A save that takes a second or more."""
    return SaveOptions(format="lzop", level=9, threads=1, timeout_s=timeout_s, max_stopped_s=max_stopped_s)


@contextmanager
def prompt(at_least_s: float, within_s: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert at_least_s <= time.monotonic() - began < within_s


# A save


def test_the_guest_may_not_stand_still_for_that_long(fails: Fails) -> None:
    with prompt(0.3, 10):
        error = fails(TimeLimitError, slow(max_stopped_s=0.3))
    assert isinstance(error, TimeLimitError)
    assert error.limit_s == 0.3
    assert "the guest would stand still for longer than 0.3 s: it runs on, and nothing was saved" in str(error)


def test_a_paused_guest_stands_still_anyway(guest: RunningQemu, image: Path) -> None:
    with guest.qmp() as qmp:
        qmp.execute("stop")
    assert save(guest.monitor, image, SaveOptions(format="raw", then="resume", max_stopped_s=0.001)).stopped_s == 0
    with guest.qmp() as qmp:
        qmp.execute("cont")
    guest.wait_for_ticks(1, 10)


def test_a_limit_that_is_kept_changes_nothing(guest: RunningQemu, image: Path) -> None:
    report = save(guest.monitor, image, SaveOptions(format="raw", then="resume", timeout_s=30, max_stopped_s=20))
    assert report.stopped_s < 20
    assert read_info(image).header.complete


def test_the_whole_save_may_not_take_that_long(fails: Fails) -> None:
    error = fails(TimeLimitError, slow(timeout_s=0.5))
    assert str(error).startswith("not saved within 0.5 s: it was given up, and everything is as it was; ")


def test_a_limit_that_is_over_before_anything_began(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GLOBALS, "MigrationSettings", None)  # nothing is asked of it
    fails(TimeLimitError, SaveOptions(timeout_s=1e-6))


def test_more_memory_than_can_pass_in_time_is_not_even_stopped(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsave.operations.limits.FASTEST", 16 * MiB)
    monkeypatch.setitem(GLOBALS, "Guardian", None)
    error = fails(TimeLimitError, SaveOptions(max_stopped_s=0.5))
    assert "16.0 MiB of its memory cannot pass in the 0.5 s that are left" in str(error)


def test_given_up_as_soon_as_the_rest_cannot_pass_in_time(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if QEMU could not send more than 16 MiB in 1.9 s, and the disk took five: that is certain long before the limit."""
    monkeypatch.setattr("streamsave.operations.limits.FASTEST", 16 * MiB / 1.9)
    write = NewImage.write

    def write_slowly(file: NewImage, parts: Sequence[Buffer]) -> None:
        if file.size > MiB:
            time.sleep(1.5)
        write(file, parts)

    monkeypatch.setattr(NewImage, "write", write_slowly)
    seen: list[float] = []
    with prompt(0.5, 4):
        options = SaveOptions(format="raw", threads=1, max_stopped_s=2.0)
        error = fails(TimeLimitError, options, progress=lambda p: seen.append(p.fraction))
    assert "of its memory cannot pass in the " in str(error)
    assert all(fraction < 1 for fraction in seen)


@pytest.mark.parametrize("number", [PAYLOAD, COMMIT, HEADER], ids=["payload", "commit", "header"])
@pytest.mark.parametrize("how", ["cancelled", "stopped", "timeout"])
def test_a_disk_that_hangs_in_the_commit_keeps_nobody(
    how: str, number: int, guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late: until the image gets its name, the guest is freed while the disk still hangs."""
    before = state_of(guest)
    cancel, disk_is_back, hanging = Cancellation(), threading.Event(), threading.Event()
    fsync, count = os.fsync, iter(range(1, 100))
    freed: list[bool] = []
    went_on: list[bool] = []
    free_guest = GLOBALS["free_guest"]

    def hang(fd: int) -> None:
        if next(count) == number:
            hanging.set()
            if how == "cancelled":
                cancel.cancel("enough")
            went_on.append(disk_is_back.wait(10))
            time.sleep(0.3)  # it was in no hurry before
        fsync(fd)

    def free(*arguments: Any, **options: Any) -> None:
        free_guest(*arguments, **options)
        freed.append(hanging.is_set() and not disk_is_back.is_set())
        disk_is_back.set()

    monkeypatch.setattr(os, "fsync", hang)
    monkeypatch.setitem(GLOBALS, "free_guest", free)
    options = SaveOptions(
        format="raw", max_stopped_s=1.5 if how == "stopped" else None, timeout_s=4.0 if how == "timeout" else None
    )
    with pytest.raises(Aborted if how == "cancelled" else TimeLimitError):
        save(guest.monitor, image, options, cancel=cancel)
    assert (freed, went_on) == ([True], [True]), "the guest was freed while the disk hung"
    assert "streamsave-commit" not in [thread.name for thread in threading.enumerate()], "what is closed is written no more"
    assert list(image.parent.iterdir()) == []
    monkeypatch.undo()
    goes_on(guest, before)


@pytest.mark.parametrize("at", ["rename", "folder"])
@pytest.mark.parametrize("how", ["cancelled", "Ctrl-C"])
def test_too_late_once_the_image_gets_its_name(
    how: str, at: str, guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that may exist and a guest that runs on as if it did not must not come together."""
    cancel = Cancellation()
    fsync, rename, count = os.fsync, os.rename, iter(range(1, 100))

    def late() -> None:
        if how == "Ctrl-C":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            cancel.cancel("enough")
        time.sleep(0.3)

    def slow_fsync(fd: int) -> None:
        if next(count) == FOLDER and at == "folder":
            late()
        fsync(fd)

    def slow_rename(*arguments: Any) -> None:
        if at == "rename":
            late()
        rename(*arguments)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    monkeypatch.setattr(os, "rename", slow_rename)
    options = SaveOptions(format="raw", then="resume")
    if how == "Ctrl-C":
        with pytest.raises(KeyboardInterrupt):
            save(guest.monitor, image, options, cancel=cancel)
    else:
        save(guest.monitor, image, options, cancel=cancel)
    assert read_info(image).header.complete
    assert [each.name for each in image.parent.iterdir()] == [image.name]
    guest.wait_for_ticks(1, 10)


@pytest.mark.parametrize(("call", "what"), [(1, "the monitor"), (3, "the guardian")])
def test_no_descriptor_is_left(call: int, what: str, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is the event loop's own: it is tried before, for it would leave a mess behind."""
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    monkeypatch.setattr(socket, "socketpair", failing(socket.socketpair, call, error=error))
    assert f"no descriptor is left for {what} (Too many open files)" in str(fails(ResourceError))


@pytest.mark.parametrize(
    ("name", "what", "options"),
    [
        ("commit", "the commit", RAW),
        ("limit", "a time limit", SaveOptions(timeout_s=9)),
        ("limit", "a time limit", SaveOptions(max_stopped_s=9)),
    ],
)
def test_a_thread_that_cannot_start(
    name: str, what: str, options: SaveOptions, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == f"streamsave-{name}":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert f"cannot start a thread for {what} (can't start new thread)" in str(fails(ResourceError, options))


def test_a_qemu_that_stands_still_itself(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers nobody; when it goes on, the guardian frees its guest, however long that took."""
    second = tmp_path / "second"
    running = launch(demo_guest(16 * MiB), "-qmp", f"unix:{second},server=on,wait=off").boot()
    running.qmp().close()
    monkeypatch.setattr("streamsave.operations.giving_back.ANSWER_S", 0.5)
    monkeypatch.setattr("streamsave.guardian.parent.HAND_OVER_S", 0.2)
    guardians: list[Guardian] = []

    def guard(*arguments: Any, **options: Any) -> Guardian:
        guardians.append(Guardian(*arguments, **options))
        return guardians[0]

    monkeypatch.setitem(GLOBALS, "Guardian", guard)
    stalled: list[bool] = []

    def stall(_: object) -> None:
        if not stalled:
            os.kill(running.pid, signal.SIGSTOP)
            stalled.append(True)

    folder = tmp_path / "images"
    folder.mkdir()
    try:
        with prompt(0, 5), pytest.raises(TimeLimitError) as caught:
            save(running.monitor, folder / "guest.save", slow(max_stopped_s=0.7), progress=stall)
    finally:
        os.kill(running.pid, signal.SIGCONT)
    assert stalled
    (note,) = caught.value.__notes__
    assert note.startswith("the guest could not be brought back to its state before: QEMU at ")
    assert note.endswith("the guardian goes on trying")
    with Qmp(second) as qmp:
        until(lambda: qmp.status() == "running", what="the guest's running")
    running.wait_for_ticks(1, 10)
    running.qmp().close()
    assert guardians[0]._process.wait(5) == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("limited", [False, True])
def test_a_monitor_that_does_not_greet(limited: bool, image: Path) -> None:
    cancel = Cancellation()
    timer = threading.Timer(0.3, cancel.cancel, ["enough"])
    if not limited:
        timer.start()
    with FakeQmp(Talk.hold) as address, prompt(0.25, 2.9), pytest.raises(TimeLimitError if limited else Aborted):
        save(address, image, SaveOptions(timeout_s=0.3 if limited else None), cancel=cancel)
    if not limited:
        timer.join()


def test_a_monitor_whose_queue_is_full(image: Path) -> None:
    with FakeQmp(Talk.hold, backlog=0) as address:
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        try:
            for client in waiting:
                client.setblocking(False)
                try:
                    client.connect(address)
                except BlockingIOError:
                    break
            with prompt(0.25, 2.9), pytest.raises(TimeLimitError):
                save(address, image, SaveOptions(timeout_s=0.3))
        finally:
            for client in waiting:
                client.close()


def test_a_guardian_that_does_not_come_up(fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path.parent / f"{tmp_path.name}.slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(GLOBALS["_GuestSave"], "_stop", None)  # nobody comes that far
    with prompt(0.5, 5):
        fails(TimeLimitError, SaveOptions(timeout_s=1.0))


# A restore


@pytest.fixture
def saved(guest: RunningQemu, image: Path) -> Path:
    save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
    return image


def test_a_program_that_is_no_qemu(saved: Path) -> None:
    before = saved.read_bytes()
    with prompt(0.3, 2), pytest.raises(TimeLimitError, match=r"not restored within 0.3 s"):
        restore(saved, command=["sh", "-c", "exec sleep 60"], options=RestoreOptions(timeout_s=0.3))
    assert saved.read_bytes() == before


def test_a_qemu_that_does_not_read(saved: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = launch(demo_guest(16 * MiB), incoming=True)
    waiting.qmp().close()
    monkeypatch.setitem(restore.__globals__, "PUT_BACK_S", 0.2)
    write = SocketSink.write

    def stall_and_write(sink: SocketSink, parts: Sequence[Buffer]) -> None:
        os.kill(waiting.pid, signal.SIGSTOP)
        write(sink, parts)

    monkeypatch.setattr(SocketSink, "write", stall_and_write)
    try:
        with prompt(1.0, 4), pytest.raises(TimeLimitError):
            restore(saved, monitor=waiting.monitor, options=RestoreOptions(timeout_s=1.0))
    finally:
        os.kill(waiting.pid, signal.SIGCONT)
    assert waiting.wait() != 0, "it got no whole stream"


# Streams


def test_a_stream_that_does_not_come(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    image = tmp_path / "guest.save"
    try:
        with prompt(0.3, 2), pytest.raises(TimeLimitError, match=r"not saved within 0.3 s"):
            save_stream(reading, image, Metadata("<domain/>"), CompressOptions(timeout_s=0.3), was_running=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    try:
        with prompt(0.3, 2), pytest.raises(TimeLimitError, match=r"not restored within 0.3 s"):
            restore_stream(GOLDEN, writing, timeout_s=0.3)
    finally:
        os.close(reading)
        os.close(writing)


# The command line


def test_the_command_line(guest: RunningQemu, image: Path) -> None:
    before = state_of(guest)
    slow = ["--format", "lzop", "--level", "9", "--threads", "1", "--json"]
    result = streamsave("save", "--qmp", guest.monitor, image, *slow, "--max-stopped", "0.2")
    assert result.status == TimeLimitError.exit_status == 60
    assert result.error.startswith("the guest would stand still for longer than 0.2 s")
    assert result.event["class"] == "TimeLimitError"
    goes_on(guest, before)
    assert streamsave("save", "--qmp", guest.monitor, image, *slow, "--timeout", "0.2").status == 60
    assert list(image.parent.iterdir()) == []
    goes_on(guest, before)
    result = streamsave("restore", GOLDEN, "--timeout", "0.4", "--", "sh", "-c", "exec sleep 60")
    assert (result.status, result.error) == (60, "not restored within 0.4 s; allow more time")


@pytest.mark.parametrize("error", [DestinationError("late"), None], ids=["fails", "succeeds"])
def test_the_first_end_counts(error: StreamsaveError | None) -> None:
    """A limit that runs out while an operation ends by itself changes nothing, and no clock is left."""
    cancel = Cancellation()
    seen: list[Exception] = []

    def operation() -> None:
        with cancel.limited(0.05, "too slow"), cancel.waking(seen.append):
            if error is not None:
                raise error

    if error is None:
        operation()
    else:
        with pytest.raises(DestinationError):
            operation()
    time.sleep(0.1)
    cancel.check()
    assert seen == []


def test_a_limit_wakes_what_waits() -> None:
    cancel, woken = Cancellation(), threading.Event()
    wake: Callable[[StreamsaveError], object] = lambda _error: woken.set()  # noqa: E731
    with cancel.limited(0.05, "too slow"), cancel.waking(wake):
        assert woken.wait(5)
    with pytest.raises(TimeLimitError, match="too slow"):
        cancel.check()
    cancel.cancel("too late to matter")
    with pytest.raises(TimeLimitError):
        cancel.check()
