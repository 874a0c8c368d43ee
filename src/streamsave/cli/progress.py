"""Progress: a bar on a terminal, JSON lines with ``--json``, otherwise nothing.

The bar is on standard error, so that standard output stays the result's; rich draws it, and is imported for it alone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ..errors import DestinationError
from ..types import Progress, ProgressCallback
from ..units import MiB, format_duration, format_size
from .output import Output

JSON_INTERVAL_S: Final = 0.5


@contextmanager
def showing_progress(output: Output) -> Iterator[ProgressCallback | None]:
    """The callback for an operation that runs inside; None where nobody would see it. The bar is gone afterwards."""
    if output.json:
        yield JsonProgress(output)
    elif output.quiet or not _is_terminal():
        yield None
    else:
        with _showing_bar() as callback:
            yield callback


class JsonProgress:
    """Progress as events, at most one in ``JSON_INTERVAL_S`` for each stage; each stage's first is always told."""

    def __init__(self, output: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._stage = ""
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell of ``progress``, unless it is too soon."""
        now_s = self._clock()
        if progress.stage == self._stage and now_s < self._next_s:
            return
        self._stage = progress.stage
        self._next_s = now_s + JSON_INTERVAL_S
        fields = {name: getattr(progress, name) for name in Progress.__slots__}
        try:
            self._output.event("progress", fields)
        except DestinationError:
            pass  # a full disk under the report must not end the operation; the result's event will say it


def describe(progress: Progress) -> str:
    """The numbers beside the bar: ``131 MiB of 512 MiB, 270 MiB/s, 1.4 s left``, as far as they are known."""
    parts = [format_size(progress.bytes_in)]
    if progress.total_estimate:
        parts[0] += f" of {format_size(max(progress.total_estimate, progress.bytes_in))}"
    if progress.rate_in:
        parts.append(f"{format_size(progress.rate_in * MiB)}/s")
    if 0.02 < progress.fraction < 1:
        parts.append(f"{format_duration(progress.elapsed_s * (1 - progress.fraction) / progress.fraction)} left")
    return ", ".join(parts)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


@contextmanager
def _showing_bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,  # the callback comes ten times a second: no thread that wakes up beside it
        redirect_stdout=False,
        transient=True,
    )
    task = bar.add_task("", total=1.0, numbers="")

    def show(progress: Progress) -> None:
        numbers = describe(progress)
        with suppress(OSError):  # a terminal that hung up ends no save
            bar.update(task, description=progress.stage, completed=progress.fraction, numbers=numbers, refresh=True)

    with suppress(OSError):
        bar.start()
    try:
        yield show
    finally:
        with suppress(OSError):
            bar.stop()
