"""Whether streamsave became slower, or its images larger, since the last release: ``make bench-check``. Exit status 1 if so.

Measures the pairs of ``baseline.json`` anew, with small guests on tmpfs (a few minutes), or takes ``--results``. A person
runs it on a machine with nothing else to do, like the one that the baseline names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamsave.units import MiB

from . import machine
from .__main__ import DISK, TMPFS
from .baseline import BASELINE, Change, compare, read_baseline, write_baseline
from .measure import Measurement, Plan
from .report import RESULTS
from .results import Results
from .wanted import GUEST

PLAN = Plan(
    folders=(TMPFS,),
    guests=(GUEST,),
    groups=("raw", "lz4", "lzop", "zstd", "gzip", "bzip2"),
    memory=1024 * MiB,
    slow_memory=256 * MiB,
    rounds=5,
)
"""xz takes too long for every day."""


def main() -> int:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="compare these, instead of measuring")
    parser.add_argument("--write", action="store_true", help="make them the baseline: for a release")
    args = parser.parse_args()
    results = Results.read(args.results / RESULTS) if args.results else _measured(DISK / "check" / RESULTS)
    if args.write:
        write_baseline(results)
        print(f"written: {BASELINE}")
        return 0
    baseline = read_baseline()
    if (cpu := baseline["machine"]["cpu"]) != results.machine["cpu"]:
        print(f"the baseline is of another processor ({cpu}): ratios may differ for that alone", file=sys.stderr)
    changes = compare(results, baseline)
    print("\n".join(lines(changes)))
    return 1 if any(change.worse for change in changes) else 0


def lines(changes: list[Change]) -> list[str]:
    """A line for each pair, and a last one."""
    told = []
    for change in changes:
        now = change.now
        ratio = f"{now.faster.middle:6.2f} ({now.faster.least:.2f} to {now.faster.most:.2f})" if now else "     -"
        told.append(f"{change.pair:62} {change.then_faster:6.2f} -> {ratio}  {change.worse.upper()}".rstrip())
    worse = sum(bool(change.worse) for change in changes)
    return [
        *told,
        f"{worse} of {len(changes)} pairs became worse" if worse else f"none of {len(changes)} pairs became worse",
    ]


def _measured(path: Path) -> Results:
    path.unlink(missing_ok=True)
    results = Results(machine.facts())
    Measurement(PLAN, results, path, lambda text: print(text, file=sys.stderr, flush=True)).run()
    return results


if __name__ == "__main__":
    sys.exit(main())
