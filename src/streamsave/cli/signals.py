"""Signals: the first one cancels the operation, later ones wait for it; once a guest runs under us, they are passed on.

A Python signal handler runs in the main thread whenever that comes by, possibly inside a lock that it would need itself.
So the handlers here do nothing. The interpreter writes each signal's number into a pipe (``signal.set_wakeup_fd``) the
moment it arrives, and a thread that reads the pipe does what is to be done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Final, Self

from ..cancel import Cancellation
from ..errors import Aborted, StreamsaveError
from ..resources import Thread, descriptors
from .output import complain

CANCELLING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORWARDED: Final = (*CANCELLING, signal.SIGQUIT)
"""Without us QEMU would get these itself. SIGQUIT only from then on: before, it is the way out if cancelling hangs."""

STOPPING: Final = (signal.SIGTSTP, signal.SIGTTOU)
"""Ctrl-Z, and writing to a terminal from the background where that is forbidden."""


class SignalRelay:
    """Inside ``with``, signals cancel ``cancellation``; after ``forward_to`` they go to whoever that names.

    For the main thread, where alone Python lets handlers be set. A signal that was ignored when we started (``nohup``, a
    job in the background of a script) stays ignored. A ``StreamsaveError`` that leaves the block after a signal becomes
    ``Aborted`` by that signal: a Ctrl-C also reaches a QEMU that we started, and its death may be seen first.
    """

    def __init__(self, cancellation: Cancellation, *, busy: str, stoppable: bool = True) -> None:
        """``busy``: what the answer to a second signal says we are doing, as in "still freeing the guest".

        Not ``stoppable``: Ctrl-Z is ignored, for a guest waits for us.
        """
        self._cancellation = cancellation
        self._busy = busy
        self._ignored = () if stoppable else STOPPING
        self._cancelled_by = 0
        self._forward: Callable[[int], None] | None = None
        self._lock = threading.Lock()
        self._old_handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._old_wakeup_fd = -1
        self._reader_fd = self._writer_fd = -1
        self._thread = Thread(self._run, "signals", "signals")

    def __enter__(self) -> Self:
        with descriptors("signals"):
            self._reader_fd, self._writer_fd = os.pipe()
        os.set_blocking(self._writer_fd, False)
        self._old_wakeup_fd = signal.set_wakeup_fd(self._writer_fd, warn_on_full_buffer=False)
        self._catch(CANCELLING)
        for signum in self._ignored:
            self._old_handlers[signum] = signal.signal(signum, signal.SIG_IGN)
        try:
            self._thread.start()  # not before: an interrupt until here would leave it behind
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._let_go()
        if self._cancelled_by and isinstance(error, StreamsaveError) and not isinstance(error, Aborted):
            aborted = Aborted(f"{_interrupted(self._cancelled_by)}: {error}", signum=self._cancelled_by)
            for note in getattr(error, "__notes__", ()):
                aborted.add_note(note)
            aborted.progress = error.progress
            raise aborted from error

    def _let_go(self) -> None:
        signal.set_wakeup_fd(self._old_wakeup_fd)
        os.close(self._writer_fd)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._reader_fd)
        for signum, handler in self._old_handlers.items():  # last: from here on Ctrl-C may raise again
            signal.signal(signum, handler)

    def forward_to(self, send: Callable[[int], None]) -> None:
        """From now on ``send`` gets the number of each signal, in a thread of ours. A signal that came before counts too."""
        self._catch(FORWARDED)
        with self._lock:
            self._forward = send
            missed = self._cancelled_by
            self._cancelled_by = 0
        if missed:
            self._send(send, missed)

    def _catch(self, signums: tuple[signal.Signals, ...]) -> None:
        for signum in signums:
            if signum not in self._old_handlers and signal.getsignal(signum) != signal.SIG_IGN:
                self._old_handlers[signum] = signal.signal(signum, lambda _signum, _frame: None)

    def _run(self) -> None:
        while signums := os.read(self._reader_fd, 64):
            for signum in signums:
                if signum in self._old_handlers:  # the pipe tells of every signal that has a Python handler
                    self._handle(signum)

    def _handle(self, signum: int) -> None:
        with self._lock:
            send = self._forward
            first = not self._cancelled_by
            if send is None and first:
                self._cancelled_by = signum
        if send is not None:
            self._send(send, signum)
        elif first:
            self._cancellation.cancel(_interrupted(signum), signum=signum)
        else:
            complain(f"{signal.Signals(signum).name} again: {self._busy}")

    @staticmethod
    def _send(send: Callable[[int], None], signum: int) -> None:
        with suppress(ProcessLookupError):  # it ended on its own
            send(signum)


def _interrupted(signum: int) -> str:
    return f"interrupted by {signal.Signals(signum).name}"
