"""A cancel handle: any thread says stop, and whatever the operation waits for is woken at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import Aborted


class Cancellation:
    """Given to ``save`` or ``restore``, cancels them from another thread. One handle, one operation.

    Not to be called from a signal handler (it takes a lock that the interrupted thread may hold): let the handler wake a
    thread that calls it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: Aborted | None = None
        self._wakers: list[Callable[[Aborted], None]] = []

    def cancel(self, message: str = "cancelled by the caller", *, signum: int = 0) -> None:
        """End the operation with ``Aborted(message)``. The first call counts. Does not wait for the end."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error = Aborted(message, signum=signum)
            wakers = list(self._wakers)
        for wake in wakers:
            wake(error)

    def check(self) -> None:
        """Raise ``Aborted`` if the handle was used."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def waking(self, wake: Callable[[Aborted], None]) -> Iterator[None]:
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
