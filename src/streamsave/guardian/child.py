"""The guardian itself: a process of its own, which acts when the one that it watches is gone. Imports next to nothing."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CommandError, MonitorLostError, ResourceError, StreamsaveError
from ..qemu.recovery import carry_out, free_guest
from ..resources import Thread
from .plan import COMMITTED, DISARM, LAST_CALLS_S, MIGRATING, NOT_MIGRATING, READY, STOPPING, GuardianPlan

FD_SIZE = 4
LOOK_S = 0.5
"""How often to look whether the parent was killed and cannot die."""
SECTOR_SIZE = 512
"""The header is in the first one."""
DISK_S = 3.0
"""How long the disk may take to say whether the image exists and to make it durable; the guest must not wait for more."""
PATIENCE_S = 60.0


def main(arguments: list[str]) -> int:
    """The child's life: get the plan, be ready, wait, and act only if nobody disarmed it. Returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    control_fd, monitor_fd, watch_fd, image_fd = map(int, arguments)
    control = socket.socket(fileno=control_fd)
    briefing = control.makefile("rb").readline()
    if not briefing.endswith(b"\n"):
        return 1
    plan = GuardianPlan(**json.loads(briefing))
    image = _Image(plan, image_fd)
    control.sendall(READY)
    parent = os.getppid()
    said = _Said()
    if not _orphaned(control, watch_fd, parent, said):
        return 0
    if said.process_fd >= 0:
        _kill(said.process_fd)
    if _act(plan, image, said, monitor_fd):
        image.tidy_up()
    else:
        if _is_dying(parent):
            _wait_readable(watch_fd)  # what it still has under way on the disk may be a rename
        image.take_back()
    return 0


@dataclass(slots=True)
class _Said:
    """What the parent said so far."""

    disarmed: bool = False
    stopped: bool = False
    migrating: bool = False
    committed: bool = False
    process_fd: int = -1
    """Of a process that ends with the parent."""

    def take(self, data: bytes) -> None:
        """``data``: any number of its messages."""
        for message in (data[at : at + 1] for at in range(len(data))):
            self.disarmed = self.disarmed or message == DISARM
            self.committed = self.committed or message == COMMITTED
            self.stopped = self.stopped or message == STOPPING
            self.migrating = (self.migrating or message == MIGRATING) and message != NOT_MIGRATING


def _orphaned(control: socket.socket, watch_fd: int, parent: int, said: _Said) -> bool:
    """Wait for the end of the parent (True), or until it disarms us (False)."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(watch_fd, select.POLLIN)
    while True:
        ready = dict(poll.poll(LOOK_S * 1000))
        hung_up = _hear(control, said)
        if said.disarmed:
            return False
        if hung_up or watch_fd in ready:  # a child of the parent's may hold the other end for longer
            _wait_readable(watch_fd, LAST_CALLS_S)
            return True
        if not ready and _is_dying(parent):
            return True


def _hear(control: socket.socket, said: _Said) -> bool:
    """Take what the parent said meanwhile; returns whether it hung up."""
    try:
        while True:
            # socket.recv_fds takes flags and ignores them, until 3.12 at least: it would block
            data, passed, _, _ = control.recvmsg(64, socket.CMSG_SPACE(FD_SIZE), socket.MSG_DONTWAIT)
            said.take(data)
            for _level, _kind, fds in passed:
                said.process_fd = int.from_bytes(fds[:FD_SIZE], sys.byteorder)
            if not data:
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def _kill(process_fd: int) -> None:
    try:
        signal.pidfd_send_signal(process_fd, signal.SIGKILL)
    except OSError:
        pass  # it has ended


def _wait_readable(fd: int, timeout_s: float | None = None) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(None if timeout_s is None else timeout_s * 1000)


def _is_dying(pid: int) -> bool:
    """Whether ``pid`` was killed, or its main thread ended, but a thread of it hangs in the kernel."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return _tells_of_death(file.read())
    except OSError:
        return False


def _tells_of_death(status: str) -> bool:
    """``status`` as in proc_pid_status(5): pending signals are masks in which signal N is bit N - 1."""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    pending = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return bool(pending >> (signal.SIGKILL - 1) & 1) or fields["State"].startswith("Z")


def _act(plan: GuardianPlan, image: _Image, said: _Said, monitor_fd: int) -> bool:
    """Bring the guest to one of the save's two endings; returns whether that is the one with an image."""
    committed = said.committed or image.is_committed_in_time()  # once it was said, no disk may say otherwise
    if monitor_fd < 0:
        return committed
    try:
        commander = _InheritedMonitor(monitor_fd)
        commander.execute("query-status")  # may take long: a QEMU that stands still itself frees nobody
        if committed:
            carry_out(commander, plan.then, was_running=plan.was_running, undo=plan.undo)
        else:
            free_guest(commander, was_running=said.stopped, migrating=said.migrating, undo=plan.undo, patience_s=PATIENCE_S)
    except StreamsaveError:
        pass  # QEMU is gone, or deaf; there is nobody to tell
    return committed


