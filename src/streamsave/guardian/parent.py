"""A guardian from the side of the process that it watches."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..cancel import Cancellation
from ..errors import ProcessError
from ..resources import descriptors
from .plan import CHILD, DISARM, LAST_CALLS_S, READY, GuardianPlan

if TYPE_CHECKING:
    import subprocess

START_S = 10.0
DISARM_S = 3.0
HAND_OVER_S = 3.0

_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); from streamsave.guardian.child import main; sys.exit(main(sys.argv[2:]))"
)


class Guardian:
    """A guardian on duty, in the process that it watches. A context manager; disarmed at its end.

    ``monitor_fd`` is an open QMP connection after its negotiation. The guardian has a copy until it ends, so the monitor is
    not free for others before. None: somebody else frees the guest (libvirt), and the guardian only sees to the unfinished
    image. ``image_fd`` is that, open for reading and writing, -1 for a pipe. Nothing else of ours is inherited; still, start
    it before the migration's socket exists: QEMU must see our death.
    ``cancel`` ends the start early.

    Raises:
        ProcessError: it did not come up. Nothing was touched.
        ResourceError: no descriptor is left for it.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.
    """

    def __init__(
        self, monitor_fd: int | None, image_fd: int, plan: GuardianPlan, *, cancel: Cancellation | None = None
    ) -> None:
        cancel = cancel or Cancellation()
        self._handed_over = False
        with descriptors("the guardian"):
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

    package_parent = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
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
