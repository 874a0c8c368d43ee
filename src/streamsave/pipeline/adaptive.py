"""Level ``auto``: encoders whose level changes between two chunks, so that they keep up and never more than that.

What is shared by the encoders of one pipeline is in ``AutoLevel``; the decision itself in ``level_control``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import perf_counter

from ..codecs.base import Codec
from ..format.levels import LevelUse
from ..types import Buffer
from .level_control import LevelControl
from .stats import Stats

KEPT_ENCODERS = 3
"""How many levels' contexts a thread keeps: the one in use and those around it. zstd's highest take 20 MiB each."""


class AutoLevel:
    """The level of all encoders of one pipeline, and what was compressed at which."""

    def __init__(self, codec: Codec, threads: int) -> None:
        self._codec = codec
        self._control = LevelControl(codec.levels, codec.default_level, threads)
        self._lock = threading.Lock()
        self._uses: dict[int, LevelUse] = {}

    @property
    def level(self) -> int:
        """The one that the next chunk is compressed at."""
        return self._control.level

    def uses(self) -> tuple[LevelUse, ...]:
        """What was compressed so far, from the lowest level to the highest."""
        with self._lock:
            return tuple(self._uses[level] for level in sorted(self._uses))

    def encoder(self, backlog: Callable[[], int], stats: Stats) -> AdaptiveEncoder:
        """A new encoder for the calling thread. ``backlog``: how many chunks wait to be taken by any of them."""
        return AdaptiveEncoder(self, self._codec, backlog, stats)

    def note(self, level: int, chunk_size: int, frame_size: int, *, work_s: float, wait_s: float, now_s: float) -> None:
        """A chunk was compressed. See ``LevelControl.note``."""
        with self._lock:
            self._control.note(level, work_s=work_s, wait_s=wait_s, now_s=now_s)
            self._uses[level] = self._uses.get(level, LevelUse(level)).plus(chunk_size, frame_size)


class AdaptiveEncoder:
    """An ``Encoder`` that compresses each chunk at the level of the moment. Belongs to one thread."""

    def __init__(self, auto: AutoLevel, codec: Codec, backlog: Callable[[], int], stats: Stats) -> None:
        self._auto = auto
        self._encoder_of = lru_cache(KEPT_ENCODERS)(codec.encoder)
        self._backlog = backlog
        self._stats = stats
        self._waits_since_s: float | None = None
        """When it was done with a chunk and found no other; None: it went on at once."""

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """See ``Encoder``."""
        began_s = perf_counter()
        wait_s = 0.0 if self._waits_since_s is None else began_s - self._waits_since_s
        level = self._auto.level
        parts = self._encoder_of(level).encode(chunk, room)
        ended_s = perf_counter()
        self._waits_since_s = None if self._backlog() else ended_s
        frame_size = sum(len(part) for part in parts)
        self._auto.note(level, len(chunk), frame_size, work_s=ended_s - began_s, wait_s=wait_s, now_s=ended_s)
        self._stats.level = self._auto.level
        return parts
