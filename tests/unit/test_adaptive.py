"""What an adaptive encoder tells the level control of its time."""

from __future__ import annotations

from typing import Any

import pytest

from streamsave.pipeline import adaptive
from streamsave.pipeline.adaptive import AutoLevel
from streamsave.pipeline.stats import Stats

from ..fakes.codec import FakeCodec, FakeEncoder

ROOM = memoryview(bytearray(100))


class Clock:
    """Stands still, unless it is told otherwise."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(adaptive, "perf_counter", clock)
    return clock


class SteadyCodec(FakeCodec):
    """A chunk takes two seconds of ``clock``."""

    default_level = 9

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def encoder(self, level: int) -> FakeEncoder:
        clock = self._clock

        class Steady(FakeEncoder):
            def encode(self, chunk: memoryview, room: memoryview) -> Any:
                clock.now_s += 2
                return super().encode(chunk, room)

        return Steady()


def test_a_pause_counts_only_where_no_chunk_lay_ready(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = AutoLevel(SteadyCodec(clock), 1)
    heard: list[tuple[float, float]] = []
    monkeypatch.setattr(auto._control, "note", lambda _level, *, work_s, wait_s, now_s: heard.append((work_s, wait_s)))
    backlog = [0]
    encoder = auto.encoder(lambda: backlog[0], Stats())
    for ready, pause_s in ((0, 5), (3, 7), (0, 11)):
        backlog[0] = ready  # when it is done with this chunk
        encoder.encode(memoryview(b"chunk"), ROOM)
        clock.now_s += pause_s
    encoder.encode(memoryview(b"chunk"), ROOM)
    assert heard == [(2, 0), (2, 5), (2, 0), (2, 11)]


def test_the_level_of_the_moment_is_shown(clock: Clock) -> None:
    auto, stats = AutoLevel(SteadyCodec(clock), 1), Stats()
    encoder = auto.encoder(lambda: 1, stats)
    shown = []
    for _ in range(6):  # always busy
        encoder.encode(memoryview(b"chunk"), ROOM)
        shown.append(stats.level)
    assert shown == [9, 8, 8, 6, 6, 2]
    assert {use.level: use.frame_count for use in auto.uses()} == {9: 2, 8: 2, 6: 2}
