"""How a campaign goes, and what it came to: a line that moves, and a table by fault and outcome."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from streamsave.cli.output import table

from .scene import Outcome


class Progress:
    """One line on a terminal, otherwise one for every fifty trials; broken promises at once, and how to see them again."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._done = self._broken = 0

    def add(self, outcome: Outcome) -> None:
        self._done += 1
        if outcome.broken:
            self._broken += 1
            print(f"{clear()}BROKEN: {outcome.plan}\n  ended with {outcome.status}, which said: {outcome.said}")
            print("\n".join(f"  - {each}" for each in outcome.broken))
            print(f"  again: {outcome.plan.replay}", flush=True)
        spent_s = time.monotonic() - self._began
        line = (
            f"{self._done} of {self._total}, {self._broken} broken,"
            f" {spent_s:.0f} s, {(self._total - self._done) * spent_s / self._done:.0f} s left"
        )
        if sys.stdout.isatty():
            print(f"{clear()}{line}", end="", flush=True)
        elif self._done % 50 == 0 or self._done == self._total:
            print(line, flush=True)


def clear() -> str:
    return "\r\x1b[K" if sys.stdout.isatty() else ""


def summary(outcomes: Sequence[Outcome]) -> str:
    """By fault: how often it struck, how many have an image or a guest, the longest wait after a death, how it ended."""
    by_fault: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_fault[outcome.plan.fault].append(outcome)
    rows = [("fault", "trials", "broken", "completed", "slowest", "exit statuses")]
    for fault in sorted(by_fault):
        these = by_fault[fault]
        words = Counter(outcome.word for outcome in these)
        freed = [outcome.freed_s for outcome in these if outcome.freed_s is not None]
        rows.append(
            (
                fault,
                str(len(these)),
                str(sum(bool(outcome.broken) for outcome in these)),
                str(sum(outcome.committed for outcome in these)),
                f"{max(freed):.2f} s" if freed else "",
                ", ".join(f"{word}: {number}" for word, number in words.most_common()),
            )
        )
    broken = sum(bool(outcome.broken) for outcome in outcomes)
    kept = f"{len(outcomes) - broken} of {len(outcomes)} trials kept every promise"
    return f"{table(rows, right=(1, 2, 3, 4))}\n{kept}"
