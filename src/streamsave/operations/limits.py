"""How long a guest may stand still for its image.

The clock begins with ``stop`` and ends with the image's name. It is not waited for where the outcome is certain before: what
is left of the memory may be nothing but zeros, which pass quickly, but even they take some time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..cancel import Cancellation
from ..errors import TimeLimitError
from ..types import Progress
from ..units import GiB, format_size
from .reports import STREAM

FASTEST: Final = 64 * GiB
"""Bytes of guest memory in a second, faster than QEMU sends even zeros. Measured with 7.2: 24 GiB/s, 8 GiB never touched."""


class StoppedLimit:
    """A guest with ``memory_size`` bytes is to stand still for ``limit_s`` seconds at most; None: as long as it takes."""

    def __init__(self, limit_s: float | None, memory_size: int) -> None:
        self._limit_s = limit_s
        self._memory_size = memory_size

    def check(self) -> None:
        """Before anything is touched: raise TimeLimitError if so much memory cannot pass in time, whatever is in it."""
        if self._limit_s is not None:
            self._check(self._memory_size, self._limit_s, self._limit_s)

    @contextmanager
    def counting(self, cancel: Cancellation) -> Iterator[None]:
        """The guest stands still inside: ends the operation once the limit is over."""
        with cancel.limited(self._limit_s, _too_long(self._limit_s or 0, "it runs on")):
            yield

    def look(self, progress: Progress) -> None:
        """Raise TimeLimitError as soon as the limit cannot be kept any more."""
        if self._limit_s is not None and progress.stage == STREAM and not progress.outcome:
            left_s = self._limit_s - progress.stopped_s
            if left_s > 0:  # else the clock is about to say so
                self._check(int((1 - progress.fraction) * self._memory_size), left_s, self._limit_s)

    def _check(self, memory_left: int, left_s: float, limit_s: float) -> None:
        if memory_left / FASTEST > left_s:
            why = f"{format_size(memory_left)} of its memory cannot pass in the {left_s:.2g} s that are left"
            raise TimeLimitError(_too_long(limit_s, why), limit_s=limit_s)


def _too_long(limit_s: float, why: str) -> str:
    return (
        f"the guest would stand still for longer than {limit_s:g} s: {why}, and nothing was saved; allow more, or choose a"
        " faster format, a lower level or a faster disk"
    )
