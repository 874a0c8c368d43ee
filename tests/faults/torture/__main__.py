"""``python -m tests.faults.torture --trials 1000``: runs a campaign; 1 if a promise was broken.

``--seed S --trial N`` runs one trial again, and says all about it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from .campaign import run_campaign
from .plan import draw
from .report import Progress, summary
from .trial import run_trial
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.torture", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="(default: one that is printed)")
    parser.add_argument("--trial", type=int, action="append", help="this one alone; may be given several times")
    parser.add_argument("--only", metavar="TEXT", default="", help="those whose fault has TEXT in its name")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time (default: %(default)s)")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    if args.trial and len(args.trial) == 1:
        return _replay(seed, args.trial[0])
    numbers = args.trial or [number for number in range(args.trials) if args.only in draw(seed, number).fault]
    print(f"seed {seed}, {len(numbers)} trials, {args.jobs} at a time", flush=True)
    progress = Progress(len(numbers))
    outcomes = run_campaign(seed, numbers, args.jobs, progress.add)
    print(f"\n{summary(outcomes)}")
    return 1 if any(outcome.broken for outcome in outcomes) else 0


def _replay(seed: int, number: int) -> int:
    with World() as world:
        outcome = run_trial(world, draw(seed, number))
    print(f"{outcome.plan}\nended with {outcome.status} after {outcome.took_s:.1f} s, image or guest: {outcome.committed}")
    print(outcome.said)
    print(outcome.impossible or "\n".join(f"BROKEN: {each}" for each in outcome.broken) or "every promise was kept")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
