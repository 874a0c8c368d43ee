"""Progress: a bar on a terminal, JSON lines with ``--json``, otherwise nothing.

The bar is on standard error, so that standard output stays the result's; rich draws it, and is imported for it alone.

A terminal that is held (Ctrl-S) and a pipe that nobody reads block whoever writes to them, and the operation's thread has a
guest to free. So it only leaves its newest look behind, and a thread beside it writes. That one may be blocked even when the
interpreter ends: it is a daemon, and writes past Python's streams, whose locks it would keep.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import Aborted
from ..resources import Thread
from ..types import Progress, ProgressCallback
from ..units import MiB, format_duration, format_size
from .output import Output, drop_unread_output, json_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

JSON_INTERVAL_S: Final = 0.5
LAST_LOOK_S: Final = 1.0
"""How long the result waits for progress that is still being written."""


@contextmanager
def showing_progress(output: Output) -> Iterator[ProgressCallback | None]:
    """The callback for an operation that runs inside; None where nobody would see it. The bar is gone afterwards.

    Whoever interrupts an operation whose progress nobody reads is not made to wait for a reader of the error either.
    """
    if not output.json and (output.quiet or not _is_terminal()):
        yield None
        return
    looks = _Looks()
    show = _show_json if output.json else _bar_show()
    thread = Thread(partial(show, looks), "progress", "the progress", daemon=True)
    thread.start()
    aborted = False
    try:
        yield looks.put
    except Aborted:
        aborted = True
        raise
    finally:
        looks.end()
        thread.join(LAST_LOOK_S)
        if aborted and thread.is_alive():
            drop_unread_output()


class _Looks:
    """Progress from one thread to another, which gets the newest look and misses those that it is too slow for."""

    def __init__(self) -> None:
        self._newest: Progress | None = None
        self._ended = False
        self._news = threading.Event()

    def put(self, progress: Progress) -> None:
        """Leave a look behind. Never blocks."""
        self._newest = progress
        self._news.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._news.set()

    def __iter__(self) -> Iterator[Progress]:
        ended = False
        while not ended:
            self._news.wait()
            self._news.clear()
            ended = self._ended
            newest, self._newest = self._newest, None
            if newest is not None:
                yield newest


def _show_json(looks: _Looks) -> None:
    show = JsonProgress()
    for look in looks:
        show(look)


class JsonProgress:
    """Progress as events, at most one in ``JSON_INTERVAL_S`` for each stage; each stage's first is always told."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell of ``progress``, unless it is too soon."""
        if progress.outcome:
            return  # another event tells of it
        now_s = self._clock()
        if progress.stage == self._stage and now_s < self._next_s:
            return
        self._stage = progress.stage
        self._next_s = now_s + JSON_INTERVAL_S
        try:
            os.write(sys.stdout.fileno(), json_line("progress", asdict(progress)).encode())
        except (OSError, ValueError, AttributeError):
            pass  # a full disk under the report, or no standard output: the result's event will say it


def describe(progress: Progress) -> str:
    """The numbers beside the bar: ``131 MiB of 512 MiB, 270 MiB/s, 1.4 s left``, as far as they are known."""
    parts = [format_size(progress.bytes_in)] if progress.bytes_in or progress.total_estimate else []
    if progress.total_estimate:
        parts[0] += f" of {format_size(max(progress.total_estimate, progress.bytes_in))}"
    if progress.rate_in:
        parts.append(f"{format_size(progress.rate_in * MiB)}/s")
    if progress.level is not None:
        parts.append(f"level {progress.level}")
    if 0.02 < progress.fraction < 1:
        parts.append(f"{format_duration(progress.elapsed_s * (1 - progress.fraction) / progress.fraction)} left")
    return ", ".join(parts)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


def _bar_show() -> Callable[[_Looks], None]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    stderr = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        console=Console(file=io.TextIOWrapper(stderr, sys.stderr.encoding, "backslashreplace", write_through=True)),
        auto_refresh=False,  # the looks come ten times a second: no thread that wakes up beside them
        redirect_stdout=False,
        redirect_stderr=False,
        transient=True,
    )
    return lambda looks: _show_bar(bar, looks)


def _show_bar(bar: Bar, looks: _Looks) -> None:
    task = bar.add_task("", total=1.0, numbers="")
    with suppress(OSError):
        bar.start()
    for look in looks:
        with suppress(OSError):  # a terminal that hung up ends no save
            bar.update(task, description=look.stage, completed=look.fraction, numbers=describe(look), refresh=True)
    with suppress(OSError):
        bar.stop()
