"""A pipeline in which nothing happens but time: what a level control does, for sources, encoders and sinks of any speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from streamsave.pipeline.bufpool import slot_count
from streamsave.pipeline.level_control import LevelControl


@dataclass
class Chunk:
    level: int = 0
    coded: bool = False


@dataclass
class SimulatedPipeline:
    """reader --> ``threads`` encoders --> writer over ``slot_count`` slots, as ``pipeline.stages`` has them.

    ``read_s``, ``encode_s`` and ``write_s`` say how many seconds a chunk takes there, given the time (and the level).
    """

    control: LevelControl
    threads: int
    read_s: Callable[[float], float]
    encode_s: Callable[[int, float], float]
    write_s: Callable[[int, float], float]
    now_s: float = 0.0
    written: list[tuple[float, int]] = field(default_factory=list)
    """When each chunk was written, and at which level."""
    changes: list[tuple[float, int]] = field(default_factory=list)
    """When the level changed, and to which."""

    def run(self, for_s: float) -> None:
        """From the start to ``for_s`` seconds later."""
        self._free, self._work, self._order = slot_count(self.threads), deque[Chunk](), deque[Chunk]()
        self._idle: deque[float | None] = deque([None] * self.threads)
        """The encoders that do not work: since when each has waited, None if there was work when it was done."""
        self._reading = self._writing = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._read()
        while self.now_s < for_s:
            self.now_s, _, happen = heappop(self._events)
            happen()

    @property
    def busy_count(self) -> int:
        """How many encoders work."""
        return self.threads - len(self._idle)

    def rate(self, from_s: float, to_s: float) -> float:
        """Chunks written per second in between."""
        return sum(from_s <= at < to_s for at, _ in self.written) / (to_s - from_s)

    def level_at(self, at_s: float) -> int:
        """The level of what was written then."""
        return next(level for at, level in self.written if at >= at_s)

    def changes_in(self, from_s: float, to_s: float) -> int:
        return sum(from_s <= at < to_s for at, _ in self.changes)

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heappush(self._events, (self.now_s + seconds, next(self._numbers), happen))

    def _read(self) -> None:
        if self._free and not self._reading:
            self._free -= 1
            self._reading = True
            self._after(self.read_s(self.now_s), self._publish)

    def _publish(self) -> None:
        chunk = Chunk()
        self._reading = False
        self._work.append(chunk)
        self._order.append(chunk)
        self._encode()
        self._read()

    def _encode(self) -> None:
        while self._work and self._idle:
            since, chunk = self._idle.popleft(), self._work.popleft()
            wait_s = 0.0 if since is None else self.now_s - since
            chunk.level = self.control.level
            self._after(work_s := self.encode_s(chunk.level, self.now_s), self._deliver(chunk, work_s, wait_s))

    def _deliver(self, chunk: Chunk, work_s: float, wait_s: float) -> Callable[[], None]:
        def deliver() -> None:
            before = self.control.level
            self.control.note(chunk.level, work_s=work_s, wait_s=wait_s, now_s=self.now_s)
            if self.control.level != before:
                self.changes.append((self.now_s, self.control.level))
            chunk.coded = True
            self._idle.append(None if self._work else self.now_s)
            self._encode()
            self._write()

        return deliver

    def _write(self) -> None:
        if not self._writing and self._order and self._order[0].coded:
            self._writing = True
            chunks = []
            while self._order and self._order[0].coded:
                chunks.append(self._order.popleft())
            self._after(sum(self.write_s(each.level, self.now_s) for each in chunks), lambda: self._recycle(chunks))

    def _recycle(self, chunks: list[Chunk]) -> None:
        self.written += [(self.now_s, each.level) for each in chunks]
        self._writing = False
        self._free += len(chunks)
        self._read()
        self._write()
