"""What an operation did: the results of ``save`` and ``restore``. Sizes in bytes, durations in seconds, rates in MiB/s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..format.migration import StreamMap
from ..units import MiB

if TYPE_CHECKING:
    from ..qemu.process import QemuProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReport:
    """A save that succeeded."""

    path: Path
    format: str
    level: int
    threads: int
    image_size: int
    payload_size: int
    stream_size: int
    frame_count: int
    was_running: bool
    then: str
    """What became of the guest: ``quit``, ``resume`` or ``pause``; empty where the caller drives QEMU."""
    total_s: float
    stopped_s: float
    """How long the guest stood still because of us: from ``stop`` until it ran again, or until its image existed."""
    stage_s: dict[str, float]
    """Seconds per stage, in order."""
    cpu_s: float
    """CPU seconds of the pipeline's threads, kernel included."""
    stream: StreamMap
    """What the migration stream holds."""
    oldest_libvirt: str
    """The first libvirt release that restores this format."""
    needs_xml: bool
    """Whether ``virsh restore`` needs ``--xml``: libvirt did not know this guest."""
    warnings: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Stream bytes per payload byte."""
        return self.stream_size / self.payload_size if self.payload_size else 0.0

    @property
    def rate(self) -> float:
        """MiB of stream per second, while it streamed."""
        return rate_of(self.stream_size, self.stage_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """A restore that succeeded."""

    path: Path
    format: str
    threads: int
    parallel: bool
    """Whether all frames were decoded in parallel; False: the payload is in one piece, one thread decoded it."""
    image_size: int
    stream_size: int
    running: bool
    """Whether the guest runs now."""
    total_s: float
    stage_s: dict[str, float]
    cpu_s: float
    stream: StreamMap
    process: QemuProcess | None = None
    """The QEMU that was started here, the caller's from now on; None where one was given."""
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """MiB of stream per second, while it streamed."""
        return rate_of(self.stream_size, self.stage_s)


STREAM = "stream"


def rate_of(size: int, stage_s: dict[str, float]) -> float:
    """MiB of ``size`` per second of the stage in which a stream passed."""
    seconds = stage_s.get(STREAM, 0.0)
    return size / MiB / seconds if seconds else 0.0
