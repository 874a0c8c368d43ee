"""A cancel handle: any thread says stop, and whatever the operation waits for is woken at once.

A time limit is the same, said by a clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import Aborted, StreamsaveError, TimeLimitError
from .resources import Thread

Waker = Callable[[StreamsaveError], object]
"""Ends what blocks, with that error. Called in the thread that cancels; must not block."""


class Cancellation:
    """Given to ``save`` or ``restore``, cancels them from another thread. One handle, one operation.

    Not to be called from a signal handler (it takes a lock that the interrupted thread may hold): let the handler wake a
    thread that calls it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: StreamsaveError | None = None
        self._wakers: list[Waker] = []

    def cancel(self, message: str = "cancelled by the caller", *, signum: int = 0) -> None:
        """End the operation with ``Aborted(message)``. The first call counts. Does not wait for the end."""
        self._end(Aborted(message, signum=signum))

    def check(self) -> None:
        """Raise what ended the operation: ``Aborted`` if the handle was used, ``TimeLimitError`` if a limit is over."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def waking(self, wake: Waker) -> Iterator[None]:
        """Inside, ``cancel()`` calls ``wake``, in the thread that cancels; at once if it was called before."""
        with self._lock:
            error = self._error
            self._wakers.append(wake)
        if error is not None:
            wake(error)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)

    @contextmanager
    def limited(self, limit_s: float | None, message: str) -> Iterator[None]:
        """Inside, the operation is ended with ``TimeLimitError(message)`` after ``limit_s`` seconds; None: never.

        Raises:
            ResourceError: no thread can be started for the clock.

        """
        if limit_s is None:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            if not over.wait(limit_s):
                self._end(TimeLimitError(message, limit_s=limit_s))

        clock = Thread(watch, "limit", "a time limit")
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()

    def _end(self, error: StreamsaveError) -> None:
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            wakers = list(self._wakers)
        for wake in wakers:
            wake(error)
