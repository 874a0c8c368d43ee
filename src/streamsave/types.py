"""The values and protocols that the layers share: buffers, endpoints, progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap
"""Contiguous memory. Whoever is given one borrows it: no export may be kept after the call returns."""


class Source(Protocol):
    """Where bytes come from. One thread reads; any thread may abort."""

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` from its start; return the number of bytes, short only at the end of the input (0: nothing left).

        Raises:
            SourceError: the read failed. Also after ``abort()``, if it was blocked in this call.
        """

    def abort(self) -> None:
        """Wake a blocked ``readinto`` and make every later one fail. Never blocks, may be called twice."""

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""


class Sink(Protocol):
    """Where bytes go, in order. One thread writes; any thread may abort."""

    def write(self, parts: Sequence[Buffer]) -> None:
        """Write all of ``parts``, one after the other; they are the caller's again when this returns.

        Raises:
            DestinationError: the write failed. Also after ``abort()``, if it was blocked in this call.
        """

    def abort(self) -> None:
        """Wake a blocked ``write`` and make every later one fail. Never blocks, may be called twice."""

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""


class DurableSink(Sink, Protocol):
    """A sink whose bytes are to outlive us."""

    def flush(self) -> None:
        """Make durable what was written; the writer's last call.

        Raises:
            DestinationError: the system could not.
        """


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a running operation. Sizes in bytes, rates in MiB/s since the stage began."""

    stage: str
    bytes_in: int
    bytes_out: int
    total_estimate: int
    """Expected ``bytes_in`` at the end; 0 while unknown. It shrinks as zero pages show up."""
    fraction: float
    """How much of the work is done, 0 to 1: by guest RAM for a save, by image bytes for a restore."""
    elapsed_s: float
    rate_in: float
    rate_out: float


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called about ten times a second in the thread that runs the operation; what it raises cancels the operation.
That thread has the guest to free: a callback that blocks keeps the guest stopped, and ``cancel()`` waits for it too."""
