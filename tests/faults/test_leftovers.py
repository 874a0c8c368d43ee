"""What is left when more dies than one process: found and removed by the next save, or let be where it is somebody's."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from streamsave.endpoints.file import NewImage
from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX, remove_leftovers, temporary_name
from streamsave.errors import MonitorLostError
from streamsave.format.header import MAGIC_COMPLETE, MAGIC_PARTIAL, OWN_MAGIC_PARTIAL
from streamsave.operations.save import save
from streamsave.options import SaveOptions
from streamsave.units import MiB

from ..kit.cli import Run, streamsave
from ..kit.missing import require_root
from ..kit.proxy import Proxy
from ..kit.qemu import RunningQemu
from ..kit.unfinished import without_nameless_files
from ..kit.waiting import until
from .test_kill import KILL_CLIENT, KILL_RESTORE, NAMED_CLIENT, Watched, watching

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(90)]


@pytest.fixture(scope="module")
def watched(qemu: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with ExitStack() as stack, watching(lambda *a: stack.enter_context(RunningQemu(*a)), tmp_path_factory.mktemp("w")) as it:
        yield it


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path / "images" / "guest.save"


def left(image: Path) -> list[Path]:
    return [each for each in image.parent.iterdir() if each.name.endswith(TEMPORARY_SUFFIX)]


def guardian_of(run: Run) -> int:
    return next(pid for pid in run.family() if pid != run.process.pid)


def put_settings_back(watched: Watched) -> None:
    watched.qmp.execute("migrate-set-parameters", max_bandwidth=128 * MiB)
    watched.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": False}])


# Double faults


@pytest.mark.parametrize("module", ["", NAMED_CLIENT])
def test_saver_and_guardian_are_killed(module: str, watched: Watched, image: Path) -> None:
    """The guest stays as it was left, for nobody is there to free it; the next save of it does all there is to do.

    A file is left only where there are none without names.
    """
    run = watched.save(image, module=module)
    os.kill(guardian_of(run), signal.SIGKILL)
    run.kill()
    until(lambda: not run.family(), what="the end of everything that was started")
    assert len(left(image)) == bool(module)
    until(lambda: watched.qmp.execute("query-migrate")["status"] in ("failed", "completed", "cancelled"))
    watched.qmp.execute("cont")
    put_settings_back(watched)
    result = streamsave("save", "--qmp", watched.qemu.monitor, image, "--then", "resume", "--quiet")
    assert (result.status, result.out) == (0, "")
    assert [each.name for each in image.parent.iterdir()] == [image.name]
    image.unlink()
    watched.as_before(image)


def test_a_leftover_is_known_while_its_guardian_lives(watched: Watched, image: Path) -> None:
    """The saver is gone, its guardian stands still: the file is somebody's, and stays."""
    run = watched.save(image, module=NAMED_CLIENT)
    guardian = guardian_of(run)
    os.kill(guardian, signal.SIGSTOP)
    run.kill()
    (file,) = left(image)
    remove_leftovers(image)
    assert left(image) == [file]
    os.kill(guardian, signal.SIGCONT)
    watched.runs_again(run)
    watched.as_before(image)


