"""A QEMU that we start: the user's command, told to wait for a stream, with a monitor that only we can reach.

The monitor is one end of a socketpair that QEMU inherits: no path, no window for others, no clash with monitors of the
user's own. QEMU's stderr passes through us, for the last of it is the only reason that some versions give when they end.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from ..cancel import Cancellation
from ..errors import MonitorBusyError, MonitorError, ProcessError, UsageError
from ..printable import PrintableBytes
from ..resources import Thread, descriptors
from ..units import KiB
from .connect import await_greeting, hang_up
from .monitor import Monitor

CHARDEV: Final = "streamsave"
REFUSED: Final = {
    "incoming": "streamsave says where the stream comes from",
    "daemonize": "streamsave stays with the QEMU that it starts; put the whole command into the background instead",
    "loadvm": "the guest's state comes from the image",
    "preconfig": "it would wait for commands before there is a machine",
}
"""Options of a user's command that fight a restore."""
STDERR_SIZE: Final = 8 * KiB
START_S: Final = 60.0
TERMINATE_S: Final = 5.0


class QemuProcess:
    """A running QEMU in ``-incoming defer``, ours until ``wait()`` or ``terminate()``, which release everything.

    ``command`` is a QEMU command line as it would start the guest. It runs in ``working_directory`` (None: in ours), with
    our standard input and output, in our process group, as a program in the foreground does.
    ``monitor_socket`` is our end of its monitor, greeted on and not negotiated yet; ``open_monitor()`` takes it.
    ``cancel`` ends the start early. ``on_start`` gets a descriptor of the process (``pidfd_open``), which stays ours, as
    soon as there is one, in another thread.

    Raises:
        UsageError: an empty command, or an option in it that fights a restore.
        ResourceError: no thread can be started for it, or no descriptor is left.
        ProcessError: there is no such program, or it ended, or did not greet within ``start_s`` seconds. Nothing is left.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        working_directory: str | None = None,
        start_s: float = START_S,
        cancel: Cancellation | None = None,
        on_start: Callable[[int], object] = lambda _fd: None,
    ) -> None:
        check_command(command)
        self.command = tuple(command)
        self._cancel = cancel or Cancellation()
        self._deadline = time.monotonic() + start_s
        self._tail = bytearray()
        self._printable = PrintableBytes()  # QEMU repeats names out of a stream that it does not like
        self._on_start = on_start
        self._process: subprocess.Popen[bytes]
        with descriptors("QEMU's monitor"):
            self.monitor_socket, theirs = socket.socketpair()
        started: Future[subprocess.Popen[bytes]] = Future()
        # A KeyboardInterrupt in the midst of Popen would lose the child that it just made. In a thread none arrives.
        run = partial(self._run, theirs, working_directory, started)
        self._thread = Thread(run, "qemu-stderr", "QEMU's messages")
        try:
            self._thread.start()
        except BaseException:
            self.monitor_socket.close()
            theirs.close()
            raise
        try:
            self._process = started.result()
            with self._cancel.waking(lambda _error: hang_up(self.monitor_socket)):
                await_greeting(self.monitor_socket, "of the QEMU just started", self._deadline)
        except BaseException as error:
            self._abandon(started)
            self._cancel.check()
            if isinstance(error, OSError):
                raise ProcessError(_why_not(error, self.command, working_directory)) from error
            if isinstance(error, MonitorError):
                raise self._dead(error) from error
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def open_monitor(self) -> Monitor:
        """Speak QMP on ``monitor_socket``. Returns once the machine is built and answers. The monitor is the caller's.

        Raises:
            ProcessError: QEMU ended instead, because of a wrong option perhaps, or takes too long. Nothing is left of it.
            Aborted, TimeLimitError: the start was cancelled.
        """
        try:
            greeting_s = max(0.0, self._deadline - time.monotonic())
            return Monitor(self.monitor_socket, greeting_s=greeting_s, cancel=self._cancel)
        except BaseException as error:
            self.terminate()
            if isinstance(error, MonitorError):
                raise self._dead(error) from error
            raise

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end and return its exit status, negative for a signal; None if it still runs after ``timeout_s``.

        With its end everything that belongs to it is released.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._release()
        return status

    def send_signal(self, signum: int) -> None:
        """Pass a signal on; nothing happens if it has ended."""
        self._process.send_signal(signum)

    def terminate(self) -> int:
        """End it, by force after five seconds, and return its exit status. May be called twice."""
        _end(self._process)
        self._release()
        return self._process.returncode

    def stderr_tail(self) -> str:
        """The last 8 KiB that it wrote to its standard error; all of it once ``wait()`` or ``terminate()`` returned."""
        return self._tail.decode(errors="replace")

    def _run(self, theirs: socket.socket, directory: str | None, started: Future[subprocess.Popen[bytes]]) -> None:
        """The thread: start QEMU, then pass its stderr on until it ends."""
        try:
            with theirs:
                fd = theirs.fileno()
                command = [*self.command, *added_options(fd)]
                process = subprocess.Popen(command, cwd=directory, pass_fds=[fd], stderr=subprocess.PIPE, bufsize=0)
                exit_fd = _open_pidfd(process)  # now: once others know of it, they may reap it
            self._on_start(exit_fd)
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(process)
        assert process.stderr is not None
        with process.stderr as stderr:
            self._pass_on(stderr.fileno(), exit_fd)
        hang_up(self.monitor_socket)  # its helpers may hold the other end for longer

    def _pass_on(self, stderr_fd: int, exit_fd: int) -> None:
        """Until QEMU ended: its helpers may hold the pipe open for longer, and nobody is to wait for those."""
        try:
            os.set_blocking(stderr_fd, False)
            poll = select.poll()
            poll.register(stderr_fd, select.POLLIN)
            poll.register(exit_fd, select.POLLIN)
            ended = closed = False
            while not ended:
                ended = exit_fd in dict(poll.poll())
                if not closed and self._drain(stderr_fd):
                    closed = True
                    poll.unregister(stderr_fd)
        finally:
            os.close(exit_fd)

    def _drain(self, stderr_fd: int) -> bool:
        """Pass on what there is; return whether that was all there will ever be."""
        while True:
            try:
                data = os.read(stderr_fd, 4096)
            except BlockingIOError:
                return False
            if not data:
                return True
            self._tail += data
            del self._tail[:-STDERR_SIZE]
            try:
                os.write(2, self._printable.escape(data) if os.isatty(2) else data)
            except OSError:
                pass  # our own stderr is closed, or full: QEMU must not suffer from it

    def _abandon(self, started: Future[subprocess.Popen[bytes]]) -> None:
        """Leave nothing behind of a start that failed or was interrupted."""
        try:
            self._process = started.result()
        except BaseException:
            self.monitor_socket.close()
            self._thread.join()
        else:
            self.terminate()

    def _release(self) -> None:
        self._thread.join()
        self.monitor_socket.close()

    def _dead(self, error: MonitorError) -> ProcessError:
        """After ``terminate()``: what to say about a QEMU that did not come up."""
        said = self.stderr_tail().strip()
        status = self._process.returncode
        if isinstance(error, MonitorBusyError):
            how = "did not answer in time"
        elif status in (-signal.SIGTERM, -signal.SIGKILL):  # ours
            how = "closed its monitor but did not end (does a program in between close descriptors?)"
        else:
            how = f"ended with status {status}" if status >= 0 else f"was killed by signal {-status}"
        why = f"it says: {said}" if said else f"it says nothing; {error}"
        return ProcessError(f"{self.command[0]} {how} while it was started; {why}", stderr=self.stderr_tail())


def check_command(command: Sequence[str]) -> None:
    """Refuse a QEMU command that cannot be used for a restore.

    Raises:
        UsageError: it is empty, or has an option that fights the restore.
    """
    if not command:
        raise UsageError("the QEMU command is empty; give it as qemu-system-x86_64 ARGUMENTS...")
    for argument in command[1:]:
        name = _option(argument)
        if name in REFUSED:
            raise UsageError(f"{argument} cannot be used in a restore: {REFUSED[name]}; leave it out")


def added_options(fd: int) -> tuple[str, ...]:
    """What makes a QEMU command wait for a stream, with its monitor on the inherited descriptor ``fd``."""
    chardev = f"socket,id={CHARDEV},fd={fd}"
    return ("-S", "-incoming", "defer", "-chardev", chardev, "-mon", f"chardev={CHARDEV},mode=control")


def without_start_options(command: Sequence[str]) -> tuple[str, ...]:
    """``command`` without what only says how it was started: ours, and the options that ``check_command`` refuses.

    A guest that was restored once is saved with a command that restores it again.
    """
    ours = len(added_options(0))
    if len(command) > ours and command[-1] == added_options(0)[-1] and tuple(command[-ours:-4]) == added_options(0)[:-4]:
        command = command[:-ours]
    kept: list[str] = []
    arguments = iter(command)
    for argument in arguments:
        name = _option(argument)
        if name in ("incoming", "loadvm"):
            next(arguments, None)  # its value
        elif name not in REFUSED:
            kept.append(argument)
    return tuple(kept)


def _option(argument: str) -> str:
    """The name of the option that ``argument`` is, QEMU takes one dash or two; empty for others."""
    return argument.removeprefix("-").removeprefix("-") if argument.startswith("-") else ""


def _why_not(error: OSError, command: tuple[str, ...], directory: str | None) -> str:
    if directory is not None and error.filename == directory:
        return f"cannot start {command[0]} in {directory}: {error.strerror}; does that directory still exist?"
    if isinstance(error, FileNotFoundError):
        return f"there is no program {command[0]}; install QEMU, or give the path of its binary"
    if isinstance(error, PermissionError):
        return f"{command[0]} may not be executed; is it QEMU's binary?"
    return f"cannot start {command[0]}: {error}"


def _open_pidfd(process: subprocess.Popen[bytes]) -> int:
    """What tells of its end; without that it is ended at once."""
    try:
        return os.pidfd_open(process.pid)
    except BaseException:
        with process:
            process.kill()
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(TERMINATE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
