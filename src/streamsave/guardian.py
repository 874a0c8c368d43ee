"""The guardian: a small process that frees the guest when the process that saves it dies.

``save`` starts it before it stops the guest, and tells it to go when the guest is free again. If ``save`` dies in between,
by ``kill -9`` or by a crash, the guardian decides by the disk: the image is at its destination, then it exists and ``then``
is carried out; or it is not, then the guest runs on and the temporary file goes. It speaks on the monitor connection that it
inherited, which is free of the race for a new one. A ``restore`` has it end the QEMU that waits for the rest of a stream.

It wakes by the end of its parent, from two sides: the parent's end of a socketpair closes, and its process descriptor
becomes readable. Neither happens while a thread of the parent hangs in a disk, so it also looks for a SIGKILL that the
parent cannot die of yet. Its own death harms nobody. It does not survive the kill of a whole control group.

The child imports next to nothing, so that it is ready in a few hundredths of a second and takes little memory.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .cancel import Cancellation
from .errors import CommandError, MonitorLostError, ProcessError, StreamsaveError
from .qemu.recovery import Command, carry_out, free_guest

if TYPE_CHECKING:
    import subprocess

READY = b"ready\n"
DISARM, STOPPING, MIGRATING, NOT_MIGRATING, CHILD = b"d", b"s", b"m", b"n", b"c"
"""What the parent says: that it goes its way; and before it does so, that what it did to the guest is its own doing."""
FD_SIZE = 4
START_S = 10.0
DISARM_S = 3.0
HAND_OVER_S = 3.0
LAST_CALLS_S = 0.5
"""How long the parent may take to end after its descriptors closed: until then a rename may be under way."""
LOOK_S = 0.5
"""How often to look whether the parent was killed and cannot die."""
DISK_S = 3.0
"""How long the disk may take to say whether the image exists and to make it durable; the guest must not wait for more."""
PATIENCE_S = 60.0

_BOOTSTRAP = "import sys; sys.path.append(sys.argv[1]); from streamsave.guardian import main; sys.exit(main(sys.argv[2:]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardianPlan:
    """What the guardian has to know: where the image is before and after its commit, and what the guest is owed."""

    kind: str
    """Of the destination: a new ``file``, which has a temporary name first; written ``in place``; or ``piped``: none that
    could be looked at."""
    temporary: str = ""
    destination: str = ""
    partial: str = ""
    complete: str = ""
    """What a partial and a complete image begin with; ASCII, of one length."""
    was_running: bool = False
    then: str = "quit"
    undo: Sequence[Command] = ()
    """QMP commands that put QEMU's settings back."""


