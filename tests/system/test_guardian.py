"""The guardian: whatever its parent dies of, and wherever, the guest runs again; and it never does anything else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamsave.errors import CommandError, MonitorLostError, ProcessError
from streamsave.format.header import MAGIC_COMPLETE, MAGIC_PARTIAL
from streamsave.guardian import child as module
from streamsave.guardian import parent
from streamsave.guardian.parent import Guardian
from streamsave.guardian.plan import GuardianPlan
from streamsave.qemu.monitor import Monitor

from ..kit.qemu import RunningQemu
from ..kit.qmp import Qmp
from ..kit.waiting import until
from .machines import FIRMWARE

CLIENT = Path(__file__).with_name("guardian_client.py")
SECOND_MONITOR = "second"


class Watched:
    """A guest, and a monitor of it that the client does not hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        second = folder / SECOND_MONITOR
        self.qemu = RunningQemu(FIRMWARE, "-qmp", f"unix:{second},server=on,wait=off")
        self.qemu.qmp().close()
        self.qmp = Qmp(second)
        self.settings = self._settings()

    def _settings(self) -> object:
        return self.qmp.execute("query-migrate-capabilities"), self.qmp.execute("query-migrate-parameters")

    def settings_are_back(self) -> bool:
        return self._settings() == self.settings

    def client(self, point: str, then: str = "quit") -> subprocess.Popen[str]:
        command = [sys.executable, str(CLIENT), str(self.qemu.monitor), str(self.folder), point, then]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)

    def close(self) -> None:
        self.qmp.close()
        self.qemu.close()


@pytest.fixture
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("g"))
    try:
        yield watched
    finally:
        watched.close()


def pid_line(client: subprocess.Popen[str]) -> int:
    assert client.stdout is not None
    return int(client.stdout.readline())


def kill(client: subprocess.Popen[str]) -> None:
    client.kill()
    client.wait(10)
    assert client.stdout is not None
    client.stdout.close()


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.qemu
@pytest.mark.parametrize(
    "point",
    ["not stopped", "stopped", "migrating", "half a command", "half a number", "completed", "taken back", "forked"],
)
def test_the_guest_runs_again_within_two_seconds(watched: Watched, point: str) -> None:
    client = watched.client(point)
    forked = pid_line(client) if point == "forked" else None
    guardian = pid_line(client)
    assert (watched.qmp.status() == "running") is (point == "not stopped")
    kill(client)
    try:
        assert until(lambda: watched.qmp.status() == "running", what=f"the guest's running after {point}") < 2
        until(lambda: is_gone(guardian), what="the guardian's end")
    finally:
        if forked is not None:
            os.kill(forked, signal.SIGKILL)
    assert watched.settings_are_back()
    assert not (watched.folder / "image.part").exists()
    assert not (watched.folder / "image").exists()
    assert watched.qemu.status() == "running", "the monitor is free for the next client"


@pytest.mark.qemu
@pytest.mark.parametrize("then", ["quit", "resume", "pause"])
def test_a_committed_image_is_kept_and_then_is_carried_out(watched: Watched, then: str) -> None:
    client = watched.client("committed", then)
    guardian = pid_line(client)
    assert watched.qmp.status() == "postmigrate"
    kill(client)
    if then == "quit":
        assert watched.qemu.wait(5) == 0
    elif then == "resume":
        assert until(lambda: watched.qmp.status() == "running") < 2
    until(lambda: is_gone(guardian), what="the guardian's end")
    if then == "pause":
        assert watched.qmp.status() == "postmigrate"
    if then != "quit":
        assert watched.settings_are_back()
    assert (watched.folder / "image").exists()


@pytest.mark.qemu
def test_files_of_others_are_left_alone(watched: Watched) -> None:
    (watched.folder / "image").write_text("an older image")
    client = watched.client("stopped")
    guardian = pid_line(client)
    (watched.folder / "image.part").unlink()
    (watched.folder / "image.part").write_text("somebody else's")
    kill(client)
    until(lambda: is_gone(guardian), what="the guardian's end")
    assert watched.qmp.status() == "running"
    assert (watched.folder / "image.part").read_text() == "somebody else's"
    assert (watched.folder / "image").read_text() == "an older image"