class _Image:
    """The image on its disk. The descriptor is held open: the file's inode number cannot go to another file meanwhile."""

    def __init__(self, plan: GuardianPlan, fd: int) -> None:
        self._plan = plan
        self._fd = fd
        self._asked: Thread | None = None

    def is_committed_in_time(self) -> bool:
        """``is_committed``, or False if the disk takes too long: then the guest comes first."""
        answers: list[bool] = []
        try:
            asked = Thread(lambda: answers.append(self.is_committed()), "asking", "the image", daemon=True)
            asked.start()
        except (ResourceError, MemoryError, RuntimeError):
            return self.is_committed()  # most disks answer
        self._asked = asked
        self._asked.join(DISK_S)
        return bool(answers and answers[0])

    def is_committed(self) -> bool:
        """Whether it exists, complete; if it does, it is durable then. Nobody can tell of a pipe."""
        try:
            if self._plan.kind == "piped" or not self._begins_as(self._plan.complete):
                return False
            if self._plan.kind == "file" and not self._is_at(self._plan.destination):
                return False
            if self._plan.kind == "in place":
                # Anew: an fsync that failed may have left it in memory alone, and the next one would say nothing of that.
                os.pwrite(self._fd, os.pread(self._fd, SECTOR_SIZE, 0), 0)
            os.fsync(self._fd)
            if self._plan.kind == "file":
                _sync_directory(self._plan.destination)
        except OSError:
            return False  # no image after all: the guest must not be ended for it
        return True

    def tidy_up(self) -> None:
        """There is one: what it changed places with goes."""
        if self._plan.kind == "file":
            try:
                os.unlink(self._plan.temporary)
            except OSError:
                pass  # it took the place of nothing, or that is gone

    def take_back(self) -> None:
        """See to it that there is none: the file goes, and what was written in place begins as a partial image."""
        if self._plan.kind == "file":
            self._remove_file()
        elif self._plan.kind == "in place":
            if self._asked:
                self._asked.join()  # what it still has to write would come after ours
            self._mark_partial()

    def _mark_partial(self) -> None:
        """Durably: a power failure may bring back a name of ours, but then no complete image is behind it."""
        try:
            if self._begins_as(self._plan.complete):
                os.pwrite(self._fd, self._plan.partial.encode(), 0)
                os.fsync(self._fd)
        except OSError:
            pass  # a disk that fails like this keeps no promise

    def _begins_as(self, magic: str) -> bool:
        return os.pread(self._fd, len(magic), 0) == magic.encode()

    def _remove_file(self) -> None:
        """What it changed places with has its name again then; where that fails both stay, for both are whole."""
        from ..endpoints.exchange import exchange

        temporary, destination = self._plan.temporary, self._plan.destination
        try:
            if os.path.lexists(temporary) and self._is_at(destination):
                exchange(temporary, destination)
                _sync_directory(destination)
        except FileNotFoundError:
            pass  # there is no image, or it took the place of nothing
        except OSError:
            return
        self._mark_partial()
        for path in (temporary, destination):
            self._remove(path)

    def _is_at(self, path: str) -> bool:
        return os.path.samestat(os.lstat(path), os.fstat(self._fd))

    def _remove(self, path: str) -> None:
        try:
            if self._is_at(path):
                os.unlink(path)
        except OSError:
            pass


class _InheritedMonitor:
    """QMP on a connection in which another process was interrupted, at any byte of either direction."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._count = 0
        self._lines = self._read_lines()
        self._send(b"\xff\n")  # no JSON has it: QEMU forgets what it has of a command, with an error that we ignore

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float | None = None) -> Any:
        """See ``Commander``; without an answer in time the monitor counts as lost. None: for as long as QEMU lives."""
        self._socket.settimeout(timeout_s)
        self._count += 1
        own_id = f"streamsave-guardian-{self._count}"
        self._send(json.dumps({"execute": command, "arguments": arguments or {}, "id": own_id}).encode() + b"\n")
        for line in self._lines:
            try:
                answer = json.loads(line)
            except ValueError:
                continue  # the rest of a line that our parent began to read
            if isinstance(answer, dict) and answer.get("id") == own_id:
                if "error" in answer:
                    raise CommandError(f"QEMU refused {command}: {answer['error'].get('desc')}", command=command)
                return answer["return"]
        raise MonitorLostError(f"QEMU ended during {command}")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise MonitorLostError(f"the monitor cannot be written: {error}") from error

    def _read_lines(self) -> Iterator[bytes]:
        buffer = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise MonitorLostError(f"the monitor cannot be read: {error}") from error
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            yield from lines


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
