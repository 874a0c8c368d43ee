"""From one pipeline to the next: the sink of the first is the source of the second.

Nothing is kept on the way. Whoever writes waits until all of it was taken, so what is under way stays in the slots of the
two pipelines; each byte is copied once, from a slot of the first into a slot of the second. Both share the gate, which wakes
whoever waits here when either of them fails.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..types import Buffer
from .gate import Gate


class HandOver:
    """A ``Sink`` and a ``Source`` in one. One thread writes, one thread reads, another one tells the end."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._filled = gate.condition()
        self._emptied = gate.condition()
        self._parts: deque[memoryview] = deque()
        self._ended = False

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``; but ``GateClosed`` takes the place of its errors."""
        with self._gate.lock:
            self._gate.check()
            self._parts.extend(memoryview(part).cast("B") for part in parts if len(part))
            self._filled.notify()
            self._gate.wait(self._emptied, lambda: not self._parts)

    def end(self) -> None:
        """All is written: what is read from now on is the rest."""
        with self._gate.lock:
            self._ended = True
            self._filled.notify()

    def readinto(self, view: memoryview) -> int:
        """See ``Source``; but ``GateClosed`` takes the place of its errors."""
        have = 0
        while have < len(view):
            with self._gate.lock:
                self._gate.wait(self._filled, lambda: self._parts or self._ended)
                if not self._parts:
                    break
                part = self._parts[0]
            taken = part[: len(view) - have]
            view[have : have + len(taken)] = taken  # the lock is not held: other stages go on
            have += len(taken)
            with self._gate.lock:
                self._parts[0] = part[len(taken) :]
                if not self._parts[0]:
                    self._parts.popleft()
                    if not self._parts:
                        self._emptied.notify()
        return have

    def abort(self) -> None:
        """Both sides wait at the gate, which has woken them."""

    def close(self) -> None:
        """There is nothing to give back."""
