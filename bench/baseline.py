"""The regression check: ratios of pairs, measured now, against those of the last release in ``baseline.json``.

Ratios within a round do not depend on how fast the machine is; on what kind it is they do, so the baseline says where it was
measured. A ratio has become worse if it is more than ``SLOWER_BY`` below the baseline's and no round reached that; an image
if it is more than ``LARGER_BY`` larger in proportion to the other one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .contestants import SAVES, Discard, Ours
from .results import Comparison, Results, Spread
from .rounds import OURS

BASELINE: Final = Path(__file__).with_name("baseline.json")
SLOWER_BY: Final = 0.10
LARGER_BY: Final = 0.01


@dataclass(frozen=True)
class Ratio:
    """Of a pair: how many times as fast as the other one, and the image in proportion to the other one's."""

    faster: Spread
    size: float


@dataclass(frozen=True)
class Change:
    """A pair, then and now. ``now`` is None where it was not measured."""

    pair: str
    then_faster: float
    then_size: float
    now: Ratio | None

    @property
    def worse(self) -> str:
        """Why this is a regression; empty: it is none."""
        if self.now is None:
            return "not measured any more"
        reasons = []
        least = self.then_faster * (1 - SLOWER_BY)
        if self.now.faster.middle < least and self.now.faster.most < self.then_faster:
            reasons.append(f"{100 * (1 - self.now.faster.middle / self.then_faster):.0f} % slower")
        if self.now.size > self.then_size * (1 + LARGER_BY):
            reasons.append(f"{100 * (self.now.size / self.then_size - 1):.1f} % larger")
        return " and ".join(reasons)


def ratios(results: Results) -> dict[str, Ratio]:
    """Every member of ours against every other of its group."""
    return {pair: ratio for comparison in results.comparisons for pair, ratio in _ratios(comparison)}


def _ratios(comparison: Comparison) -> Iterator[tuple[str, Ratio]]:
    ours = {member.name for group in SAVES for member in group.members if isinstance(member, Ours)} | {OURS}
    for mine in comparison.runs:
        for other in comparison.runs:
            if mine in ours and other not in ours and other != Discard().name:
                what = mine if comparison.kind == "save" else comparison.group
                place = f"guest {comparison.guest} {comparison.folder}"
                ratio = Ratio(comparison.faster(mine, other), 1 + comparison.larger(mine, other))
                yield f"{comparison.kind} {what} / {other}, {place}", ratio


def compare(results: Results, baseline: dict[str, Any]) -> list[Change]:
    """Each pair of the baseline, then and now; a new pair is no change."""
    now = ratios(results)
    return [Change(pair, then["faster"], then["size"], now.get(pair)) for pair, then in baseline["ratios"].items()]


def baseline_of(results: Results) -> dict[str, Any]:
    """What ``baseline.json`` is to hold."""
    machine = {name: results.machine[name] for name in ("cpu", "threads", "kernel", "streamsave", "tools")}
    pairs = {pair: {"faster": ratio.faster.middle, "size": ratio.size} for pair, ratio in ratios(results).items()}
    return {"machine": machine, "ratios": pairs}


def read_baseline(path: Path = BASELINE) -> dict[str, Any]:
    """The committed one."""
    baseline: dict[str, Any] = json.loads(path.read_text())
    return baseline


def write_baseline(results: Results, path: Path = BASELINE) -> None:
    """Make ``results`` what later ones are compared with."""
    path.write_text(json.dumps(baseline_of(results), indent=1) + "\n")
