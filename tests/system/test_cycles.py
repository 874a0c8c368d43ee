"""One process that saves and restores a guest again and again, in every format in turn: nothing in it grows."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from streamsave.codecs.registry import codecs
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import RestoreOptions, SaveOptions
from streamsave.units import MiB

from ..kit.leaks import Belongings, memory
from ..kit.qemu import RunningQemu, demo_guest

pytestmark = pytest.mark.qemu
FORMATS: Final = tuple(codecs())
GROWTH: Final = 6 * MiB
"""What the allocator may keep more after any number of cycles: pieces between what lives longer."""


@dataclass(frozen=True)
class Look:
    """What the process has after so many cycles."""

    cycles: int
    resident: int
    """Bytes of memory."""
    has: Belongings


class Cycles:
    """A guest that goes from one QEMU into the next; each is started by ``restore``, and ended by ``save``."""

    def __init__(self, first: RunningQemu, image: Path) -> None:
        self._first = first
        self._image = image
        self._wait: Callable[[], object] = first.wait
        self.end: Callable[[], object] = lambda: None
        self.count = 0

    def run(self, count: int) -> Look:
        """So many more, two threads on each side."""
        for _ in range(count):
            options = SaveOptions(format=FORMATS[self.count % len(FORMATS)], threads=2)
            save(self._first.monitor, self._image, options)
            self._wait()
            report = restore(self._image, command=self._first.command, options=RestoreOptions(threads=2))
            assert report.process is not None, "restore() was given a command"
            self._wait, self.end = report.process.wait, report.process.terminate
            self.count += 1
        gc.collect()
        ctypes.CDLL(None).malloc_trim(
            0
        )  # what threads that are gone have freed lies about in their arenas, more or less of it
        return Look(self.count, memory("VmRSS"), Belongings.now())


@pytest.fixture
def cycles(qemu: str, image: Path) -> Iterator[Cycles]:
    with RunningQemu(demo_guest(16 * MiB)) as first:
        first.boot().qmp().close()
        cycles = Cycles(first, image)
        try:
            yield cycles
        finally:
            cycles.end()
        assert first.console.seamless(), "the guest lost or repeated something on its way"
        assert first.counter() > cycles.count // 2


def nothing_grows(looks: Sequence[Look]) -> None:
    """From the first look, after the warm-up, to the last."""
    for look in looks:
        threads, descriptors, children = (len(each) for each in (look.has.threads, look.has.descriptors, look.has.children))
        print(
            f"after {look.cycles:3} cycles: {look.resident / MiB:.1f} MiB,"
            f" {threads} threads, {descriptors} descriptors, {children} children"
        )
    first, last = looks[0], looks[-1]
    assert len(last.has.threads) == len(first.has.threads)
    assert len(last.has.descriptors) == len(first.has.descriptors)
    assert len(last.has.children) == len(first.has.children)
    assert last.resident - first.resident < GROWTH


@pytest.mark.slow
def test_a_few_cycles(cycles: Cycles) -> None:
    """A buffer or a context that each cycle kept would show in every step, unlike what the first cycles take for good.

    Nor do pieces of memory that other tests of this process left between those that are in use.
    """
    steps = pairwise([cycles.run(len(FORMATS)) for _ in range(4)])
    nothing_grows(min(steps, key=lambda step: step[1].resident - step[0].resident))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_three_hundred_cycles(cycles: Cycles) -> None:
    looks = [cycles.run(60) for _ in range(5)]
    nothing_grows(looks)
    assert cycles.count == 300


@pytest.mark.parametrize("what", ["memory", "descriptor"])
def test_what_grows_is_seen(what: str, cycles: Cycles) -> None:
    before = cycles.run(1)
    kept = bytearray(b"x" * 2 * GROWTH) if what == "memory" else Path("/dev/null").open("rb")  # noqa: SIM115
    after = cycles.run(1)
    with pytest.raises(AssertionError):
        nothing_grows([before, after])
    if not isinstance(kept, bytearray):
        kept.close()