def test_two_saves_to_one_path_at_a_time(watched: Watched, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's tidying leaves the first one's file alone."""
    without_nameless_files(monkeypatch)
    run = watched.save(image, "--then", "resume", module=NAMED_CLIENT)
    with NewImage(image, b"head"):
        assert len(left(image)) == 2
    assert len(left(image)) == 1, "the first save's"
    assert run.finish().status == 0
    assert [each.name for each in image.parent.iterdir()] == [image.name]
    image.unlink()
    watched.qemu.wait_for_ticks(1, 10)


def test_killed_before_the_guardian_is_ready(watched: Watched, image: Path) -> None:
    run = Run([watched.qemu.monitor, image, "quit", "begun"], module=KILL_CLIENT)
    assert run.finish().status == -signal.SIGKILL
    assert watched.runs_again(run) < 2
    watched.as_before(image)


# What is a leftover


@pytest.mark.parametrize("magic", [MAGIC_PARTIAL, OWN_MAGIC_PARTIAL, b""])
def test_what_is_removed(magic: bytes, image: Path) -> None:
    temporary_name(image).write_bytes(magic and magic + bytes(100))
    assert len(left(image)) == 1
    with NewImage(image, b"head"):
        assert left(image) == []


def test_what_is_not(image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    complete = temporary_name(image)
    complete.write_bytes(MAGIC_COMPLETE + bytes(100))
    other = temporary_name(image.with_name("other.save"))
    other.write_bytes(MAGIC_PARTIAL)
    foreign = temporary_name(image)
    foreign.write_bytes(b"somebody else's very own data")
    similar = image.with_name(f".{image.name}.0123{TEMPORARY_SUFFIX}")
    similar.write_bytes(MAGIC_PARTIAL)
    target = tmp_path / "target"
    target.write_bytes(MAGIC_PARTIAL)
    link = temporary_name(image)
    link.symlink_to(target)
    folder = temporary_name(image)
    folder.mkdir()
    fifo = temporary_name(image)
    os.mkfifo(fifo)
    before = set(image.parent.iterdir())
    with caplog.at_level(logging.WARNING, "streamsave"):
        remove_leftovers(image)
    assert set(image.parent.iterdir()) == before
    assert target.exists()
    assert f"{complete}: an image that never got its name" in caplog.text


def test_what_another_user_left(image: Path) -> None:
    """Root does not tidy up for others: whoever made it may have a reason."""
    require_root("giving a file to somebody else")
    file = temporary_name(image)
    file.write_bytes(MAGIC_PARTIAL)
    os.chown(file, 65534, 65534)
    remove_leftovers(image)
    assert file.exists()
    os.chown(file, 0, 0)
    remove_leftovers(image)
    assert not file.exists()


def test_a_leftover_that_is_another_file_by_now(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the removal somebody else puts a file of their own there."""
    file = temporary_name(image)
    file.write_bytes(MAGIC_PARTIAL)
    flock = fcntl.flock

    def lock_and_replace(fd: int, how: int) -> None:
        flock(fd, how)
        file.unlink()
        file.write_bytes(b"somebody else's")

    monkeypatch.setattr(fcntl, "flock", lock_and_replace)
    remove_leftovers(image)
    assert file.read_bytes() == b"somebody else's"


def test_a_lock_of_another_process(image: Path) -> None:
    file = temporary_name(image)
    file.write_bytes(MAGIC_PARTIAL)
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_leftovers(image)
        assert file.exists()
        process.kill()
    remove_leftovers(image)
    assert not file.exists()


def test_a_file_system_without_locks(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing tells whose a file is: all stay, and saving works."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    file = temporary_name(image)
    file.write_bytes(MAGIC_PARTIAL)
    with NewImage(image, b"head") as new:
        new.commit(b"HEAD", b"head")
    assert file.exists()
    assert image.read_bytes() == b"HEAD"


def test_somebody_tidies_up_in_the_moment_of_creation(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its creation and its lock a file is nobody's; who lost it makes another one."""
    without_nameless_files(monkeypatch)
    flock = fcntl.flock
    lost: list[Path] = []

    def tidy_and_lock(fd: int, how: int) -> None:
        if not lost:
            lost.extend(left(image))
            lost[0].unlink()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", tidy_and_lock)
    with NewImage(image, b"head") as new:
        assert [new.temporary] == left(image) == lost
        assert new.temporary.read_bytes() == b"head"


# The monitor's connection


def test_a_connection_that_breaks_frees_the_guest_at_once(
    watched: Watched, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the stream has ended: here that takes a minute."""
    write = NewImage.write
    flowing = threading.Event()

    def write_slowly(file: NewImage, parts: object) -> None:
        if file.size > MiB:
            flowing.set()
            time.sleep(5)
        write(file, parts)  # type: ignore[arg-type]

    monkeypatch.setattr(NewImage, "write", write_slowly)
    proxy = Proxy(tmp_path / "proxy", watched.qemu.monitor)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            save(tmp_path / "proxy", image, SaveOptions(format="raw", threads=1, transport="unix"))
        except MonitorLostError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert flowing.wait(20)
        proxy.cut()
        assert until(lambda: watched.qmp.status() == "running", timeout_s=20) < 5
    finally:
        thread.join()
        proxy.close()
    assert len(errors) == 1
    assert not any("could not be brought back" in note for note in getattr(errors[0], "__notes__", ()))
    watched.as_before(image)


# Somebody else's migration


def test_kill_9_while_somebody_else_migrates(watched: Watched, image: Path) -> None:
    """The guardian undoes what the save did; a migration of somebody else is none of it."""
    run = Run([watched.qemu.monitor, image, "quit", "refused"], module=KILL_CLIENT)
    assert run.finish().status == -signal.SIGKILL
    until(lambda: not run.family(), what="the guardian's end")
    try:
        assert watched.qmp.execute("query-migrate")["status"] in ("setup", "active")
        assert watched.qmp.status() == "running", "the stop was the save's own"
    finally:
        until(lambda: watched.qmp.execute("query-migrate")["status"] == "failed", what="the end of the other migration")
    put_settings_back(watched)  # QEMU takes none while it migrates
    watched.as_before(image)


# A restore


@pytest.mark.parametrize("point", ["started", "mid stream"])
def test_kill_9_of_a_restore_ends_its_qemu(point: str, watched: Watched, image: Path) -> None:
    save(watched.qemu.monitor, image, SaveOptions(format="raw", then="resume"))
    command = watched.qemu.command[: watched.qemu.command.index("-chardev")]
    run = Run([image, point, *command, "-serial", "null"], module=KILL_RESTORE)
    assert run.finish().status == -signal.SIGKILL
    assert until(lambda: not run.family(), timeout_s=10, what="the end of everything that was started") < 5
    image.unlink()


@pytest.mark.parametrize("point", ["let go", "restored"])
def test_kill_9_after_a_restore_leaves_its_guest(point: str, watched: Watched, image: Path) -> None:
    """From the moment on at which the guest may run."""
    save(watched.qemu.monitor, image, SaveOptions(format="raw", then="resume"))
    command = watched.qemu.command[: watched.qemu.command.index("-chardev")]
    run = Run([image, point, *command, "-serial", "null"], module=KILL_RESTORE)
    assert run.process.wait(20) == -signal.SIGKILL
    time.sleep(1.5)
    (qemu,) = run.family()
    os.kill(qemu, signal.SIGKILL)
    run.finish()
    image.unlink()
