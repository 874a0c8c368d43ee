"""The monitor: a QMP connection with a synchronous face that any thread may use.

The protocol is spoken in an event loop (``conversation``), the loop runs in a thread of its own, and nothing of either
shows: callers may have an event loop of their own, or none. Every call waits on a future that one of four settles: the
answer, the end of the connection, ``interrupt()``, or the call's own time limit. The thread ends with the connection or with
``close()``, and with it every task, future and descriptor.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..cancel import Cancellation
from ..errors import (
    MonitorBusyError,
    MonitorConnectError,
    MonitorError,
    MonitorLostError,
    ResourceError,
    with_notes_of,
)
from ..resources import Thread, is_lack_of_memory
from .connect import await_greeting, check_loop_opens, hang_up, open_socket, peer_pid
from .conversation import Conversation, Event, logger
from .outcomes import pass_on, settle

if TYPE_CHECKING:
    import asyncio

LEAST_NEGOTIATION_S = 1.0


class Monitor:
    """A connection to QEMU's monitor, a context manager. Until closed it holds the monitor, which serves one client only.

    ``address`` is the path of a QMP socket, or a connected socket that is the monitor's from now on. ``greeting_s`` bounds
    how long the monitor may take to greet; ``cancel`` ends the wait for it early, and nothing after it.
    ``peer_pid`` is the process that listens at the other end (normally QEMU), None where the kernel cannot tell.

    Raises:
        MonitorConnectError: nothing answers there, or something that is not QMP.
        MonitorBusyError: it accepts the connection but says nothing: another client holds it.
        ResourceError: no thread can be started for it, or no descriptor or no memory is left.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.
    """

    def __init__(
        self, address: str | Path | socket.socket, *, greeting_s: float = 3.0, cancel: Cancellation | None = None
    ) -> None:
        deadline = time.monotonic() + greeting_s
        cancel = cancel or Cancellation()
        self.address = _name_of(address) if isinstance(address, socket.socket) else str(address)
        self._lock = threading.Lock()
        self._fd_lock = threading.Lock()
        self._waiting: dict[Future[Any], str] = {}
        self._over = False
        self._closed = False
        self._protected = 0
        self._minders: list[Callable[[MonitorLostError], object]] = []
        self._broke_by: BaseException | None = None
        """What went wrong in the thread, once that has ended."""
        self._conversation: Conversation  # these belong to the loop
        self._loop: asyncio.AbstractEventLoop
        self._session_task: asyncio.Task[Any] | None = None
        self._socket = address if isinstance(address, socket.socket) else open_socket(self.address, deadline, cancel)
        try:
            with cancel.waking(lambda _error: hang_up(self._socket)):
                self._connect(deadline)
        except MonitorError:
            cancel.check()  # it was us who hung up
            raise

    def _connect(self, deadline: float) -> None:
        """Greeting, thread, negotiation."""
        try:
            await_greeting(self._socket, self.address, deadline)
            self.peer_pid = peer_pid(self._socket)
        except BaseException:
            self._socket.close()
            raise
        connected: Future[None] = Future()
        self._thread = Thread(partial(self._serve, connected), "qmp", "the monitor")
        try:
            check_loop_opens()
            self._thread.start()
        except BaseException:
            self._socket.close()
            raise
        try:
            self._await_connected(connected, max(deadline - time.monotonic(), LEAST_NEGOTIATION_S))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises ResourceError instead of a MonitorLostError, if it was our own end that had no memory to go on."""
        self.close()
        if isinstance(error, MonitorLostError) and self._broke_by and is_lack_of_memory(self._broke_by):
            raise with_notes_of(error, self._starved()) from error

    # The calls, for any thread

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float | None = None) -> Any:
        """Run ``command`` with ``arguments``, by QEMU's own names, and return what QEMU returns.

        Raises:
            CommandError: QEMU refused it.
            MonitorLostError: the connection broke, before or during the call: whether QEMU carried it out is unknown.
            MonitorError: no answer within ``timeout_s`` seconds. QEMU may still carry it out.
            Whatever ``interrupt()`` was given.
        """
        given = dict(arguments) if arguments else None
        json.dumps(given)  # a TypeError belongs to the caller: in the loop it would end the connection
        began = time.monotonic()
        answered = False
        try:
            answer = self._wait(command, lambda: self._conversation.execute(command, given), timeout_s)
            answered = True
        finally:
            fields = {"monitor": self.address, "command": command, "answered": answered}
            logger.debug("%s: %s", self.address, command, extra=fields | {"seconds": time.monotonic() - began})
        return answer

    def send_fd(self, fd: int, name: str) -> None:
        """Give QEMU a copy of the descriptor ``fd``, under ``name`` (QMP's ``getfd``). ``fd`` stays the caller's.

        Raises:
            As ``execute``; also MonitorError where the connection cannot carry descriptors.
        """
        with self._fd_lock:  # QEMU drops a descriptor that it has not yet named when the next one arrives
            self._wait("getfd", lambda: self._conversation.send_fd(fd, name), None)

    def wait_event(self, ready: Callable[[Event], bool], *, timeout_s: float | None = None) -> Event | None:
        """Take the oldest event for which ``ready`` is true, arrived already or yet to come; None after ``timeout_s``.

        ``ready`` runs in the monitor's thread and must not call the monitor. Other events stay for other calls.

        Raises:
            MonitorLostError: the connection broke and none of the events that had arrived is meant.
            Whatever ``interrupt()`` was given, and what ``ready`` raises.
        """
        try:
            event: Event = self._wait("an event", lambda: self._conversation.next_event(ready), timeout_s)
        except _TimedOut:
            return None
        return event

    def interrupt(self, error: BaseException) -> None:
        """Make the calls that wait now raise ``error``, from any thread. Later calls work: the guest needs them."""
        with self._lock:
            if not self._protected:
                for outcome in self._waiting:
                    settle(outcome, error=error)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Inside, ``interrupt()`` has no effect: for giving the guest back, which nothing may cut short."""
        with self._lock:
            self._protected += 1
        try:
            yield
        finally:
            with self._lock:
                self._protected -= 1

    @contextmanager
    def minding_loss(self, act: Callable[[MonitorLostError], object]) -> Iterator[None]:
        """Inside, ``act`` is called as soon as the connection breaks, in the monitor's thread; at once if it has."""
        with self._lock:
            over = self._over
            self._minders.append(act)
        if over:
            act(self._lost("the migration"))
        try:
            yield
        finally:
            with self._lock:
                self._minders.remove(act)

    def fileno(self) -> int:
        """The connection's descriptor, which stays the monitor's: for the guardian.

        Raises:
            MonitorLostError: there is none any more.
        """
        fd = self._socket.fileno()
        if fd < 0:
            raise self._lost("fileno")
        return fd

    def close(self) -> None:
        """End the connection and the thread. Calls that wait raise MonitorLostError. May be called twice, by any thread."""
        with self._lock:
            self._closed = True
            if self._session_task is not None and not self._over:
                self._loop.call_soon_threadsafe(self._session_task.cancel)
        self._thread.join()

    # The caller's side of a call

    def _wait(self, what: str, start: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float | None) -> Any:
        """Run the coroutine that ``start`` makes in the loop, and wait for its outcome in the calling thread."""
        outcome: Future[Any] = Future()
        with self._lock:
            if self._over or self._closed:
                raise self._lost(what)
            self._waiting[outcome] = what
            self._loop.call_soon_threadsafe(self._spawn, outcome, start)
        try:
            return outcome.result(timeout_s)
        except TimeoutError:
            if outcome.cancel():
                raise _TimedOut(
                    f"QEMU at {self.address} did not answer {what} within {timeout_s:g} s; it is very busy, or hangs",
                    address=self.address,
                ) from None
            return outcome.result()  # it came at the very last moment; or is a TimeoutError of its own
        finally:
            outcome.cancel()  # a KeyboardInterrupt leaves it unsettled
            with self._lock:
                self._waiting.pop(outcome, None)

    def _await_connected(self, connected: Future[None], timeout_s: float) -> None:
        try:
            connected.result(timeout_s)
        except TimeoutError:
            raise MonitorBusyError(
                f"QEMU at {self.address} greets but does not answer: it is very busy, or hangs; try again later",
                address=self.address,
            ) from None
        except MemoryError as error:
            raise self._starved() from error
        except Exception as error:
            cause = error.__cause__ or error
            raise MonitorConnectError(
                f"QEMU at {self.address} greeted, then the conversation broke ({type(cause).__name__}: {cause});"
                " it is probably ending",
                address=self.address,
            ) from error

    def _lost(self, what: str) -> MonitorLostError:
        if self._closed:
            text = f"the monitor {self.address} was closed before or during {what}"
        else:
            text = f"the connection to QEMU at {self.address} broke before or during {what}: QEMU ended, or hung up"
        return MonitorLostError(text, address=self.address)

    def _starved(self) -> ResourceError:
        return ResourceError(
            f"there is not enough memory to talk to QEMU at {self.address}:"
            " raise the limit (ulimit -v, or the control group's)"
        )

    # The thread's side

    def _serve(self, connected: Future[None]) -> None:
        """The thread: one session, and whatever happens nobody waits after it."""
        try:
            import asyncio

            with asyncio.Runner() as runner:  # cancels what is left of the session's tasks
                runner.run(self._session(connected))
        except BaseException as error:  # asyncio or qemu.qmp cannot be imported, say
            settle(connected, error=error)
        finally:
            self._socket.close()
            with self._lock:
                self._over = True
                for outcome, what in self._waiting.items():
                    settle(outcome, error=self._lost(what))
                minders = list(self._minders)
            for act in minders:
                act(self._lost("the migration"))
            settle(connected, error=self._lost("the greeting"))

    async def _session(self, connected: Future[None]) -> None:
        """Connect, and stay as long as the connection does; ``close()`` cancels it."""
        import asyncio

        conversation = self._conversation = Conversation(self.address, self._lost)
        with self._lock:
            self._session_task = asyncio.current_task()
            self._loop = asyncio.get_running_loop()
            if self._closed:
                return
        try:
            await conversation.begin(self._socket)
            settle(connected)
            await conversation.ended()
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._broke_by = error
            settle(connected, error=error)
        with self._lock:
            self._over = True  # from here on the loop takes no more calls
        reason = await conversation.hang_up()
        self._broke_by = self._broke_by or reason

    def _spawn(self, outcome: Future[Any], start: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a call's coroutine, unless the caller left already."""
        if outcome.done():
            return
        task = self._loop.create_task(start())
        task.add_done_callback(lambda _task: pass_on(task, outcome))
        outcome.add_done_callback(lambda _outcome: self._drop(task))

    def _drop(self, task: asyncio.Task[Any]) -> None:
        """Nobody waits for ``task`` any more."""
        try:
            self._loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # the loop is closed, and the task with it


class _TimedOut(MonitorError):
    """No answer in time: MonitorError for everybody else."""


def _name_of(sock: socket.socket) -> str:
    """What to call a monitor that was handed over as a socket."""
    try:
        name = sock.getpeername()
    except OSError:
        name = ""
    return name if isinstance(name, str) and name else f"on descriptor {sock.fileno()}"
