"""What an operation did: its result. Sizes in bytes, durations in seconds, rates in MiB/s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import Level
from ..format.levels import LevelUse
from ..format.migration import StreamMap
from ..units import MiB

if TYPE_CHECKING:
    from ..qemu.process import QemuProcess

STREAM = "stream"
"""The stage in which a stream passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """An operation through which a whole stream passed, and succeeded."""

    path: Path
    """Of the image."""
    format: str
    image_size: int
    stream_size: int
    total_s: float
    stage_s: dict[str, float]
    """Seconds per stage, in order."""
    cpu_s: float
    """CPU seconds of the threads through which the stream passed, kernel included."""
    stream: StreamMap
    """What the migration stream holds."""

    @property
    def rate(self) -> float:
        """MiB of stream per second, while it streamed."""
        seconds = self.stage_s.get(STREAM, 0.0)
        return self.stream_size / MiB / seconds if seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport(StreamReport):
    """An image that was written."""

    level: Level
    """What was asked for, or the format's default."""
    levels: tuple[LevelUse, ...]
    """What was compressed at which level; empty for a format without levels."""
    threads: int
    """That compressed; in a conversion as many decompressed."""
    payload_size: int
    frame_count: int
    was_running: bool
    """What the image says of its guest."""
    oldest_libvirt: str
    """The first libvirt release that restores this format."""
    needs_xml: bool
    """Whether ``virsh restore`` needs ``--xml``: libvirt did not know this guest."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReport(WriteReport):
    """A save that succeeded."""

    then: str
    """What became of the guest: ``quit``, ``resume`` or ``pause``; empty where the caller drives QEMU."""
    stopped_s: float
    """How long the guest stood still because of us: from ``stop`` until it ran again, or until its image existed."""

    @property
    def ratio(self) -> float:
        """Stream bytes per payload byte."""
        return self.stream_size / self.payload_size if self.payload_size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport(WriteReport):
    """A conversion that succeeded."""

    source: Path
    source_format: str
    source_size: int
    """Of the payload that was read."""
    parallel: bool
    """Whether several threads could decode the source."""
    root: str
    """The digest of the stream in hexadecimal."""
    root_compared: bool
    """Whether the source's index had it too; False: the source has no index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport(StreamReport):
    """A restore that succeeded."""

    threads: int
    parallel: bool
    """Whether all frames were decoded in parallel; False: the payload is in one piece, one thread decoded it."""
    running: bool
    """Whether the guest runs now."""
    process: QemuProcess | None = None
    """The QEMU that was started here, the caller's from now on; None where one was given."""
    warnings: tuple[str, ...] = ()
