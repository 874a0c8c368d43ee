"""The one lock of a pipeline, and its two ways to end.

All stages of a pipeline wait under one lock, each on the condition of what it waits for, so that a change wakes only those
whom it concerns. ``fail()`` and ``close()`` wake everyone, whatever they wait for. Nothing polls, nothing waits with a time
limit to be woken. Two pipelines of which one feeds the other share a gate: they end together, by whichever error came first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class GateClosed(Exception):
    """The pipeline ends now: leave your loop. Never leaves the pipeline."""


class Gate:
    """A lock, the conditions that share it, and the first error."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.error: BaseException | None = None
        self._conditions: list[threading.Condition] = []
        self._closed = False
        self._wakers: list[Callable[[], None]] = []

    def on_fail(self, wake: Callable[[], None]) -> None:
        """Let ``wake`` run once, with the lock not held, in the thread that fails first: for those who wait elsewhere."""
        self._wakers.append(wake)

    def condition(self) -> threading.Condition:
        """A new reason to wait."""
        condition = threading.Condition(self.lock)
        self._conditions.append(condition)
        return condition

    def wait(self, condition: threading.Condition, ready: Callable[[], object]) -> None:
        """Wait, with the lock held, until ``ready()``.

        Raises:
            GateClosed: the pipeline ended, before or meanwhile.

        """
        while not self._closed and not ready():
            condition.wait()
        if self._closed:
            raise GateClosed

    def check(self) -> None:
        """Raise ``GateClosed`` if the pipeline ended. The lock is held."""
        if self._closed:
            raise GateClosed

    def fail(self, error: BaseException) -> None:
        """The first error wins and closes the gate; what comes after is attached to it as a note."""
        with self.lock:
            first = self.error is None and not self._closed
            if first:
                self.error = error
            elif self.error is not None and self.error is not error:
                self.error.add_note(f"afterwards: {type(error).__name__}: {error}")
            self._close()
        if first:
            for wake in self._wakers:
                wake()

    def close(self) -> None:
        """Drop what is under way and wake everyone."""
        with self.lock:
            self._close()

    def _close(self) -> None:
        self._closed = True
        for condition in self._conditions:
            condition.notify_all()
