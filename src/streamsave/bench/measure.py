"""The sample through the real pipelines, level by level, in bounded time.

Memory on one side, nothing on the other: what is measured is the codec with all threads. Slow levels get a smaller part of
the sample, and its parts are not alike; so a ratio is taken relative to what one fast level makes of the same part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Final

from ..cancel import Cancellation
from ..codecs.base import Codec
from ..codecs.registry import codecs, find_codec
from ..endpoints.memory import DiscardSink, MemorySink, MemorySource
from ..errors import DestinationError
from ..options import DEFAULT_FORMAT
from ..pipeline.compress import Compression
from ..pipeline.decompress import Decompression
from ..pipeline.stages import Pipeline
from ..types import Buffer
from ..units import KiB, MiB
from .recommend import Measurement
from .sample import PIECE_SIZE, Sample

SHORT_S: Final = 0.15
"""Runs are repeated until they took so long together; the fastest counts, for nothing makes one faster than it can be."""
LARGEST_SHARE: Final = 0.15
"""How much of the time that is left one level may take."""
TRIAL_SIZE: Final = 256 * KiB
WRITE_SIZE: Final = 512 * MiB
WRITE_S: Final = 3.0

Tell = Callable[[str], None]
"""Called with what is measured next."""


def plan(codec: Codec) -> Iterator[int | None]:
    """The levels in the order in which they tell most: the default, the ends, then ever closer in between."""
    if not codec.levels:
        yield None
        return
    levels = list(codec.levels)
    ordered = [codec.default_level, levels[0], levels[-1]]
    step = len(levels)
    while step > 1:
        step = (step + 1) // 2
        ordered += levels[::step]
    yield from dict.fromkeys(ordered)


def measure(sample: Sample, threads: int, until_s: float, cancel: Cancellation, tell: Tell) -> list[Measurement]:
    """Every level of every format, as far as that goes until ``until_s`` of ``perf_counter``; each format's default first.

    Raises:
        Aborted: ``cancel`` was used.
        CodecError: a codec failed.

    """
    bench = _Bench(sample, threads, cancel)
    found = []
    plans = [(codec, plan(codec)) for codec in codecs().values()]
    while plans:
        for each in list(plans):
            codec, levels = each
            level = next(levels, _END)
            if isinstance(level, _End):
                plans.remove(each)
                continue
            cancel.check()
            tell(codec.name if level is None else f"{codec.name} {level}")
            measured = bench.level(codec, level, until_s - perf_counter())
            if measured is not None:
                found.append(measured)
    return found


class _End:
    pass


_END: Final = _End()


class _Bench:
    def __init__(self, sample: Sample, threads: int, cancel: Cancellation) -> None:
        self._sample = sample
        self._threads = threads
        self._cancel = cancel
        self._yardstick: list[int] = []
        """What each piece becomes by a fast level."""

    def level(self, codec: Codec, level: int | None, left_s: float) -> Measurement | None:
        """None: there is not time enough for even a chunk of each thread."""
        number = codec.default_level if level is None else level
        trial_s = self._trial(codec, number) if left_s > 0 else 0.0
        piece_s = trial_s * PIECE_SIZE / TRIAL_SIZE / self._threads
        least = -(-self._threads * codec.chunk_size // PIECE_SIZE)
        count = min(self._sample.piece_count, int(left_s * LARGEST_SHARE / piece_s) if piece_s else 0)
        if count < min(least, self._sample.piece_count) or count < 1:
            return None
        count = min(count, max(least, int(2 * SHORT_S / piece_s)))
        data, payload = self._sample.pieces(count), MemorySink()
        compress_s = self._best(lambda: self._compress(codec, number, data, payload))
        size = len(payload.data)
        decode_s = self._best(lambda: self._decode(codec, payload.data, size))
        return Measurement(
            format=codec.name,
            level=level,
            threads=self._threads,
            rate=len(data) / MiB / compress_s,
            restore_rate=len(data) / MiB / decode_s,
            ratio=self._ratio(size, count),
            sample_size=len(data),
        )

    def _ratio(self, size: int, count: int) -> float:
        if not self._yardstick:
            codec = find_codec(DEFAULT_FORMAT)
            encoder, room = codec.encoder(codec.levels[0]), _room(codec, MiB)
            for number in range(self._sample.piece_count):
                piece = self._sample.pieces(number + 1)[-PIECE_SIZE:]
                chunks = (memoryview(piece)[at : at + MiB] for at in range(0, PIECE_SIZE, MiB))
                self._yardstick.append(sum(len(part) for chunk in chunks for part in encoder.encode(chunk, room)))
        whole = size * sum(self._yardstick) / sum(self._yardstick[:count])
        return len(self._sample.data) / whole

    def _trial(self, codec: Codec, level: int) -> float:
        chunk = memoryview(self._sample.data)[PIECE_SIZE // 2 :][:TRIAL_SIZE]
        encoder, room = codec.encoder(level), _room(codec, TRIAL_SIZE)
        began_s = perf_counter()
        encoder.encode(chunk, room)
        return perf_counter() - began_s

    def _best(self, run: Callable[[], None]) -> float:
        times: list[float] = []
        while sum(times) < SHORT_S and len(times) < 5:
            began_s = perf_counter()
            run()
            times.append(perf_counter() - began_s)
        return min(times)

    def _compress(self, codec: Codec, level: int, data: Buffer, payload: MemorySink) -> None:
        first = not payload.data
        sink = payload if first else DiscardSink()
        self._run(Compression(MemorySource(data), sink, codec, level=level, threads=self._threads, observe=_ignore))

    def _decode(self, codec: Codec, payload: Buffer, size: int) -> None:
        with memoryview(payload) as view:
            self._run(
                Decompression(
                    MemorySource(view[:size]),
                    DiscardSink(),
                    codec,
                    threads=self._threads,
                    observe=_ignore,
                    path=Path("sample"),
                    payload_offset=0,
                )
            )

    def _run(self, pipeline: Pipeline) -> None:
        with self._cancel.waking(pipeline.fail):
            try:
                pipeline.start()
                pipeline.wait()
            except BaseException as error:
                pipeline.fail(error)
                raise
            finally:
                pipeline.join()


def _ignore(chunk: memoryview) -> None:
    """Nobody looks at the sample."""


def measure_writing(folder: Path, cancel: Cancellation) -> float:
    """MiB per second that a new file in ``folder`` takes until it is on disk: ``WRITE_S`` seconds of it, or ``WRITE_SIZE``.

    Random bytes, as compressed ones look; no more than a tenth of what is free there. Nothing is left behind.

    Raises:
        DestinationError: nothing can be written there.
        Aborted: ``cancel`` was used.

    """
    noise = os.urandom(PIECE_SIZE)
    try:
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        with tempfile.TemporaryFile(dir=folder, prefix=".streamsave-bench-") as file:
            began_s, size = perf_counter(), 0
            while not size or (size < min(WRITE_SIZE, free // 10) and perf_counter() - began_s < WRITE_S):
                cancel.check()
                file.write(noise)
                file.flush()
                size += len(noise)
                if size % (4 * PIECE_SIZE) == 0:
                    os.fsync(file.fileno())  # or memory would take it all, and tell nothing of the disk
            os.fsync(file.fileno())
            return size / MiB / (perf_counter() - began_s)
    except OSError as error:
        raise DestinationError(
            f"{folder}: cannot write a file there to see how fast it is: {error.strerror}; choose another folder",
            path=folder,
        ) from error


def _room(codec: Codec, size: int) -> memoryview:
    """For the frame of a chunk of ``size`` bytes."""
    return memoryview(bytearray(codec.bound(size)))
