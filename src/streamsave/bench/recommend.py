"""From measurements to a recommendation: pure, and no figure in it that was not measured.

A save goes as fast as the slowest of three lets it: the encoders, the destination, which takes compressed bytes, and QEMU.
Where QEMU's own rate is known it shares the processors with the encoders: each MiB of stream costs both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import UsageError
from ..units import MiB

Wish: TypeAlias = Literal["fastest", "smallest", "balanced"]
Limit: TypeAlias = Literal["compression", "destination", "QEMU"]

AS_GOOD: Final = 0.03
"""Saves that differ by less than this part of their time count as equally fast: measurements are no better."""
SPARE: Final = 1.1
"""How many more threads than are needed, so that they are not what all wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one level of one format did with the sample. Rates in MiB of stream per second, with ``threads`` threads."""

    format: str
    level: int | None
    """None: the format has no levels."""
    threads: int
    rate: float
    restore_rate: float
    ratio: float
    """Stream bytes per payload byte."""
    sample_size: int
    """How much of the stream was compressed to find out, in bytes."""

    @property
    def name(self) -> str:
        """``zstd 3``."""
        return self.format if self.level is None else f"{self.format} {self.level}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a save is to cope with. Rates in MiB/s; 0 is unknown, and then it does not limit."""

    stream_size: int
    """Bytes that QEMU will send."""
    source_rate: float = 0.0
    """What QEMU sends while nothing is compressed."""
    write_rate: float = 0.0
    """What the destination takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a save is expected to take, and the image after it."""

    save_s: float
    restore_s: float
    """Of decompressing alone: QEMU loads beside it."""
    image_size: int
    limit: Limit
    """What the save waits for."""
    threads: int
    """How many are enough for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The one to take for a wish."""

    measurement: Measurement
    expectation: Expectation
    fits: bool
    """Whether it stays within the time that was asked for; if not, nothing does, and this is the fastest."""


def expect(measured: Measurement, situation: Situation) -> Expectation:
    """What a save would take."""
    encoding = measured.rate
    if situation.source_rate:
        encoding = measured.threads / (measured.threads / measured.rate + 1 / situation.source_rate)
    rates: dict[Limit, float] = {"compression": encoding}
    if situation.write_rate:
        rates["destination"] = situation.write_rate * measured.ratio
    if situation.source_rate:
        rates["QEMU"] = situation.source_rate
    limit = min(rates, key=lambda each: rates[each])
    size = situation.stream_size
    return Expectation(
        save_s=size / MiB / rates[limit],
        restore_s=size / MiB / measured.restore_rate,
        image_size=round(size / measured.ratio),
        limit=limit,
        threads=max(1, min(measured.threads, math.ceil(SPARE * measured.threads * rates[limit] / encoding))),
    )


def recommend(
    measured: Sequence[Measurement], situation: Situation, wish: Wish, *, within_s: float | None = None
) -> Recommendation:
    """The measurement to take for ``wish``, among those that take no longer than ``within_s``.

    ``fastest``: the shortest save; of those that are as good the smallest image. ``smallest``: the smallest image.
    ``balanced``: the least product of time and size: twice the time has to halve the image.

    Raises:
        UsageError: nothing was measured.

    """
    if not measured:
        raise UsageError("nothing was measured: allow more seconds")
    expected = [(each, expect(each, situation)) for each in measured]
    fitting = [pair for pair in expected if within_s is None or pair[1].save_s <= within_s]
    best_s = min(expectation.save_s for _, expectation in fitting or expected)
    fast = [pair for pair in fitting or expected if pair[1].save_s <= best_s * (1 + AS_GOOD)]
    if wish == "fastest" or not fitting:
        chosen = min(fast, key=lambda pair: pair[1].image_size)
    elif wish == "smallest":
        chosen = min(fitting, key=lambda pair: (pair[1].image_size, pair[1].save_s))
    else:
        chosen = min(fitting, key=lambda pair: pair[1].save_s * pair[1].image_size)
    return Recommendation(measurement=chosen[0], expectation=chosen[1], fits=bool(fitting))


def worth_a_look(measured: Sequence[Measurement]) -> list[Measurement]:
    """Those of which no other is both faster and smaller, from the fastest to the smallest."""
    front: list[Measurement] = []
    for each in sorted(measured, key=lambda one: (-one.rate, -one.ratio)):
        if not front or each.ratio > front[-1].ratio:
            front.append(each)
    return front