@pytest.mark.qemu
def test_a_parent_that_becomes_another_program(watched: Watched) -> None:
    client = watched.client("exec")
    guardian = pid_line(client)
    assert until(lambda: watched.qmp.status() == "running") < 3
    until(lambda: is_gone(guardian), what="the guardian's end")
    assert client.poll() is None
    kill(client)


@pytest.mark.qemu
def test_signals_to_the_process_group_do_not_reach_it(watched: Watched) -> None:
    client = watched.client("stopped")
    guardian = pid_line(client)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(guardian, number)
    time.sleep(0.2)
    assert not is_gone(guardian)
    os.killpg(client.pid, signal.SIGKILL)
    kill(client)
    assert until(lambda: watched.qmp.status() == "running") < 2
    until(lambda: is_gone(guardian), what="the guardian's end")


@pytest.mark.qemu
def test_qemu_dies_with_its_client(watched: Watched) -> None:
    client = watched.client("stopped")
    guardian = pid_line(client)
    watched.qemu.kill()
    kill(client)
    until(lambda: is_gone(guardian), what="the guardian's end")
    assert not (watched.folder / "image.part").exists()


# In our own process


@pytest.fixture
def plan(tmp_path: Path) -> GuardianPlan:
    temporary = tmp_path / "image.part"
    temporary.write_bytes(MAGIC_COMPLETE)
    return GuardianPlan(
        kind="file",
        temporary=str(temporary),
        destination=str(tmp_path / "image"),
        partial=MAGIC_PARTIAL.decode(),
        complete=MAGIC_COMPLETE.decode(),
        was_running=True,
        then="quit",
        undo=[],
    )


