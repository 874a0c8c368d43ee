"""``python -m tests.faults.powerloss``: every scenario in every format, with a summary; 1 if a promise was broken.

What is random comes from the seed and the scenario's name: ``--seed S --only NAME`` looks at the same again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from streamsave.codecs.registry import codecs

from .campaign import LONG, BrokenPromiseError, Trial
from .judge import Findings
from .scenarios import scenario_named, scenarios
from .tracing import can_trace, trace


@dataclass
class Account:
    """Of one scenario: how many recordings and states there were of each kind."""

    name: str
    recordings: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def take(self, kind: str, findings: Iterable[tuple[str, Findings]]) -> None:
        self.recordings[kind] = self.states[kind] = 0
        try:
            for label, each in findings:
                self.recordings[kind] += 1
                self.states[kind] += each.states
                self.complaints += [f"{self.name}, {label}: {complaint}" for complaint in each.complaints]
        except BrokenPromiseError as error:
            self.complaints.append(str(error))

    def __str__(self) -> str:
        counts = (f"{self.recordings.get(kind, 0):4} {self.states.get(kind, 0):8}" for kind in KINDS)
        return f"{self.name:36} {' '.join(counts)}"


KINDS = ("as it goes", "traced", "a fault", "a kill")


def look(name: str, seed: int) -> Account:
    """At a scenario."""
    scenario = scenario_named(name, *codecs())
    account = Account(name)
    trial = Trial(scenario, seed, LONG)
    account.take("as it goes", [("", trial.power_fails())])
    account.take("a fault", trial.power_fails_after_faults())
    if scenario.guarded:
        account.take("a kill", trial.power_fails_after_kills())
    if can_trace() and scenario.exchanges and scenario.nameless:
        account.take("traced", [("traced", Trial(scenario, seed, LONG, trace).power_fails())])
    if (needed := trial.needed_barriers()) != scenario.barriers:
        account.complaints.append(f"{name}: {needed} fsyncs are needed, not {scenario.barriers}")
    return account


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.powerloss", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="(default: one that is printed)")
    parser.add_argument("--only", help="this scenario alone")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    names = [args.only] if args.only else [each.name for each in scenarios(*codecs())]
    print(f"seed {args.seed}{'' if can_trace() else '; strace is not there or may not trace: nothing is traced'}")
    print(f"{'recordings and states of the disk:':36} {' '.join(f'{kind:>13}' for kind in KINDS)}", flush=True)
    accounts = []
    with ProcessPoolExecutor(args.workers) as pool:
        for account in pool.map(partial(look, seed=args.seed), names):
            print(account, flush=True)
            accounts.append(account)
    complaints = [complaint for account in accounts for complaint in account.complaints]
    for complaint in complaints:
        print(f"BROKEN: {complaint}")
    recordings = sum(sum(account.recordings.values()) for account in accounts)
    states = sum(sum(account.states.values()) for account in accounts)
    print(
        f"{len(accounts)} scenarios, {recordings} recordings, {states} states of the disk, {len(complaints)} broken promises"
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
