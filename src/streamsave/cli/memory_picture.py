"""A picture of how compressible a guest's memory is along its addresses: one line of bars for each large block of RAM.

::

    pc.ram  0 ▇▇▆▂▁▁▁▁▁▁▁▁▁▁▁▃▅▇ 512 MiB     (█: stored as it is, blank: nothing but zeros)

It is made from the index alone: the first page and the size of each frame.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ..units import MiB, format_size

if TYPE_CHECKING:
    from ..format.index import Index

BARS: Final = " ▁▂▃▄▅▆▇█"
SMALLEST: Final = 4 * MiB
"""A block of RAM below this is firmware."""


def draw(index: Index, width: int) -> list[str]:
    """The lines, at most ``width`` columns wide; none where the pages are in no order."""
    blocks = index.stream_map.ram_blocks
    large = [number for number, block in enumerate(blocks) if block.size >= SMALLEST]
    if not index.stream_map.pages_in_order or not large:
        return []
    names = {number: f"{blocks[number].name}  0 " for number in large}
    ends = {number: f" {format_size(blocks[number].size)}" for number in large}
    columns = width - max(map(len, names.values())) - max(map(len, ends.values()))
    if columns < 8:
        return []
    lines = []
    for number in large:
        densities = _densities(index, number, columns)
        bars = "".join(BARS[min(len(BARS) - 1, -int(-density * (len(BARS) - 1) // 1))] for density in densities)
        lines.append(f"{names[number]}{bars}{ends[number]}")
    return lines


def _densities(index: Index, block: int, columns: int) -> list[float]:
    """For each of ``columns`` equal parts of the block: stored bytes per byte of memory."""
    size = index.stream_map.ram_blocks[block].size
    stored = [0.0] * columns
    for start, end, frame_size in _spans(index, block):
        first, last = start * columns / size, end * columns / size
        for column in range(int(first), min(columns, int(last) + 1)):
            share = (min(last, column + 1) - max(first, column)) / (last - first) if last > first else 0.0
            stored[column] += frame_size * max(0.0, share)
    return [each * columns / size for each in stored]


def _spans(index: Index, block: int) -> list[tuple[int, int, float]]:
    """Where in the block the pages of each frame begin and end, and how much of the frame they take."""
    sizes = [each.size for each in index.stream_map.ram_blocks]
    starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    frames = index.frames
    places = []
    for number in range(len(frames)):
        record = index.first_records.of_frame(number, number * frames.chunk_size)
        if record:
            places.append((min(starts[record.block] + record.page_offset, starts[-1]), frames.sizes[number]))
    places.append((starts[-1], 0))
    spans = []
    for (start, frame_size), (end, _) in pairwise(places):
        inside_start, inside_end = max(start, starts[block]), min(end, starts[block + 1])
        if inside_start < inside_end:
            share = (inside_end - inside_start) / (end - start)
            spans.append((inside_start - starts[block], inside_end - starts[block], frame_size * share))
    return spans
