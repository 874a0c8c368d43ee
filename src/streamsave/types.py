"""The values and protocols that the layers share: buffers, endpoints, progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, TypeAlias, runtime_checkable

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


@runtime_checkable
class RandomSource(Source, Protocol):
    """A source of which any part can be had at any time, by any number of threads at once."""

    def readinto_at(self, view: memoryview, offset: int) -> int:
        """As ``readinto``, but from ``offset``, which counts from the start of the source; where that reads on stays.

        Raises:
            SourceError: as ``readinto``.
        """


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


class ImageFile(DurableSink, Protocol):
    """Where a new image goes; its head was written when this was made."""

    path: Path
    size: int
    """Bytes written so far, head included."""
    notes: list[str]
    """What became of wishes that are no reason to fail, for the report."""

    def commit(self, header: bytes, partial: bytes) -> None:
        """Make the image exist, with the complete ``header`` in place of the ``partial`` one. Durable when it returns.

        Raises:
            DestinationError: some step failed, and no image exists.
        """

    def remove_older(self) -> None:
        """After the commit: what this image changed places with goes; ``notes`` tell if it cannot. May be called twice."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove what was not committed, and close. A note on ``error`` says what could not be removed, and why."""


Outcome: TypeAlias = Literal["", "done", "failed"]
"""How an operation ended; empty while it runs."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at an operation, or its account at the end. Sizes in bytes, rates in MiB/s while the stream flowed."""

    stage: str
    bytes_in: int
    bytes_out: int
    total_estimate: int
    """Expected ``bytes_in`` at the end; 0 while unknown. It shrinks as zero pages show up."""
    fraction: float
    """How much of the work is done, 0 to 1: by guest RAM for a save, by image bytes for a restore."""
    elapsed_s: float
    """Seconds that the stream has flowed."""
    rate_in: float
    rate_out: float
    frame_count: int = 0
    level: int | None = None
    """The level of the moment, with level ``auto``; None: it does not change, or nothing is compressed."""
    read_s: float = 0.0
    """Seconds that reading took: waiting for QEMU in a save, for the disk in a restore, where each thread may read."""
    write_s: float = 0.0
    """Seconds that the writer waited for its output: for the disk in a save, for QEMU in a restore."""
    cpu_s: float = 0.0
    """CPU seconds of the threads that have ended, kernel included."""
    total_s: float = 0.0
    """Seconds since the operation began."""
    stopped_s: float = 0.0
    """Seconds that the guest has stood still because of a save."""
    stage_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage that is over, in order; after a failure also of the one that failed."""
    job: Mapping[str, int] = field(default_factory=dict)
    """What libvirt says of its own job while a domain is saved, by its names: ``memory_processed``, ``memory_remaining``
    and others, in bytes before compression, times in ms. Empty until it was asked, and where it does not tell."""
    outcome: Outcome = ""


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called about ten times a second while the stream flows, with each stage after that, and once at the end (``outcome``), in
the thread that runs the operation. What it raises cancels the operation, unless that is too late. That thread has the guest
to free: a callback that blocks keeps the guest stopped, and ``cancel()`` waits for it too."""
