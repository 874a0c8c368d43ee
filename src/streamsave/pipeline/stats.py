"""What a pipeline counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Bytes, frames, and where the time went. Each field has one writing thread at a time; any thread may read."""

    bytes_in: int = 0
    """Bytes that the reader has read, or has told the workers to read."""
    bytes_out: int = 0
    """Bytes that the writer has written."""
    frame_count: int = 0
    read_s: float = 0.0
    """Seconds in the source's calls that read, of all threads that read: waiting for QEMU or for the disk."""
    write_s: float = 0.0
    """Seconds in the sink's ``write``."""
    level: int | None = None
    """The level of the next chunk, where it changes; None: it does not."""
    cpu_s: float = 0.0
    """CPU seconds of all threads that ended, kernel included."""
    parallel: bool = True
    """False once a payload had to be decoded by one thread."""
