"""A call into libvirt that blocks until libvirt is done, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from ..cancel import Cancellation
from ..resources import Thread

END_S = 30.0
"""How long libvirt may take to put everything back when what it saves to, or restores from, has gone."""
WAKE_S = 0.2

T = TypeVar("T")


class Call:
    """Runs ``function`` in a thread. It cannot be interrupted: take away what it waits for, then ``wait`` for its end.

    ``on_failure`` runs in that thread if ``function`` raises. The thread is a daemon: a libvirt that never answers must not
    keep this process from ending.

    Raises:
        ResourceError: the thread cannot be started.
    """

    def __init__(self, function: Callable[[], object], on_failure: Callable[[], None] = lambda: None) -> None:
        self.error: Exception | None = None
        self._function = function
        self._on_failure = on_failure
        self._ended = threading.Event()
        Thread(self._run, "libvirt", "libvirt", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; whether it came."""
        return self._ended.wait(timeout_s)

    def leave(self) -> None:
        """Let ``wait`` return at once; the call goes on."""
        self._ended.set()

    def wait_waking(self, wake: Callable[[], None]) -> bool:
        """Wait for the end of a call whose pipes were taken away; whether it came within ``END_S``.

        ``wake`` is called meanwhile: the daemon may be on its way into one of them just then, and be held up for ever.
        """
        deadline = monotonic() + END_S
        while not self.wait(WAKE_S):
            wake()
            if monotonic() > deadline:
                return False
        return True

    def check(self) -> None:
        """Raise what the call has raised, if it has."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._function()
        except Exception as error:
            self.error = error
        finally:
            self._ended.set()
        if self.error is not None:
            self._on_failure()


def ask(question: Callable[[], T], cancel: Cancellation, late: Callable[[T], object] = lambda _answer: None) -> T:
    """The answer to ``question``, or what it raises; once ``cancel`` is used, what that raises, whatever libvirt does.

    ``late`` gets an answer that comes after that.
    """
    answers: list[T] = []
    lock = threading.Lock()
    left = False

    def run() -> None:
        answer = question()
        with lock:
            if not left:
                answers.append(answer)
                return
        late(answer)

    call = Call(run)
    with cancel.waking(lambda _error: call.leave()):
        call.wait()
    call.check()
    with lock:
        left = not answers
    if left:
        cancel.check()
    return answers[0]
