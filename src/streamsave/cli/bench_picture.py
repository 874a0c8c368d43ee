"""A picture of speed against size, with plain characters: one letter for each format, and ``@`` for the recommendation.

::

    MiB/s                       (up: faster, left: smaller)
     1800 |                                         a
      640 |                   d  d
      ...
          +-------------------------------------------
           30 %                                  100 %    of the stream
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..bench.recommend import Measurement

HEIGHT: Final = 12
LEAST_WIDTH: Final = 40
MOST_WIDTH: Final = 100
CHOSEN: Final = "@"


def draw(measured: Sequence[Measurement], chosen: Measurement, width: int) -> list[str]:
    """The lines, at most ``width`` columns wide; none where that is too narrow, or where there is nothing to compare."""
    width = min(width, MOST_WIDTH)
    if width < LEAST_WIDTH or len(measured) < 2:
        return []
    letters = dict(zip(dict.fromkeys(each.format for each in measured), ascii_lowercase, strict=False))
    columns, gutter = width - 10, 9
    speeds = [math.log(each.rate) for each in measured]
    sizes = [math.log(1 / each.ratio) for each in measured]
    field = [[" "] * columns for _ in range(HEIGHT)]
    points = zip(measured, sizes, speeds, strict=True)
    for each, size, speed in sorted(points, key=lambda point: point[0] is chosen):
        column, row = _place(size, sizes, columns), HEIGHT - 1 - _place(speed, speeds, HEIGHT)
        field[row][column] = CHOSEN if each is chosen else letters.get(each.format, "?")
    lines = [f"{'MiB/s':>{gutter - 1}}"]
    for row, cells in enumerate(field):
        speed = max(speeds) - (max(speeds) - min(speeds)) * row / (HEIGHT - 1)
        label = f"{math.exp(speed):.3g}" if row % 3 == 0 or row == HEIGHT - 1 else ""
        lines.append(f"{label:>{gutter - 1}} |{''.join(cells)}".rstrip())
    ends = f"{100 * math.exp(min(sizes)):.0f} %", f"{100 * math.exp(max(sizes)):.0f} % of the stream"
    lines.append(f"{'':>{gutter}}+{'-' * columns}")
    lines.append(f"{'':>{gutter + 1}}{ends[0]}{ends[1]:>{columns - len(ends[0])}}")
    legend = "  ".join(f"{letter} {name}" for name, letter in letters.items())
    lines.append(f"{'':>{gutter + 1}}{CHOSEN} {chosen.name}  {legend}"[:width])
    return lines


def _place(value: float, among: Sequence[float], count: int) -> int:
    """Which of ``count`` equal steps between the least and the greatest."""
    least, greatest = min(among), max(among)
    return round((value - least) / (greatest - least) * (count - 1)) if greatest > least else 0
