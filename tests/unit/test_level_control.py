"""The level control in a pipeline in which only time passes: it ends up where it should, soon, and stays there."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from streamsave.pipeline.level_control import BAR_S, FULL, STRIDE_MAX, LevelControl
from tests.fakes.pipeline import SimulatedPipeline

ENCODE_S = (0.002, 0.0024, 0.0033, 0.004, 0.0065, 0.0085, 0.011, 0.013, 0.016, 0.02, 0.028, 0.038, 0.075, 0.1, 0.15, 0.25)
"""Seconds for a chunk at levels 1, 2, ...: a hundred times as long from the first to the last, in uneven steps."""
LEVELS = range(1, len(ENCODE_S) + 1)
START = 3
FAST_S = 0.0004
"""A source or a sink that nobody waits for."""

Seconds = Callable[[float], float]


def ratio(level: int) -> float:
    """Payload per byte of stream."""
    return 0.36 - 0.006 * level


def simulate(threads: int, read_s: Seconds, write_s: Seconds, for_s: float = 60.0, jitter: float = 0.1) -> SimulatedPipeline:
    """Seconds per chunk of the stream for the source, per chunk of the payload for the sink, each at a time."""
    random = Random(threads)

    def about(seconds: float) -> float:
        return seconds * random.uniform(1 - jitter, 1 + jitter)

    pipeline = SimulatedPipeline(
        LevelControl(LEVELS, START, threads),
        threads,
        lambda at: about(read_s(at)),
        lambda level, at: about(ENCODE_S[level - 1]),
        lambda level, at: about(write_s(at) * ratio(level)),
    )
    pipeline.run(for_s)
    return pipeline


def steady(seconds: float) -> Seconds:
    return lambda at: seconds


def rate_at(level: int, threads: int, read_s: float, write_s: float) -> float:
    """Chunks per second at that level and no other."""
    return min(threads / ENCODE_S[level - 1], 1 / read_s, 1 / (write_s * ratio(level)))


def load_at(level: int, threads: int, read_s: float, write_s: float) -> float:
    return rate_at(level, threads, read_s, write_s) * ENCODE_S[level - 1] / threads


@pytest.mark.parametrize("threads", [1, 2, 8, 32])
@pytest.mark.parametrize("read_s", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("write_s", [FAST_S, 0.01, 0.05])
def test_converges_where_the_encoders_just_keep_up(threads: int, read_s: float, write_s: float) -> None:
    pipeline = simulate(threads, steady(read_s), steady(write_s))
    fitting = [level for level in LEVELS if load_at(level, threads, read_s, write_s) < FULL]
    best = max(fitting, default=LEVELS[0])
    level = pipeline.level_at(50)
    assert best - 3 <= level <= best + 1, f"level {level}, and {best} fits"
    wanted = rate_at(best, threads, read_s, write_s)
    assert pipeline.rate(30, 60) >= 0.9 * wanted, "nobody waits for the encoders"
    assert load_at(level, threads, read_s, write_s) > 0.55 or level == LEVELS[-1], "nor do they wait much"


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize(("read_s", "write_s"), [(FAST_S, 0.01), (FAST_S, 0.05), (0.01, FAST_S), (0.015, 0.03)])
def test_the_changes_become_rare(threads: int, read_s: float, write_s: float) -> None:
    pipeline = simulate(threads, steady(read_s), steady(write_s), for_s=240.0, jitter=0.3)
    assert len(pipeline.changes) <= 4 * math.log2(240 / BAR_S)
    assert pipeline.changes_in(120, 240) <= 4


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize(("turn_s", "write_s"), [(0.6, 0.05), (2.0, 0.1), (5.0, 0.03)])
def test_does_not_swing_with_a_sink_that_stalls_in_turns(threads: int, turn_s: float, write_s: float) -> None:
    """The longest turn is longer than any window: there it may follow, but not for ever."""
    pipeline = simulate(threads, steady(FAST_S), lambda at: FAST_S if at % turn_s < turn_s / 2 else write_s, for_s=240.0)
    assert len(pipeline.changes) <= 45
    assert pipeline.changes_in(180, 240) <= 8


@pytest.mark.parametrize("threads", [2, 8])
def test_follows_a_source_and_a_sink_that_change(threads: int) -> None:
    def read_s(at: float) -> float:
        return 0.05 if 20 <= at < 50 else FAST_S

    def write_s(at: float) -> float:
        return 0.05 if at >= 90 else FAST_S

    pipeline = simulate(threads, read_s, write_s, for_s=130.0)
    fast, slow = pipeline.level_at(15), pipeline.level_at(45)
    assert slow >= fast + 5
    assert load_at(slow, threads, 0.05, FAST_S) > 0.5
    assert pipeline.rate(44, 50) >= 0.95 * 20
    assert pipeline.rate(60, 90) >= 0.85 * pipeline.rate(5, 20), "back at the speed of before within ten seconds"
    assert load_at(pipeline.level_at(125), threads, FAST_S, 0.05) > 0.5
    assert len(pipeline.changes) <= 40


def contended(levels: range, read_s: float, write_s: float) -> SimulatedPipeline:
    """Two processors for two encoders, the source and the sink: whoever works slows the others down."""
    random = Random(3)

    def about(seconds: float) -> float:
        return seconds * max(1.0, (pipeline.busy_count + 2) / 2) * random.uniform(0.8, 1.2)

    pipeline = SimulatedPipeline(
        LevelControl(levels, max(levels[0], START), 2),
        2,
        lambda at: about(read_s),
        lambda level, at: about(ENCODE_S[level - 1]),
        lambda level, at: about(write_s * ratio(level)),
    )
    pipeline.run(60)
    return pipeline


@pytest.mark.parametrize(("read_s", "write_s"), [(0.01, FAST_S), (0.004, FAST_S), (FAST_S, 0.02), (FAST_S, 0.05)])
def test_does_not_take_the_processors_from_those_it_waits_for(read_s: float, write_s: float) -> None:
    """Or they would get slower, the encoders would wait more, and the level would rise again: stuck at low speed."""
    rate = contended(LEVELS, read_s, write_s).rate(20, 60)
    lowest = contended(range(START, START + 1), read_s, write_s).rate(20, 60)
    highest = contended(range(LEVELS[-1], LEVELS[-1] + 1), read_s, write_s).rate(20, 60)
    assert highest < 0.5 * lowest, "there is something to lose"
    assert rate > 0.75 * lowest


def test_a_hundred_times_too_slow_is_left_within_seconds() -> None:
    """All encoders are busy with chunks of a quarter of a second when the source wakes up."""
    pipeline = simulate(2, lambda at: 0.2 if at < 60 else FAST_S, steady(FAST_S), for_s=90.0)
    assert pipeline.level_at(59) >= LEVELS[-1] - 1
    assert pipeline.level_at(66) <= 2


def noted(control: LevelControl, load: float, now_s: float, size: float = 1.0) -> float:
    """Let ``control`` hear of a chunk, for ``size`` times 10 ms, after ``now_s``; the time afterwards."""
    seconds = 0.01 * size
    control.note(control.level, work_s=seconds * load, wait_s=seconds * (1 - load), now_s=now_s + seconds)
    return now_s + seconds


def told(control: LevelControl, load: float, windows: int = 1, now_s: float = 0.0) -> float:
    """Let ``control`` see so many times two seconds of that load; the time afterwards."""
    for _ in range(windows * 200):
        now_s = noted(control, load, now_s)
    return now_s


def test_no_level_outside_of_the_range() -> None:
    control = LevelControl(range(3, 6), 4, 1)
    now_s = told(control, 1.0, 20)
    assert control.level == 3
    now_s = told(control, 0.01, 20, now_s)
    assert control.level == 5
    assert LevelControl(range(7, 8), 7, 1).level == told_level(LevelControl(range(7, 8), 7, 1), 0.01) == 7


def told_level(control: LevelControl, load: float) -> int:
    told(control, load, 10)
    return control.level


def test_what_was_compressed_at_another_level_does_not_count() -> None:
    control = LevelControl(range(1, 10), 5, 1)
    for number in range(1000):
        control.note(9, work_s=0.01, wait_s=0.0, now_s=number * 0.01)
    assert control.level == 5


def test_one_window_with_room_is_no_reason_to_climb() -> None:
    control, now_s = LevelControl(range(1, 10), 5, 1), 0.0
    for number in range(100):  # each is a window
        now_s = noted(control, 0.9 if number % 2 else 0.2, now_s, size=30)
    assert control.level == 5


def test_every_encoder_is_heard_before_a_decision() -> None:
    """And those that were at work when the level changed once more."""
    control, now_s, at = LevelControl(range(1, 10), 9, 4), 0.0, []
    for _ in range(30):
        at.append(control.level)
        now_s += 1
        control.note(control.level, work_s=4.0, wait_s=0.0, now_s=now_s)
    assert [at.count(level) for level in (9, 8, 6, 2)] == [8, 8, 8, 6]


def test_a_rate_that_falls_later_is_not_the_levels_fault() -> None:
    control = LevelControl(range(1, 3), 1, 1)
    now_s = told(control, 0.3, 2)
    assert control.level == 2
    for _ in range(100):
        now_s += 0.1
        control.note(2, work_s=0.03, wait_s=0.07, now_s=now_s)
    assert control.level == 2


@pytest.mark.parametrize(("load", "level"), [(0.62, 5), (0.59, 6)])
def test_a_level_that_nobody_has_seen_needs_some_room(load: float, level: int) -> None:
    assert told_level(LevelControl(range(1, 7), 5, 1), load) == level


@pytest.mark.parametrize(("load", "least_s", "most_s"), [(0.35, BAR_S, BAR_S + 1), (0.25, 0, 1)])
def test_a_level_that_is_barred_needs_more_room(load: float, least_s: float, most_s: float) -> None:
    """It is twice the work, and that is known: 0.7 of the time is little enough only later on, 0.5 at once."""
    control, now_s = LevelControl(range(1, 3), 2, 1), 0.0
    while control.level == 2:
        now_s = noted(control, 1.0, now_s)
    left_s = now_s
    while control.level == 1:
        now_s = noted(control, load, now_s, size=0.5 / load)
    assert least_s <= now_s - left_s <= most_s


@pytest.mark.parametrize("load", [0.0, 0.9, 1.0])
def test_what_it_knows_does_not_grow_with_time(load: float) -> None:
    control = LevelControl(range(1, 10), 5, 1)
    now_s = told(control, load, 50)
    before = len(pickle.dumps(vars(control)))
    told(control, load, 500, now_s)
    assert len(pickle.dumps(vars(control))) <= before + 8, "a few digits more of a count"


def test_climbs_a_few_levels_at_a_time_and_falls_ever_faster() -> None:
    control = LevelControl(range(1, 100), 50, 1)
    levels, now_s = [control.level], 0.0
    for _ in range(400):
        now_s += 0.01
        control.note(control.level, work_s=0.01, wait_s=0.0, now_s=now_s)
        if control.level != levels[-1]:
            levels.append(control.level)
    assert levels == [50, 49, 47, 43, 35, 19, 1]
    levels = [control.level]
    for _ in range(400):
        now_s += 0.01
        control.note(control.level, work_s=0.0001, wait_s=0.0099, now_s=now_s)
        if control.level != levels[-1]:
            levels.append(control.level)
    assert {higher - lower for lower, higher in pairwise(levels)} == {STRIDE_MAX}


def test_a_level_that_had_to_be_left_is_tried_again_later_and_later() -> None:
    control = LevelControl(range(1, 3), 1, 1)
    tried, now_s = [], 0.0
    while now_s < 200:
        now_s += 0.01
        before = control.level
        load = 0.59 if control.level == 1 else 1.0  # so there is room at 1, and none at 2
        control.note(control.level, work_s=0.01 * load, wait_s=0.01 * (1 - load), now_s=now_s)
        if control.level > before:
            tried.append(now_s)
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert 4 <= len(waits) <= 7
    assert all(later > 1.4 * earlier for earlier, later in pairwise(waits))
