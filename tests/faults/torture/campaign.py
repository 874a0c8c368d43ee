"""Many trials: workers that take them in turn, each in a world of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from .plan import draw
from .scene import Outcome
from .trial import run_trial
from .world import World


def run_campaign(seed: int, numbers: Sequence[int], jobs: int, tell: Callable[[Outcome], object]) -> list[Outcome]:
    """The trials of these ``numbers``, ``jobs`` at a time; ``tell`` hears of each as it ends, never twice at a time."""
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in numbers:
        waiting.put(number)
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def work() -> None:
        with World() as world:
            while True:
                try:
                    number = waiting.get_nowait()
                except Empty:
                    return
                outcome = run_trial(world, draw(seed, number))
                with lock:
                    outcomes.append(outcome)
                    tell(outcome)

    workers = [threading.Thread(target=work, name=f"worker-{number}") for number in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(outcomes, key=lambda outcome: outcome.plan.number)
