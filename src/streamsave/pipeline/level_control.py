"""Which level keeps up: a pure controller, told what the encoders do and when.

The stream comes as fast as QEMU delivers and the sink takes it; the encoders are to be almost, and never quite, what all
wait for. Their **load** says how near they are: the part of their time in which they worked rather than waited for work. The
work queue's fill tells the two apart: where chunks lay ready, a pause between two of them was no waiting. A source or a sink
that is slow both leave the queue empty, so one figure stands for either. But source and sink need processors too: where
the encoders take them away, all of it gets slower and the encoders wait all the more. So a higher level also has to bring as
many chunks per second as the one before, or it is left.

Load is looked at in windows. A full one means a lower level; two in a row that leave room a higher one, as far as the work
that it would be is known or can be guessed. Three things keep it from swinging. Levels are coarse: one may be too low and
the next too high, so a level that had to be left is barred for a while, twice as long with each time. A sink may take and
stall in turns: whenever a step up turns out to be wrong, the windows become twice as long, until they see the mean. And of a
change the first chunks do not count. So the number of changes grows only with the logarithm of the time, and no level is
given up for good.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 0.25
"""The least time between two decisions, at first."""
WINDOW_MAX_S: Final = 4.0
FULL: Final = 0.95
"""The load from which on the encoders count as what all wait for."""
ROOM: Final = 0.85
"""The load that a higher level may be expected to bring."""
CLEAR_ROOM: Final = 0.6
"""The same for one that was too high a while ago: little enough that things must have changed."""
KEPT_RATE: Final = 0.95
"""How much of the chunks per second a step up has to leave."""
STEP_COST: Final = 1.4
"""How much more work the next level is, as long as nobody knows. Measured: 1 to 1.9 between most levels of zstd, gzip, xz
and lz4, 2 to 3 between some, 6 from lz4's 2 to 3 and 36 from lzop's 6 to 7: that then shows within a few chunks."""
STRIDE_MAX: Final = 3
"""How many levels up at a time."""
BAR_S: Final = 2.0
"""How long a level stays barred that had to be left for the first time."""


class LevelControl:
    """Chooses among ``levels``, beginning with ``start``. One thread at a time; ``level`` may be read by any.

    Times are seconds, ``now_s`` of any clock that does not go back.
    """

    def __init__(self, levels: range, start: int, threads: int) -> None:
        """``threads``: how many encoders there are."""
        self.level = start
        """The one to compress with now."""
        self._levels = levels
        self._threads = threads
        self._cost_s: dict[int, float] = {}
        """How long an encoder takes for a chunk, by level, when it was last seen."""
        self._bars: dict[int, tuple[float, float]] = {}
        """Levels that were too high: until when they are barred, and how long that is."""
        self._stride = 1
        """How many levels the next step down has: it doubles as long as one follows the other."""
        self._raised_from: tuple[int, float] | None = None
        """If the last change was a step up: from which level, and the two rates before it, added up."""
        self._window_count = 0
        """Since the last change."""
        self._rates: deque[float] = deque(maxlen=2)
        """Chunks per second in the last windows of those: two count before a step up, and two after it."""
        self._roomy = False
        """Whether the window before left room for more."""
        self._settling = threads
        """Chunks that still tell of what was before the last change."""
        self._window_s = WINDOW_S
        self._began_s = 0.0
        self._count = 0
        self._work_s = self._wait_s = 0.0

    def note(self, level: int, *, work_s: float, wait_s: float, now_s: float) -> None:
        """An encoder compressed a chunk at ``level`` in ``work_s``, before which it waited ``wait_s`` for work."""
        if level != self.level:
            return
        if self._settling:
            self._settling -= 1
            self._began_s = now_s
            return
        self._work_s += work_s
        self._wait_s += wait_s
        self._count += 1
        if self._count >= self._threads and now_s - self._began_s >= self._window_s:
            self._decide(now_s)

    def _decide(self, now_s: float) -> None:
        """A window is over."""
        load = self._work_s / ((self._work_s + self._wait_s) or 1.0)
        self._window_count += 1
        self._rates.append(self._count / (now_s - self._began_s))
        self._cost_s[self.level] = self._work_s / self._count
        self._begin_window(now_s)
        if load >= FULL:
            self._leave(max(self._levels[0], self.level - self._stride), now_s)
            self._stride = min(2 * self._stride, len(self._levels))
        elif self._window_count == 2 and self._raised_from and sum(self._rates) < KEPT_RATE * self._raised_from[1]:
            self._leave(self._raised_from[0], now_s)
        else:
            self._stride = 1
            higher = self._highest_with_room(load, now_s)
            if higher > self.level and self._roomy:
                self._raised_from = self.level, sum(self._rates)
                self._change(higher)
            else:
                self._roomy = higher > self.level

    def _leave(self, lower: int, now_s: float) -> None:
        """The present level is too high."""
        self._roomy = False
        if lower == self.level:
            return
        _, bar_s = self._bars.get(self.level, (0.0, BAR_S / 2))
        self._bars[self.level] = now_s + 2 * bar_s, 2 * bar_s
        if self._raised_from is not None:
            self._window_s = min(2 * self._window_s, WINDOW_MAX_S)
            self._raised_from = None
        self._change(lower)

    def _highest_with_room(self, load: float, now_s: float) -> int:
        """The level that may be tried; the present one if none above it may."""
        highest = self.level
        for level in range(self.level + 1, min(self._levels[-1], self.level + STRIDE_MAX) + 1):
            barred_until_s, _ = self._bars.get(level, (now_s, 0.0))
            if now_s < barred_until_s:
                fits = load * self._cost_s[level] / (self._cost_s[self.level] or 1.0) < CLEAR_ROOM
            else:
                fits = load * STEP_COST ** (level - self.level) < ROOM
            if not fits:
                break
            highest = level
        return highest

    def _change(self, level: int) -> None:
        self.level = level
        self._roomy = False
        self._window_count = 0
        self._rates.clear()
        self._settling = self._threads

    def _begin_window(self, now_s: float) -> None:
        self._began_s = now_s
        self._count = 0
        self._work_s = self._wait_s = 0.0
