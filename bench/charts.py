"""The charts of the report: SVG, the same bytes for the same results. Ours in one colour, the others in another.

Bars end at the median; the line on a bar reaches from the least to the most of its rounds. Rates are on a logarithmic axis,
for the slowest is a thousand times as slow as the fastest: bars begin at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from streamsave.units import GiB, MiB

from .contestants import RESTORES, SAVES, Discard, Ours
from .limit import middle_parts
from .results import Comparison, Spread
from .rounds import OURS

OURS_COLOUR: Final = "#1f77b4"
THEIRS_COLOUR: Final = "#b0b0b0"
NEUTRAL_COLOUR: Final = "#444444"
STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "streamsave",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
BAR_INCHES: Final = 0.22


def save_bars(comparisons: Sequence[Comparison], title: str, path: Path) -> None:
    """Rates of saves, group by group."""
    _bars(comparisons, [group.name for group in SAVES], title, path)


def restore_bars(comparisons: Sequence[Comparison], title: str, path: Path) -> None:
    """Rates of restores, payload by payload."""
    _bars(comparisons, [group.name for group in RESTORES], title, path)


def _bars(comparisons: Sequence[Comparison], order: Sequence[str], title: str, path: Path) -> None:
    rows: list[tuple[str, str, Spread | None]] = []
    for comparison in sorted(comparisons, key=lambda each: order.index(each.group)):
        for member in comparison.runs:
            label = f"{member} ({comparison.group})" if comparison.kind == "restore" else member
            rows.append((label, _colour(member), comparison.rate(member)))
        rows.append(("", "none", None))
    rows = rows[:-1]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.9 + BAR_INCHES * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, colour, rate) in enumerate(rows):
            if rate is not None:
                axes.barh(place, rate.middle / MiB, color=colour, height=0.8)
                axes.plot([rate.least / MiB, rate.most / MiB], [place, place], color="black", linewidth=1)
                axes.annotate(f" {rate.middle / MiB:.0f}", (rate.most / MiB, place), va="center", fontsize=8)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        _rates(axes)
        axes.set_xlim(left=1)
        axes.set_title(title, loc="left")
        _write(figure, path)


def size_against_rate(comparisons: Sequence[Comparison], title: str, path: Path) -> None:
    """Every save as a point: to the right is faster, below is smaller."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for comparison in comparisons:
            for member in comparison.runs:
                size = comparison.middle(member, "size") / comparison.stream_size
                if size:
                    rate = comparison.rate(member).middle / MiB
                    axes.plot(rate, 100 * size, "o", color=_colour(member), markersize=5)
                    axes.annotate(member, (rate, 100 * size), xytext=(4, 3), textcoords="offset points", fontsize=7)
        axes.set_ylabel("image, % of the stream")
        axes.set_ylim(bottom=0)
        _rates(axes)
        axes.set_title(title, loc="left")
        _write(figure, path)


def limit_bars(parts: Sequence[dict[str, Any]], path: Path) -> None:
    """What a save is made of: CPU seconds per processor, part upon part, and beside it what a save took."""
    names = (("qemu_s", "QEMU"), ("receive_s", "receiving"), ("codec_s", "codec"), ("write_s", "writing"))
    colours = ("#c7c7c7", "#ffbb78", OURS_COLOUR, "#98df8a")
    with rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.9 + 0.45 * len(parts)), layout="constrained")
        axes = figure.add_subplot()
        for place, part in enumerate(parts):
            middle, left = middle_parts(part), 0.0
            for (field, name), colour in zip(names, colours, strict=True):
                width = getattr(middle, field) / middle.cpus
                axes.barh(place, width, left=left, color=colour, height=0.5, label="" if place else name)
                left += width
            axes.plot([middle.wall_s] * 2, [place - 0.35, place + 0.35], color="black", label="" if place else "a save")
        axes.set_yticks(range(len(parts)), [f"{part['member']}, {part['folder']}" for part in parts])
        axes.invert_yaxis()
        axes.set_xlabel("CPU seconds per processor; seconds")
        axes.legend(ncols=5, fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.45, 1.25))
        _write(figure, path)


def scaling_lines(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Calculated without QEMU, and simulated, per number of cores."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.5, 3.5), layout="constrained")
        axes = figure.add_subplot()
        for member, colour in zip(
            dict.fromkeys(row["member"] for row in rows), (OURS_COLOUR, "#2ca02c", "#d62728"), strict=False
        ):
            mine = [row for row in rows if row["member"] == member]
            cores = [row["cores"] for row in mine]
            axes.plot(cores, [row["codec_rate"] / GiB for row in mine], ":", color=colour, label=f"{member}: codecs alone")
            axes.plot(cores, [row["simulated_rate"] / GiB for row in mine], "o-", color=colour, label=f"{member}: simulated")
        axes.axhline(rows[0]["qemu_rate"] / GiB, color=NEUTRAL_COLOUR, linewidth=1, label="QEMU's one stream")
        axes.axhline(10, color=NEUTRAL_COLOUR, linewidth=1, linestyle="--", label="10 GiB/s")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(cores, [str(each) for each in cores])
        axes.set_xlabel("cores")
        axes.set_ylabel("GiB/s")
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        _write(figure, path)


def _colour(member: str) -> str:
    if member == Discard().name:
        return NEUTRAL_COLOUR
    ours = {each.name for group in SAVES for each in group.members if isinstance(each, Ours)} | {OURS}
    return OURS_COLOUR if member in ours else THEIRS_COLOUR


def _rates(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("MiB of stream per second")
    axes.grid(visible=True, axis="x", which="major", linewidth=0.4)
    axes.set_axisbelow(True)


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