@pytest.fixture
def temporary_fd(plan: GuardianPlan) -> Iterator[int]:
    """Of the image, which has its temporary name."""
    fd = os.open(plan.temporary, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.mark.qemu
def test_disarmed_it_does_nothing(watched: Watched, plan: GuardianPlan, temporary_fd: int) -> None:
    with Monitor(watched.qemu.monitor) as monitor:
        monitor.execute("stop")
        guardian = Guardian(monitor.fileno(), temporary_fd, plan)
        assert not is_gone(guardian.pid)
        began = time.monotonic()
        guardian.disarm()
        assert time.monotonic() - began < parent.DISARM_S, "it went by itself"
        assert is_gone(guardian.pid)
        assert not guardian.alive
        guardian.disarm()
        assert monitor.execute("query-status")["status"] == "paused"
    assert Path(plan.temporary).exists()


@pytest.mark.qemu
def test_its_death_harms_nobody(watched: Watched, plan: GuardianPlan, temporary_fd: int) -> None:
    with Monitor(watched.qemu.monitor) as monitor, Guardian(monitor.fileno(), temporary_fd, plan) as guardian:
        os.kill(guardian.pid, signal.SIGKILL)
        until(lambda: not guardian.alive)
        assert monitor.execute("query-status")["status"] == "running"


@pytest.mark.qemu
def test_one_that_hangs_is_killed(
    watched: Watched, plan: GuardianPlan, temporary_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent, "DISARM_S", 0.2)
    with Monitor(watched.qemu.monitor) as monitor:
        guardian = Guardian(monitor.fileno(), temporary_fd, plan)
        os.kill(guardian.pid, signal.SIGSTOP)
        guardian.disarm()
        assert is_gone(guardian.pid)
        assert monitor.execute("query-status")["status"] == "running"


@pytest.mark.qemu
def test_it_inherits_what_it_needs_and_no_more(watched: Watched, plan: GuardianPlan, temporary_fd: int) -> None:
    read_fd, write_fd = os.pipe()
    os.set_inheritable(write_fd, True)
    try:
        with Monitor(watched.qemu.monitor) as monitor, Guardian(monitor.fileno(), temporary_fd, plan) as guardian:
            own = Path(f"/proc/{guardian.pid}/fd")
            held = sorted(os.readlink(own / name).split(":")[0] for name in os.listdir(own))
            assert held == sorted(["/dev/null"] * 3 + ["anon_inode", "socket", "socket", plan.temporary])
            assert os.getsid(guardian.pid) == guardian.pid
    finally:
        os.close(read_fd)
        os.close(write_fd)


@pytest.mark.qemu
def test_it_is_small_and_quickly_ready(watched: Watched, plan: GuardianPlan, temporary_fd: int) -> None:
    took = []
    with Monitor(watched.qemu.monitor) as monitor:
        for _ in range(5):
            began = time.perf_counter()
            with Guardian(monitor.fileno(), temporary_fd, plan) as guardian:
                took.append(time.perf_counter() - began)
                status = Path(f"/proc/{guardian.pid}/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    print(f"ready after {1000 * min(took):.0f} ms, {peak_kib} KiB at its peak")
    assert min(took) < 0.15
    assert peak_kib < 20 * 1024


@pytest.mark.parametrize("interpreter", ["/bin/false", "/does/not/exist", "/bin/cat", ""])
def test_it_does_not_start(plan: GuardianPlan, monkeypatch: pytest.MonkeyPatch, interpreter: str) -> None:
    monkeypatch.setattr(sys, "executable", interpreter)
    with socket.socket() as stand_in, pytest.raises(ProcessError, match=r"the guardian.*did not start"):
        Guardian(stand_in.fileno(), -1, plan)


def test_paths_with_any_bytes(tmp_path: Path) -> None:
    temporary = os.fsencode(tmp_path) + b"/\xff\xfe \"'\n\xc3\xa4"
    fd = os.open(temporary, os.O_CREAT | os.O_RDWR)
    plan = GuardianPlan(
        kind="file",
        temporary=os.fsdecode(temporary),
        destination=os.fsdecode(temporary) + "x",
        partial=MAGIC_PARTIAL.decode(),
        complete=MAGIC_COMPLETE.decode(),
        was_running=True,
        then="quit",
        undo=[],
    )
    try:
        with socket.socket() as stand_in, Guardian(stand_in.fileno(), fd, plan) as guardian:
            assert guardian.alive
    finally:
        os.close(fd)


# Its pieces


def test_the_inherited_monitor_reads_only_its_own_answers() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        monitor = module._InheritedMonitor(theirs.detach())
        ours.sendall(b'ing": true}, "id": "__qmp#00007"}\r\n')  # the rest of what the parent read half of
        ours.sendall(b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray \xff"}}\r\n')
        ours.sendall(b'{"event": "STOP"}\r\n{"return": {}, "id": "__qmp#00008"}\r\n"text"\r\n{"return": 5, "id": ')
        ours.sendall(b'"streamsave-guardian-1"}\r\n{"error": {"desc": "no"}, "id": "streamsave-guardian-2"}\r\n')
        assert monitor.execute("query-status") == 5
        with pytest.raises(CommandError, match="no"):
            monitor.execute("cont")
        sent = ours.recv(4096)
        assert sent.startswith(b"\xff\n")
        assert [json.loads(line)["execute"] for line in sent[2:].splitlines()] == ["query-status", "cont"]
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(MonitorLostError):
            monitor.execute("cont")
    with pytest.raises(MonitorLostError):
        monitor.execute("cont")
    monitor._socket.close()


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``_act`` did to a guest that is not there."""
    done: list[str] = []
    monkeypatch.setattr(module, "_InheritedMonitor", lambda fd: SimpleNamespace(execute=lambda command: None))
    monkeypatch.setattr(module, "carry_out", lambda *args, **kwargs: done.append("carried out"))
    monkeypatch.setattr(module, "free_guest", lambda *args, **kwargs: done.append("freed"))
    return done


@pytest.fixture
def image(plan: GuardianPlan) -> Iterator[module._Image]:
    """The image, which has its name."""
    os.rename(plan.temporary, plan.destination)
    fd = os.open(plan.destination, os.O_RDWR)
    yield module._Image(plan, fd)
    os.close(fd)


SAID = module._Said(stopped=True, migrating=True)


def test_a_complete_image_at_its_destination_is_committed(plan: GuardianPlan, image: module._Image, done: list[str]) -> None:
    assert module._act(plan, image, SAID, 0)
    assert done == ["carried out"]


def test_an_image_that_was_taken_back_is_not_committed(plan: GuardianPlan, image: module._Image, done: list[str]) -> None:
    Path(plan.destination).write_bytes(MAGIC_PARTIAL)
    assert not module._act(plan, image, SAID, 0)
    assert done == ["freed"]


def test_a_complete_image_without_its_name_is_not_committed(plan: GuardianPlan, temporary_fd: int, done: list[str]) -> None:
    assert not module._act(plan, module._Image(plan, temporary_fd), SAID, 0)
    assert done == ["freed"]


def test_an_image_that_cannot_be_made_durable_is_no_image(
    plan: GuardianPlan, image: module._Image, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    assert not module._act(plan, image, SAID, 0)
    assert done == ["freed"]


def test_an_fsync_that_hangs_does_not_keep_the_guest(
    plan: GuardianPlan, image: module._Image, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_is_back = threading.Event()
    monkeypatch.setattr(module, "DISK_S", 0.1)
    monkeypatch.setattr(os, "fsync", lambda fd: disk_is_back.wait(10))
    began = time.monotonic()
    assert not module._act(plan, image, SAID, 0)
    assert time.monotonic() - began < 5
    assert done == ["freed"]
    disk_is_back.set()


def test_what_is_ours_is_removed_under_both_names(plan: GuardianPlan, temporary_fd: int) -> None:
    os.link(plan.temporary, plan.destination)
    module._Image(plan, temporary_fd).take_back()
    assert not Path(plan.temporary).exists()
    assert not Path(plan.destination).exists()


def test_what_is_in_place_is_marked_and_stays(plan: GuardianPlan, temporary_fd: int, done: list[str]) -> None:
    """A device's node is not removed, whatever is on it."""
    in_place = replace(plan, kind="in place", destination=plan.temporary)
    image = module._Image(in_place, temporary_fd)
    assert module._act(in_place, image, SAID, 0)
    os.write(temporary_fd, MAGIC_PARTIAL)
    assert not module._act(in_place, image, SAID, 0)
    os.pwrite(temporary_fd, MAGIC_COMPLETE + b"more", 0)
    image.take_back()
    assert Path(plan.temporary).read_bytes() == MAGIC_PARTIAL + b"more"
    os.pwrite(temporary_fd, b"something else ..", 0)
    image.take_back()
    assert Path(plan.temporary).read_bytes().startswith(b"something else ..")
    assert done == ["carried out", "freed"]


def test_a_pipe_holds_no_image_and_is_left_alone(plan: GuardianPlan, done: list[str]) -> None:
    piped = replace(plan, kind="piped", destination=plan.temporary)
    image = module._Image(piped, -1)
    assert not module._act(piped, image, SAID, 0)
    image.take_back()
    assert Path(plan.temporary).exists()
    assert done == ["freed"]


def test_only_what_the_save_did_is_undone(plan: GuardianPlan, temporary_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(module, "_InheritedMonitor", lambda fd: SimpleNamespace(execute=lambda command: None))
    monkeypatch.setattr(module, "free_guest", lambda *args, **kwargs: asked.append(kwargs))
    for messages, stopped, migrating in (
        (b"", False, False),
        (b"s", True, False),
        (b"sm", True, True),
        (b"smn", True, False),
        (b"mnm", False, True),
    ):
        said = module._Said()
        said.take(messages)
        module._act(plan, module._Image(plan, temporary_fd), said, 0)
        assert (asked[-1]["was_running"], asked[-1]["migrating"]) == (stopped, migrating), messages


ALIVE = "Name:\tpython\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n"


@pytest.mark.parametrize(
    ("old", "new", "dying"),
    [
        ("State:\tS", "State:\tD", False),
        ("ShdPnd:\t0000000000000000", "ShdPnd:\t0000000000000100", True),
        ("SigPnd:\t0000000000000000", "SigPnd:\t0000000000000100", True),
        ("ShdPnd:\t0000000000000000", "ShdPnd:\tfffffffffffffeff", False),
        ("State:\tS (sleeping)", "State:\tZ (zombie)", True),
    ],
)
def test_a_death_that_cannot_happen_yet(old: str, new: str, dying: bool) -> None:
    assert module._tells_of_death(ALIVE.replace(old, new)) is dying


def test_the_living_are_not_dying() -> None:
    assert not module._is_dying(os.getpid())
    assert not module._is_dying(1 << 30)
