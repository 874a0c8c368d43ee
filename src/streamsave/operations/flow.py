"""One pipeline from its start to its end, with the stream's scanner beside it, its course, and cancelling.

Shared by the operations: whatever the endpoints are, a stream is pumped the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .._native.scan import StreamScanner
from ..cancel import Cancellation
from ..pipeline.stages import Pipeline
from ..pipeline.stats import Stats
from ..types import Progress
from ..units import MiB
from .course import Course
from .reports import STREAM


def run(pipeline: Pipeline, look: Callable[[float], Progress], course: Course, cancel: Cancellation) -> None:
    """Start ``pipeline`` and wait until everything is written. ``look`` tells the progress after so many seconds.

    Raises the first error. The threads may still be ending then: the caller frees the guest, then calls ``join()``.
    """
    course.follow(look)
    pipeline.start()
    with cancel.waking(pipeline.fail):
        pipeline.wait(course.tick if course.watched else None)
    pipeline.join()
    course.tick()


def save_progress(pipeline: Pipeline, scanner: StreamScanner, elapsed_s: float) -> Progress:
    """By the guest's memory: every page passes once, as 4 KiB or as a few bytes."""
    stats = pipeline.stats
    seen = scanner.pages_seen * scanner.page_size
    fraction = min(1.0, seen / scanner.ram_size) if scanner.ram_size else 0.0
    return _progress(stats, fraction, int(stats.bytes_in / fraction) if fraction else 0, elapsed_s)


def restore_progress(pipeline: Pipeline, payload_size: int, elapsed_s: float) -> Progress:
    """By the image's payload, whose size is known."""
    stats = pipeline.stats
    fraction = min(1.0, stats.bytes_in / payload_size) if payload_size else 0.0
    return _progress(stats, fraction, payload_size, elapsed_s)


def convert_progress(
    reading: Pipeline, writing: Pipeline, scanner: StreamScanner, payload_size: int, elapsed_s: float
) -> Progress:
    """By the payload that is read, or where its size is not known by the guest's memory; out comes the new image."""
    stats = writing.stats
    looked = restore_progress(reading, payload_size, elapsed_s)
    return replace(
        looked,
        bytes_out=stats.bytes_out,
        fraction=looked.fraction if payload_size else save_progress(writing, scanner, elapsed_s).fraction,
        rate_out=stats.bytes_out / MiB / elapsed_s if elapsed_s > 0 else 0.0,
        level=stats.level,
        write_s=stats.write_s,
        cpu_s=looked.cpu_s + stats.cpu_s,
    )


def _progress(stats: Stats, fraction: float, total: int, elapsed_s: float) -> Progress:
    per_s = 1 / MiB / elapsed_s if elapsed_s > 0 else 0.0
    return Progress(
        stage=STREAM,
        bytes_in=stats.bytes_in,
        bytes_out=stats.bytes_out,
        total_estimate=total,
        fraction=fraction,
        elapsed_s=elapsed_s,
        rate_in=stats.bytes_in * per_s,
        rate_out=stats.bytes_out * per_s,
        frame_count=stats.frame_count,
        level=stats.level,
        read_s=stats.read_s,
        write_s=stats.write_s,
        cpu_s=stats.cpu_s,
    )
