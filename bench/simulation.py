"""The real pipeline with a source, a codec and a sink that take time but no processor: how far the engine itself reaches.

The codec holds the interpreter lock as long as a real one was measured to (``lock``), and waits without it for the rest of
what a chunk takes, the chunk's digest included. The source lends its memory: reading costs nothing. The pipeline is the one
that saves guests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest.mock import patch

from tests.kit.pipelines import run_to_end

from streamsave.codecs.raw import Raw, RawEncoder
from streamsave.endpoints.memory import DiscardSink
from streamsave.format.digest import leaves_of
from streamsave.pipeline import compress
from streamsave.pipeline.compress import Compression
from streamsave.types import Buffer
from streamsave.units import MiB

NO_LEAVES = bytes(16)
FASTEST_S = 50e-6
"""No engine of ours takes less for a chunk: so many are tried when nothing else says how many."""


class LendingSource:
    """Gives ``count`` whole chunks, or with None chunks until it is told to ``end``; what is in them does not matter."""

    def __init__(self, count: int | None) -> None:
        self._left = count

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        if self._left is not None:
            if not self._left:
                return 0
            self._left -= 1
        return len(view)

    def end(self) -> None:
        """The next chunk is not there."""
        self._left = 0

    def abort(self) -> None:
        """See ``Source``."""
        self.end()

    def close(self) -> None:
        """See ``Source``."""


class SimulatedCodec(Raw):
    """Raw, but for its encoder: that takes ``total_s`` for a chunk of 1 MiB, ``hold_s`` of it with the interpreter lock."""

    name = "simulated"
    summary = "for measuring the engine"

    def __init__(self, hold_s: float, total_s: float) -> None:
        self._hold_s = hold_s
        self._total_s = total_s

    def encoder(self, level: int) -> RawEncoder:  # noqa: ARG002
        """See ``Codec``."""
        return _SimulatedEncoder(self._hold_s, self._total_s)


class _SimulatedEncoder(RawEncoder):
    def __init__(self, hold_s: float, total_s: float) -> None:
        self._hold_s = hold_s
        self._total_s = total_s
        self._frame = bytes(350 * 1024)

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:  # noqa: ARG002
        """Time, and a frame of a size that is usual; what is in it does not matter."""
        began = time.perf_counter()
        while (taken := time.perf_counter() - began) < self._hold_s:
            pass
        if (rest := self._total_s - taken) > 0:
            time.sleep(rest)
        return [self._frame]


@dataclass(frozen=True)
class Simulated:
    """What came of it. Rates in bytes of stream per second."""

    threads: int
    rate: float
    codec_rate: float
    """All threads' codecs together: what the rate would be if the engine cost nothing; 0: without bound."""


def simulate(threads: int, hold_s: float, total_s: float, seconds: float = 3.0) -> Simulated:
    """Run the pipeline with that many threads for about ``seconds``."""
    per_chunk = max(total_s / threads, hold_s, FASTEST_S)
    count = max(4 * threads, int(seconds / per_chunk))
    codec = SimulatedCodec(hold_s, total_s)
    sink = DiscardSink()
    pipeline = Compression(LendingSource(count), sink, codec, level=0, threads=threads, observe=lambda view: None)
    with patch.object(compress, leaves_of.__name__, lambda chunk: NO_LEAVES):
        began = time.perf_counter()
        run_to_end(pipeline)
        wall_s = time.perf_counter() - began
    return Simulated(threads, pipeline.stats.bytes_in / wall_s, threads * MiB / total_s if total_s else 0.0)


def engine_limit(seconds: float = 3.0) -> Iterator[Simulated]:
    """The rate with codecs that take no time at all: nothing but the engine, on as few threads as can be, and on more."""
    for threads in (1, 2, 8, 32):
        yield simulate(threads, 0.0, 0.0, seconds)