class Guardian:
    """A guardian on duty, in the process that it watches. A context manager; disarmed at its end.

    ``monitor_fd`` is an open QMP connection after its negotiation. The guardian has a copy until it ends, so the monitor is
    not free for others before. None: somebody else frees the guest (libvirt), and the guardian only sees to the unfinished
    image. ``image_fd`` is that, open for reading and writing, -1 for a pipe. Nothing else of ours is inherited; still, start
    it before the migration's socket exists: QEMU must see our death.
    ``cancel`` ends the start early.

    Raises:
        ProcessError: it did not come up. Nothing was touched.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.
    """

    def __init__(
        self, monitor_fd: int | None, image_fd: int, plan: GuardianPlan, *, cancel: Cancellation | None = None
    ) -> None:
        cancel = cancel or Cancellation()
        self._handed_over = False
        self._control, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs.fileno(), -1 if monitor_fd is None else monitor_fd, image_fd)
            try:
                with cancel.waking(lambda _error: self._stop_listening()):
                    self._brief(plan)
            except BaseException:
                self._process.kill()  # nothing is to be done yet
                self._process.wait()
                raise
        except BaseException as error:
            self._control.close()
            cancel.check()
            if not isinstance(error, OSError):
                raise
            raise ProcessError(
                f"the guardian, which frees the guest should this process be killed, did not start: {error};"
                f" is sys.executable ({sys.executable!r}) a Python interpreter?"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disarm()

    @property
    def alive(self) -> bool:
        """Whether it is on duty. A save goes on without it, but a ``kill -9`` then leaves the guest stopped."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, what: bytes) -> None:
        """Tell it, before it is so, that the guest stands still or migrates because of us: else it is not undone.

        Raises nothing: a guardian that is gone has nothing to undo.
        """
        try:
            self._control.sendall(what)
        except OSError:
            pass

    def end_with_us(self, process_fd: int) -> None:
        """Let the process with that descriptor (``pidfd_open``) end when we die, until ``let_live`` or ``disarm``.

        Raises nothing.
        """
        try:
            socket.send_fds(self._control, [CHILD], [process_fd])
        except OSError:
            pass

    def let_live(self) -> None:
        """From now on it does nothing when we die."""
        self.say(DISARM)

    def disarm(self) -> None:
        """Tell it to go, and wait until it is gone. Raises nothing; may be called twice."""
        import subprocess

        if self._handed_over:
            return
        self.say(DISARM)
        try:
            self._process.wait(DISARM_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()

    def hand_over(self) -> None:
        """Leave the rest to it, as if this process had died; waits a moment for its end. Close the monitor before.

        Raises nothing. ``disarm`` does nothing afterwards.
        """
        import subprocess

        self._control.close()
        self._handed_over = True
        try:
            self._process.wait(LAST_CALLS_S + HAND_OVER_S)
        except subprocess.TimeoutExpired:
            pass  # it goes on trying, and ends on its own

    def _stop_listening(self) -> None:
        """Wake whoever waits for its answer. On our side alone: it must not take this for our end."""
        try:
            self._control.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it is closed

    def _brief(self, plan: GuardianPlan) -> None:
        """Hand the plan over and wait until the guardian is ready for the worst."""
        absolute = asdict(plan) | {
            "temporary": os.path.abspath(plan.temporary),
            "destination": os.path.abspath(plan.destination),
        }
        self._control.settimeout(START_S)
        self._control.sendall(json.dumps(absolute).encode() + b"\n")
        if self._control.recv(len(READY), socket.MSG_WAITALL) != READY:
            raise ConnectionError(f"it hung up (exit status {self._process.poll()})")


def _start(control_fd: int, monitor_fd: int, image_fd: int) -> subprocess.Popen[bytes]:
    """Start the child: without the site module, whose path files cost time; our own directory is all it needs."""
    import subprocess

    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    interpreter = [sys.executable, "-I", "-S", "-X", f"utf8={sys.flags.utf8_mode}"]
    watch_fd = os.pidfd_open(os.getpid())
    fds = [control_fd, monitor_fd, watch_fd, image_fd]
    try:
        return subprocess.Popen(
            [*interpreter, "-c", _BOOTSTRAP, package_parent, *map(str, fds)],
            pass_fds=[fd for fd in fds if fd >= 0],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # signals to our process group do not reach it
        )
    finally:
        os.close(watch_fd)


# From here on: the child


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
    if not _act(plan, image, said, monitor_fd):
        image.take_back()
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
    process_fd: int = -1
    """Of a process that ends with the parent."""

    def take(self, data: bytes) -> None:
        """``data``: any number of its messages."""
        for message in (data[at : at + 1] for at in range(len(data))):
            self.disarmed = self.disarmed or message == DISARM
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
    committed = _in_time(image.is_committed)
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

    def is_committed(self) -> bool:
        """Whether it exists, complete; if it does, it is durable then. Nobody can tell of a pipe."""
        try:
            if self._plan.kind == "piped" or not self._begins_as(self._plan.complete):
                return False
            if self._plan.kind == "file" and not self._is_at(self._plan.destination):
                return False
            os.fsync(self._fd)
            if self._plan.kind == "file":
                _sync_directory(self._plan.destination)
        except OSError:
            return False  # no image after all: the guest must not be ended for it
        return True

    def take_back(self) -> None:
        """See to it that there is none: the file goes, and what was written in place begins as a partial image."""
        if self._plan.kind == "file":
            for path in (self._plan.temporary, self._plan.destination):
                self._remove(path)
        elif self._plan.kind == "in place":
            try:
                if self._begins_as(self._plan.complete):
                    os.pwrite(self._fd, self._plan.partial.encode(), 0)
                    os.fsync(self._fd)
            except OSError:
                pass  # a disk that fails like this keeps no promise

    def _begins_as(self, magic: str) -> bool:
        return os.pread(self._fd, len(magic), 0) == magic.encode()

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


def _in_time(ask: Callable[[], bool]) -> bool:
    """The answer of ``ask``, or False if the disk takes too long: then the guest comes first."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(DISK_S)
    return bool(answers and answers[0])


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
