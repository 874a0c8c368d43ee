"""Trying mutations: green without, red with each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from queue import SimpleQueue
from time import perf_counter

from .copies import GREEN, RED, RUN_S, Copy, Run
from .mutation import Mutation


class Verdict(Enum):
    """What became of a mutation."""

    KILLED = "killed"
    """A test failed."""
    SURVIVED = "SURVIVED"
    """None did."""
    NONE = "NO VERDICT"
    """The tests did not get as far: an import failed, say."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutation that was tried."""

    mutation: Mutation
    run: Run
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """By pytest's exit status; what cannot even be set up is no verdict either."""
        if self.run.status == RED:
            return Verdict.NONE if " ERROR at setup of " in self.run.output else Verdict.KILLED
        return Verdict.SURVIVED if self.run.status == GREEN else Verdict.NONE


class NotGreenError(Exception):
    """The tests fail without any mutation, so nothing can be told by them."""


def run_campaign(mutations: Sequence[Mutation], *, jobs: int = 1, tell: Callable[[str], None] = print) -> list[Trial]:
    """Try all of them, ``jobs`` at a time, each of those in a copy of its own.

    Raises:
        NotGreenError: at least one of their tests fails without any.
        StaleError: a mutation cannot be made.

    """
    with ExitStack() as stack:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for _ in range(min(jobs, len(mutations))):
            copies.put(stack.enter_context(Copy()))

        def attempt(mutation: Mutation) -> Trial:
            copy = copies.get()
            began = perf_counter()
            try:
                with copy.mutated(mutation):
                    run = copy.test(mutation.node_ids)
            finally:
                copies.put(copy)
            trial = Trial(mutation, run, perf_counter() - began)
            tell(f"{trial.verdict.value:10} {trial.seconds:5.1f} s  {mutation.name}: {run.first or '-'}")
            return trial

        tell(f"green without a mutation in {_check_green(copies, mutations):.0f} s")
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(attempt, mutations))


def _check_green(copies: SimpleQueue[Copy], mutations: Sequence[Mutation]) -> float:
    copy = copies.get()
    began = perf_counter()
    node_ids = sorted({node for mutation in mutations for node in mutation.node_ids})
    run = copy.test(node_ids, stop_at_first=False, limit_s=RUN_S + 10 * len(node_ids))
    copies.put(copy)
    if run.status != GREEN:
        raise NotGreenError(f"without any mutation the tests fail already (status {run.status}):\n{run.output}")
    return perf_counter() - began
