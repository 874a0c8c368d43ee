"""The course of one operation: its stages, how far it came and where the time went, whatever its end.

One record, ``Progress``, says it all, and this is the only place that tells it: to the caller's callback while the operation
runs and once at its end, to the operation's logger (``streamsave.save``, say), and to the error of one that failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

from ..errors import StreamsaveError
from ..types import Outcome, Progress, ProgressCallback
from .reports import STREAM

COMMIT = "commit"
"""The stage after which nothing that a callback does may matter any more: the image exists."""

logging.getLogger("streamsave").addHandler(logging.NullHandler())  # or warnings of ours would go to stderr


class Course:
    """A context manager around all of an operation that has the given stages, in this order, and works on ``path``."""

    def __init__(
        self, operation: str, path: str | Path | int, stages: Sequence[str], progress: ProgressCallback | None
    ) -> None:
        self.stage_s: dict[str, float] = {}
        """Seconds per stage that ended, in order."""
        self.job: Mapping[str, int] = {}
        """What libvirt said last of its own job; any thread may set it."""
        self._operation = operation
        self._path = str(path)
        self._stages = stages
        self._callbacks = [progress] if progress is not None else []
        self._look: Callable[[float], Progress] | None = None
        self._logger = logging.getLogger(f"streamsave.{operation}")
        self._began = self._stage_began = perf_counter()
        self._stopped_at: float | None = None
        self._stood_s: float | None = None
        self._too_late = False

    def __enter__(self) -> Self:
        self._log(logging.INFO, "begun", {})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        last = self.now("failed" if error is not None else "done")
        self._too_late = True
        if isinstance(error, StreamsaveError):
            error.progress = last
        fields = asdict(last) | ({"error": type(error).__name__, "reason": str(error)} if error is not None else {})
        how = f"failed in stage {last.stage}: {error}" if error is not None else "done"
        self._log(logging.WARNING if error is not None else logging.INFO, how, fields)
        self._tell(last)

    @property
    def stage(self) -> str:
        """The one under way; the last one once all are over."""
        return next((stage for stage in self._stages if stage not in self.stage_s), self._stages[-1])

    @property
    def watched(self) -> bool:
        """Whether anybody wants to know how it goes."""
        return bool(self._callbacks)

    @property
    def total_s(self) -> float:
        """Seconds since the operation began."""
        return perf_counter() - self._began

    @property
    def stopped_s(self) -> float:
        """How long the guest stood still because of us, so far."""
        if self._stopped_at is None:
            return 0.0
        return self._stood_s if self._stood_s is not None else perf_counter() - self._stopped_at

    def guest_stops(self) -> None:
        """It stands still from now on."""
        self._stopped_at = perf_counter()

    def guest_is_free(self) -> None:
        """It runs again, or its image exists. The first call counts."""
        if self._stood_s is None:
            self._stood_s = self.stopped_s

    def watch(self, callback: ProgressCallback) -> None:
        """Tell ``callback`` too, before the caller's own."""
        self._callbacks.insert(0, callback)

    def follow(self, look: Callable[[float], Progress]) -> None:
        """The stream flows: from now on ``look``, given the seconds that it has flowed, says how far it came."""
        self._look = look

    def tick(self) -> None:
        """Tell how far it is. Raises what a callback raises."""
        self._tell(self.now())

    def end(self, stage: str) -> None:
        """``stage`` ends now, and the next one begins."""
        now = perf_counter()
        self.stage_s[stage] = now - self._stage_began
        self._stage_began = now
        self._too_late = self._too_late or stage == COMMIT
        fields: dict[str, object] = {"stage": stage, "seconds": self.stage_s[stage]}
        self._log(logging.INFO, f"{stage} took {self.stage_s[stage]:.3f} s", fields)
        if self._look is not None and stage != self._stages[-1]:
            self.tick()

    def now(self, outcome: Outcome = "") -> Progress:
        """How far it is; the stage under way counts into ``stage_s``."""
        since = perf_counter() - self._stage_began
        stage_s = dict(self.stage_s)
        if outcome == "failed":
            stage_s.setdefault(self.stage, since)
        flowed_s = self.stage_s.get(STREAM, since if self.stage == STREAM else 0.0)
        look = self._look(flowed_s) if self._look is not None else Progress(self.stage, 0, 0, 0, 0.0, 0.0, 0.0, 0.0)
        return replace(
            look,
            stage=self.stage,
            total_s=self.total_s,
            stopped_s=self.stopped_s,
            stage_s=stage_s,
            job=self.job,
            outcome=outcome,
        )

    def say(self, text: str, **fields: object) -> None:
        """Something for the log."""
        self._log(logging.INFO, text, fields)

    def _tell(self, progress: Progress) -> None:
        for callback in self._callbacks:
            try:
                callback(progress)
            except Exception:
                if not self._too_late:
                    raise
                self._logger.exception("a progress callback failed after the fact")

    def _log(self, level: int, text: str, fields: dict[str, object]) -> None:
        """``fields`` become attributes of the record."""
        extra = {"operation": self._operation, "image": self._path} | fields
        self._logger.log(level, "%s: %s %s", self._path, self._operation, text, extra=extra)
