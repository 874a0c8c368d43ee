"""``bench``: a sample, its measurements, and the recommendation for a wish."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from ..cancel import Cancellation
from ..errors import UsageError
from ..options import CompressOptions
from ..types import Progress, ProgressCallback
from ..units import GiB
from .guest import sample_guest
from .measure import measure, measure_writing
from .recommend import Measurement, Recommendation, Situation, Wish, recommend
from .sample import Sample, sample_host, sample_image, sample_size

UNKNOWN_SIZE: Final = 1 * GiB
"""Where nobody knows how much there is to save, times and sizes are of so much stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What was measured, and what to do. Sizes in bytes, rates in MiB/s."""

    origin: str
    sample_size: int
    threads: int
    wish: Wish
    within_s: float | None
    situation: Situation
    size_known: bool
    """Whether ``situation.stream_size`` is that of the user's guest."""
    measured: tuple[Measurement, ...]
    recommendation: Recommendation
    total_s: float


def bench(
    image: str | Path | None = None,
    *,
    monitor: str | Path | socket.socket | None = None,
    wish: Wish | None = None,
    within_s: float | None = None,
    folder: str | Path | None = None,
    threads: int | None = None,
    seconds: float = 30.0,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> BenchReport:
    """Measure this host on the stream of ``image``, on that of the guest behind ``monitor``, or on programs of the host.

    ``wish`` is ``balanced`` without one, with ``within_s`` ``smallest``. ``folder``: measure how fast that is to write, too.
    ``seconds`` bounds the time for measuring; a level that is begun ends, and sampling comes before. A guest goes on.

    Raises:
        UsageError: an image and a guest, a time that is none, or a time to stay within where nobody knows for how much.
        ImageError, SourceError, GuestError, MonitorError, MigrationError: there is no sample to be had.
        DestinationError: the folder cannot be written.
        CodecError, Aborted.

    """
    began_s = perf_counter()
    cancel = cancel or Cancellation()
    thread_count = CompressOptions(threads=threads, timeout_s=seconds).thread_count
    if image is not None and monitor is not None:
        raise UsageError("give an image or a guest, not both")
    if within_s is not None and not within_s > 0:
        raise UsageError(f"the time to stay within must be greater than 0, not {within_s:g}")
    tell = _teller(seconds, progress)
    tell("sample")
    sample = _sample(image, monitor, sample_size(thread_count), cancel)
    if within_s is not None and not sample.stream_size:
        raise UsageError(
            "nobody knows how much there is to save: to stay within a time name an image with an index, or a guest"
        )
    write_rate = 0.0
    if folder is not None:
        tell("write")
        write_rate = measure_writing(Path(folder), cancel)
    situation = Situation(
        stream_size=sample.stream_size or UNKNOWN_SIZE, source_rate=sample.source_rate, write_rate=write_rate
    )
    measured = measure(sample, thread_count, perf_counter() + seconds, cancel, tell)
    chosen: Wish = wish or ("balanced" if within_s is None else "smallest")
    return BenchReport(
        origin=sample.origin,
        sample_size=len(sample.data),
        threads=thread_count,
        wish=chosen,
        within_s=within_s,
        situation=situation,
        size_known=bool(sample.stream_size),
        measured=tuple(measured),
        recommendation=recommend(measured, situation, chosen, within_s=within_s),
        total_s=perf_counter() - began_s,
    )


def _sample(image: str | Path | None, monitor: str | Path | socket.socket | None, size: int, cancel: Cancellation) -> Sample:
    if image is not None:
        return sample_image(image, size, cancel)
    return sample_host(size, cancel) if monitor is None else sample_guest(monitor, size, cancel)


def _teller(seconds: float, progress: ProgressCallback | None) -> Callable[[str], None]:
    began_s = perf_counter()

    def tell(stage: str) -> None:
        if progress is not None:
            since_s = perf_counter() - began_s
            progress(Progress(stage, 0, 0, 0, min(1.0, since_s / seconds), since_s, 0.0, 0.0))

    return tell
