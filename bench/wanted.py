"""What streamsave is to reach, as data, and whether it does: each a ratio of a pair, or a bound.

A pair is met if the median of its rounds is; what lies between the least and the most is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from streamsave.units import GiB, MiB

from . import limit, lock
from .contestants import SAVES, Ours
from .results import Comparison, Kind, Results, Spread
from .rounds import OURS

Met: TypeAlias = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class WantedPair:
    """``ours`` at least ``at_least`` times as fast as ``theirs``, and its image at most ``larger_by`` larger (a share)."""

    kind: Kind
    group: str
    ours: str
    theirs: str
    at_least: float
    larger_by: float | None = None
    only_on: str = ""
    """The file system that it is wanted on; empty: every one."""


PAIRS: Final = (
    WantedPair("save", "zstd", "zstd 1", "zstd -c -1 -T0", 2.0, 0.02),
    WantedPair("save", "zstd", "zstd 3", "zstd -c", 1.7, 0.02),
    WantedPair("save", "gzip", "gzip 1", "gzip -c", 18.0, 0.13),
    WantedPair("save", "gzip", "gzip 6", "gzip -c", 3.0, 0.04),
    WantedPair("save", "gzip", "gzip 1", "pigz -c -1", 4.2, 0.0),
    WantedPair("save", "bzip2", "bzip2 9", "lbzip2 -c", 1.2),
    WantedPair("save", "bzip2", "bzip2 9", "bzip2 -c", 3.0),
    WantedPair("save", "xz", "xz 3", "xz -c -3 -T1", 1.9),
    WantedPair("save", "xz", "xz 3", "xz -c -3 -T0", 1.0),
    WantedPair("save", "lzop", "lzop 3", "lzop -c", 2.2),
    WantedPair("save", "lz4", "lz4 1", "lz4 -c", 2.2),
    WantedPair("save", "raw", "raw", "cat", 1.9, only_on="tmpfs"),
    WantedPair("restore", "zstd", OURS, "zstd -dc", 2.5),
    WantedPair("restore", "gzip", OURS, "gzip -dc", 8.0),
    WantedPair("restore", "bzip2", OURS, "bzip2 -dc", 2.2),
    WantedPair("restore", "bzip2 by bzip2", OURS, "bzip2 -dc", 1.8),
    WantedPair("restore", "gzip by gzip", OURS, "gzip -dc", 2.5),
)
GUEST: Final = "programs"
"""The guest that all of it is wanted of."""
PEAKS: Final = {"xz": 300 * MiB}
PEAK: Final = 150 * MiB
"""The most memory of a save at two threads and the default level, of formats that are not in ``PEAKS``."""
ENGINE_RATE: Final = 10 * GiB


@dataclass(frozen=True)
class PairVerdict:
    """A wanted pair on one file system."""

    wanted: WantedPair
    folder: str
    comparison: Comparison | None
    ratio: Spread | None = None
    larger: float | None = None

    @property
    def met(self) -> Met:
        """Both the ratio and the size."""
        if self.ratio is None or self.larger is None:
            return "not measured"
        small_enough = self.wanted.larger_by is None or self.larger <= self.wanted.larger_by
        return "met" if self.ratio.middle >= self.wanted.at_least and small_enough else "missed"


@dataclass(frozen=True)
class BoundVerdict:
    """A figure and its bound, as they are printed."""

    what: str
    bound: str
    measured: str
    met: Met


def judge_pairs(results: Results, folders: tuple[str, ...]) -> Iterator[PairVerdict]:
    """Every wanted pair on each of ``folders``."""
    for wanted in PAIRS:
        for folder in folders:
            if wanted.only_on in ("", folder):
                yield _judge(wanted, results.find(wanted.kind, wanted.group, GUEST, folder), folder)


def _judge(wanted: WantedPair, found: Comparison | None, folder: str) -> PairVerdict:
    if found is None or not {wanted.ours, wanted.theirs} <= found.runs.keys():
        return PairVerdict(wanted, folder, None)
    ratio = found.faster(wanted.ours, wanted.theirs)
    return PairVerdict(wanted, folder, found, ratio, found.larger(wanted.ours, wanted.theirs))


def judge_bounds(results: Results) -> Iterator[BoundVerdict]:
    """The single figures: near the limit, memory, the lock, the engine."""
    for part in results.parts.get("limit", ()):
        yield _limit(part)
    for comparison in results.comparisons:
        if comparison.kind == "save" and comparison.guest == GUEST:
            yield from _peaks(comparison)
    if held := results.parts.get("lock"):
        yield from _held(held)
    if scaling := results.parts.get("scaling"):
        yield _engine(scaling)


def _limit(part: dict[str, Any]) -> BoundVerdict:
    shares = Spread.of(limit.shares(part))
    measured = f"{shares.middle:.2f} ({shares.least:.2f} to {shares.most:.2f})"
    what = f"save of {part['member']} on {part['folder']}: time per limit of the machine"
    return BoundVerdict(what, f"{limit.AT_MOST:.2f}", measured, "met" if shares.middle <= limit.AT_MOST else "missed")


def _peaks(comparison: Comparison) -> Iterator[BoundVerdict]:
    group = next(group for group in SAVES if group.name == comparison.group)
    for member in group.members:
        if isinstance(member, Ours) and member.name in comparison.runs:
            bound = PEAKS.get(member.format, PEAK)
            peak = comparison.middle(member.name, "peak")
            what = f"save of {member.name} on {comparison.folder}: peak memory"
            met: Met = "met" if peak <= bound else "missed"
            yield BoundVerdict(what, f"{bound / MiB:.0f} MiB", f"{peak / MiB:.0f} MiB", met)


def _held(held: dict[str, Any]) -> Iterator[BoundVerdict]:
    for codec in held["encoders_s"]:
        seconds = lock.held_per_chunk(held, codec)
        met: Met = "met" if seconds <= lock.AT_MOST_S else "missed"
        what = f"{codec}: interpreter lock held per chunk of {held['chunk_mib'][codec]} MiB"
        yield BoundVerdict(what, f"{lock.AT_MOST_S * 1e6:.0f} us", f"{seconds * 1e6:.0f} us", met)


def _engine(scaling: dict[str, Any]) -> BoundVerdict:
    best = max(each["rate"] for each in scaling["engine"])
    met: Met = "met" if best >= ENGINE_RATE else "missed"
    return BoundVerdict(
        "the engine alone, with codecs that take no time", f"{ENGINE_RATE / GiB:.0f} GiB/s", f"{best / GiB:.1f} GiB/s", met
    )
