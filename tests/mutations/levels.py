"""Level auto: what the encoders tell of their time, and what is made of it."""

from __future__ import annotations

from .mutation import Mutation

CONTROL = "pipeline/level_control.py"
ADAPTIVE = "pipeline/adaptive.py"
CONTROL_TESTS = "unit/test_level_control.py"
ADAPTIVE_TESTS = "unit/test_adaptive.py"

LEVELS = (
    # -- the encoders
    Mutation(
        name="adaptive-no-wait",
        file=ADAPTIVE,
        old="        self._waits_since_s = None if self._backlog() else ended_s\n",
        new="        self._waits_since_s = ended_s\n",
        why="where chunks lie ready a pause is no waiting, and no room for a higher level",
        tests=(f"{ADAPTIVE_TESTS}::test_a_pause_counts_only_where_no_chunk_lay_ready",),
    ),
    Mutation(
        name="adaptive-wait-is-work",
        file=ADAPTIVE,
        old="work_s=ended_s - began_s, wait_s",
        new="work_s=ended_s - began_s + wait_s, wait_s",
        why="load is the part of the time in which something was done",
        tests=(f"{ADAPTIVE_TESTS}::test_a_pause_counts_only_where_no_chunk_lay_ready",),
    ),
    Mutation(
        name="adaptive-shown-level",
        file=ADAPTIVE,
        old="        self._stats.level = self._auto.level\n",
        new="",
        why="progress tells the level of the moment",
        tests=(f"{ADAPTIVE_TESTS}::test_the_level_of_the_moment_is_shown",),
    ),
    Mutation(
        name="adaptive-all-encoders",
        file=ADAPTIVE,
        old="lru_cache(KEPT_ENCODERS)",
        new="lru_cache(None)",
        why="each level's context takes memory, in each thread",
        tests=("unit/test_pipeline.py::test_a_thread_keeps_the_encoders_of_the_levels_around",),
    ),
    # -- the control
    Mutation(
        name="level-of-before",
        file=CONTROL,
        old="        if level != self.level:\n            return\n",
        new="",
        why="chunks of the level before say nothing of this one",
        tests=(f"{CONTROL_TESTS}::test_what_was_compressed_at_another_level_does_not_count",),
    ),
    Mutation(
        name="level-not-settled",
        file=CONTROL,
        old="        self._settling = self._threads\n",
        new="",
        why="nor do those that were at work when it changed",
        tests=(f"{CONTROL_TESTS}::test_every_encoder_is_heard_before_a_decision",),
    ),
    Mutation(
        name="level-one-encoder",
        file=CONTROL,
        old="        if self._count >= self._threads and now_s",
        new="        if now_s",
        why="one encoder does not tell of all",
        tests=(f"{CONTROL_TESTS}::test_every_encoder_is_heard_before_a_decision",),
    ),
    Mutation(
        name="level-full",
        file=CONTROL,
        old="        if load >= FULL:\n",
        new="        if load > 1:\n",
        why="a level that cannot keep up is left",
        tests=(f"{CONTROL_TESTS}::test_no_level_outside_of_the_range",),
    ),
    Mutation(
        name="level-stride",
        file=CONTROL,
        old="            self._stride = min(2 * self._stride, len(self._levels))\n",
        new="",
        why="a level far too high is left within seconds",
        tests=(f"{CONTROL_TESTS}::test_climbs_a_few_levels_at_a_time_and_falls_ever_faster",),
    ),
    Mutation(
        name="level-stride-without-end",
        file=CONTROL,
        old="min(2 * self._stride, len(self._levels))",
        new="2 * self._stride",
        why="a save of many hours needs no number of many thousand digits",
        tests=(f"{CONTROL_TESTS}::test_what_it_knows_does_not_grow_with_time",),
    ),
    Mutation(
        name="level-rates-without-end",
        file=CONTROL,
        old="deque(maxlen=2)",
        new="deque()",
        why="nor all rates that there ever were",
        tests=(f"{CONTROL_TESTS}::test_what_it_knows_does_not_grow_with_time",),
    ),
    Mutation(
        name="level-rate-lost",
        file=CONTROL,
        old="sum(self._rates) < KEPT_RATE * self._raised_from[1]",
        new="False",
        why="a higher level that takes the processors from source and sink would rise on and on",
        tests=(f"{CONTROL_TESTS}::test_does_not_take_the_processors_from_those_it_waits_for",),
    ),
    Mutation(
        name="level-rate-later",
        file=CONTROL,
        old="self._window_count == 2 and",
        new="len(self._rates) == 2 and",
        why="a source that slows down later is not the level's fault",
        tests=(f"{CONTROL_TESTS}::test_a_rate_that_falls_later_is_not_the_levels_fault",),
    ),
    Mutation(
        name="level-one-window",
        file=CONTROL,
        old="            if higher > self.level and self._roomy:\n",
        new="            if higher > self.level:\n",
        why="one window with room is chance",
        tests=(f"{CONTROL_TESTS}::test_one_window_with_room_is_no_reason_to_climb",),
    ),
    Mutation(
        name="level-bar",
        file=CONTROL,
        old="now_s + 2 * bar_s, 2 * bar_s",
        new="now_s + BAR_S, BAR_S",
        why="a level that is too high is not tried for ever",
        tests=(f"{CONTROL_TESTS}::test_a_level_that_had_to_be_left_is_tried_again_later_and_later",),
    ),
    Mutation(
        name="level-clear-room",
        file=CONTROL,
        old="(self._cost_s[self.level] or 1.0) < CLEAR_ROOM",
        new="(self._cost_s[self.level] or 1.0) < ROOM",
        why="while it is barred things must have changed a lot",
        tests=(f"{CONTROL_TESTS}::test_a_level_that_is_barred_needs_more_room",),
    ),
    Mutation(
        name="level-barred-for-good",
        file=CONTROL,
        old="                fits = load * self._cost_s[level] / (self._cost_s[self.level] or 1.0) < CLEAR_ROOM\n",
        new="                fits = False\n",
        why="and when they have, it need not wait",
        tests=(f"{CONTROL_TESTS}::test_a_level_that_is_barred_needs_more_room",),
    ),
    Mutation(
        name="level-room",
        file=CONTROL,
        old="** (level - self.level) < ROOM",
        new="** (level - self.level) < 2",
        why="a level that nobody has seen is guessed at before it is tried",
        tests=(f"{CONTROL_TESTS}::test_a_level_that_nobody_has_seen_needs_some_room",),
    ),
    Mutation(
        name="level-windows",
        file=CONTROL,
        old="            self._window_s = min(2 * self._window_s, WINDOW_MAX_S)\n",
        new="",
        why="a sink that takes and stalls in turns is seen as what it is on average",
        tests=(f"{CONTROL_TESTS}::test_does_not_swing_with_a_sink_that_stalls_in_turns",),
    ),
    Mutation(
        name="level-fast-climb",
        file=CONTROL,
        old="STRIDE_MAX: Final = 3",
        new="STRIDE_MAX: Final = 30",
        why="how much work a level far away is nobody can guess",
        tests=(f"{CONTROL_TESTS}::test_climbs_a_few_levels_at_a_time_and_falls_ever_faster",),
    ),
)
