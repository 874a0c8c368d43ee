"""What a trial is: drawn from the campaign's seed and its own number."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random
from typing import Final

from ..instants import OF_A_RESTORE, OF_A_SAVE
from .faults import FAULTS, SOME_TIME, Fault

QUICK: Final = ("raw", "zstd", "lz4", "snappy", "gzip", "lzop")
SLOW: Final = ("xz", "bzip2")
LEVELS: Final = {"zstd": (None, 1, 3, 6), "gzip": (None, 1, 3), "lzop": (None, 1), "xz": (0,), "bzip2": (1, 9)}
THENS: Final = ("quit", "resume", "resume", "pause")


@dataclass(frozen=True)
class Plan:
    """A trial before it begins. The same seed and number draw the same plan, wherever and in whatever company it runs."""

    seed: int
    number: int
    fault: str
    instant: str
    """Where it strikes; ``SOME_TIME``: ``after_s`` seconds after the start; empty: it is there from the start."""
    part: float
    """Of the stream, for an instant in mid-stream."""
    after_s: float
    amount: float
    """What the fault makes of it: a call's number, a size, seconds."""
    format: str
    level: int | None
    threads: int
    then: str
    transport: str
    older: bool
    """Whether an older image is at the destination."""
    paused: bool
    """Whether the guest is paused from the start."""
    by_command: bool
    """Whether a restore starts its QEMU itself."""

    def __str__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)}" for each in fields(self) if each.name not in ("seed", "number"))
        return f"trial {self.number}: {', '.join(shown)}"

    @property
    def replay(self) -> str:
        """The command that runs it again."""
        return f"python -m tests.faults.torture --seed {self.seed} --trial {self.number}"


def draw(seed: int, number: int) -> Plan:
    """The faults take turns, in an order of their own for each round; all else is chance."""
    turn, place = divmod(number, len(FAULTS))
    order = sorted(FAULTS)
    Random(f"{seed} round {turn}").shuffle(order)
    fault = FAULTS[order[place]]
    chance = Random(f"{seed} {number}")
    codec = chance.choice(SLOW if chance.random() < 0.15 else QUICK)
    paused = chance.random() < 0.15 and not fault.restores
    by_command = fault.by_command if fault.by_command is not None else chance.random() < 0.5
    return Plan(
        seed=seed,
        number=number,
        fault=fault.name,
        instant=_instant(fault, chance, paused=paused, by_command=by_command),
        part=chance.uniform(0.05, 0.7),
        after_s=chance.uniform(0.05, 1.2),
        amount=round(chance.uniform(*fault.amount), 3),
        format=codec,
        level=chance.choice(LEVELS.get(codec, (None,))),
        threads=chance.choice((1, 2, 3)),
        then=chance.choice(THENS),
        transport="unix" if fault.proxied else chance.choice(("fd", "fd", "unix")),
        older=chance.random() < 0.6,
        paused=paused,
        by_command=by_command,
    )


def _instant(fault: Fault, chance: Random, *, paused: bool, by_command: bool) -> str:
    if not fault.instants:
        return ""
    instants = [each for each in fault.instants if not (paused and each in ("before stop", "stopped"))]
    if fault.restores and not by_command:
        instants = [each for each in instants if each != "started"]
    return chance.choice(instants)


def order_of(instant: str, *, restores: bool) -> int:
    """Its place among the instants of its operation; before all of them where it is not one."""
    instants = OF_A_RESTORE if restores else OF_A_SAVE
    return -1 if instant in ("", SOME_TIME) else instants.index(instant)
