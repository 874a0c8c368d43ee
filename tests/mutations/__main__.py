"""Try mutations made by hand, in a copy of the tree: a test has to fail for each of them.

Without names all are tried, or a sample of them. Exits with 1 if one survives, or came to no verdict.
"""

from __future__ import annotations

import argparse
import random
import signal
import time

from .catalogue import MUTATIONS
from .copies import RUN_S
from .trials import Verdict, run_campaign


def main() -> int:
    """Try, and show a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these; a part of a name will do")
    parser.add_argument("--list", action="store_true", help="show what there is, and try nothing")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of them, drawn at random")
    parser.add_argument("--seed", type=int, help="of the draw (default: one that is printed)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at a time (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="show what pytest said of each that was not killed")
    args = parser.parse_args()
    chosen = [each for each in MUTATIONS if not args.names or any(name in each.name for name in args.names)]
    if args.sample is not None:
        seed = args.seed if args.seed is not None else int(time.time())
        print(f"seed {seed}")
        chosen = random.Random(seed).sample(chosen, min(args.sample, len(chosen)))
    if not chosen:
        parser.error(f"no mutation is called {' or '.join(args.names)}: --list shows them")
    for mutation in chosen:
        mutation.check()
    if args.list:
        for mutation in chosen:
            print(f"{mutation.name:40} {mutation.path}: {mutation.why}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no copy is left, and nothing that runs in one
    trials = run_campaign(chosen, jobs=args.jobs, tell=lambda text: print(text, flush=True))
    counts = {verdict: [trial for trial in trials if trial.verdict == verdict] for verdict in Verdict}
    for trial in (*counts[Verdict.SURVIVED], *counts[Verdict.NONE]):
        print(f"\n{trial.verdict.value}: {trial.mutation.name}, {trial.mutation.path}: {trial.mutation.why}")
        if args.show or trial.verdict == Verdict.NONE:
            print(trial.run.output or f"no end within {RUN_S:g} s")
    print("\n" + ", ".join(f"{len(of)} {verdict.value}" for verdict, of in counts.items()) + f" of {len(trials)}")
    return 0 if len(counts[Verdict.KILLED]) == len(trials) else 1


if __name__ == "__main__":
    raise SystemExit(main())
