"""The moment from which on an image exists, and what may end an operation before it."""

from __future__ import annotations

from .mutation import Mutation

COMMIT = "operations/commit.py"
MONITOR = "qemu/monitor.py"

COMMITS = (
    # -- the commit and the limits
    Mutation(
        name="commit-given-up-anyhow",
        file=COMMIT,
        old="        if not self._file.naming:\n            self._finish(error)",
        new="        self._finish(error)",
        why="once the image may exist its commit is waited for",
        tests=("unit/test_commit.py::test_waited_for_once_the_image_gets_its_name",),
    ),
    Mutation(
        name="commit-not-aborted",
        file=COMMIT,
        old="        self._file.abort()\n",
        new="",
        why="a commit that was given up never gets as far as the name",
        tests=("unit/test_commit.py::test_given_up_at_once_and_for_good",),
    ),
    Mutation(
        name="commit-not-woken",
        file=COMMIT,
        old="        with cancel.waking(self._give_up):",
        new="        if True:",
        why="a disk that hangs keeps nobody",
        tests=("unit/test_commit.py::test_given_up_at_once_and_for_good",),
    ),
    Mutation(
        name="commit-interrupted-and-left",
        file=COMMIT,
        old="                self._wait_on()\n",
        new="",
        why="Ctrl-C while the image gets its name is too late",
        tests=("unit/test_commit.py::test_waited_for_once_the_image_gets_its_name",),
    ),
    Mutation(
        name="commit-begun-too-late",
        file=COMMIT,
        old="            if self._over.is_set():\n                return",
        new="            if False:\n                return",
        why="a commit that was given up before its thread ran does not touch the file, which is closed by then",
        tests=("unit/test_commit.py::test_interrupted_while_its_thread_starts",),
    ),
    Mutation(
        name="commit-not-joined",
        file="operations/save.py",
        old="        finally:\n            self._commit.join()\n",
        new="",
        why="no thread works on the file when it is closed",
        tests=("faults/test_limits.py::test_a_disk_that_hangs_in_the_commit_keeps_nobody",),
    ),
    Mutation(
        name="commit-error-lost",
        file=COMMIT,
        old="        if self._error is not None:\n            raise self._error\n",
        new="",
        why="a commit that failed is no image, and the guest runs on",
        tests=("unit/test_commit.py::test_its_error_is_raised",),
    ),
    Mutation(
        name="stopped-limit-check",
        file="operations/limits.py",
        old="            self._check(self._memory_size, self._limit_s, self._limit_s)",
        new="            pass",
        why="a limit that cannot be kept is told before the guest is stopped",
        tests=("faults/test_limits.py::test_more_memory_than_can_pass_in_time_is_not_even_stopped",),
    ),
    Mutation(
        name="stopped-limit-clock",
        file="operations/limits.py",
        old='        with cancel.limited(self._limit_s, _too_long(self._limit_s or 0, "it runs on")):',
        new="        if True:",
        why="--max-stopped ends a save whose guest stood still for so long",
        tests=("faults/test_limits.py::test_the_guest_may_not_stand_still_for_that_long",),
    ),
    Mutation(
        name="stopped-limit-look",
        file="operations/limits.py",
        old="        if memory_left / FASTEST > left_s:",
        new="        if memory_left / FASTEST > limit_s:",
        why="given up as soon as the rest cannot pass in time",
        tests=("faults/test_limits.py::test_given_up_as_soon_as_the_rest_cannot_pass_in_time",),
    ),
    Mutation(
        name="cancel-first-counts",
        file="cancel.py",
        old="            if self._error is not None:\n                return\n",
        new="",
        why="what ended an operation stays its reason",
        tests=("faults/test_limits.py::test_a_limit_wakes_what_waits",),
    ),
    Mutation(
        name="cancel-used-before",
        file="cancel.py",
        old="        if error is not None:\n            wake(error)\n        try:",
        new="        try:",
        why="a handle that was used before wakes what begins to wait later",
        tests=("system/test_fd_api.py::test_cancelled_before_it_began",),
    ),
    Mutation(
        name="limit-outlives",
        file="cancel.py",
        old="            over.set()\n            clock.join()\n",
        new="            pass\n",
        why="a limit that runs out after the operation changes nothing, and no clock is left",
        tests=("faults/test_limits.py::test_the_first_end_counts",),
    ),
    Mutation(
        name="monitor-starved",
        file=MONITOR,
        old="        if isinstance(error, MonitorLostError) and self._broke_by and is_lack_of_memory(self._broke_by):",
        new="        if False:",
        why="QEMU is not blamed for memory that this process lacks",
        tests=("system/test_monitor.py::test_no_memory_for_an_answer",),
    ),
    Mutation(
        name="monitor-interrupt-protected",
        file=MONITOR,
        old="            if not self._protected:\n                for outcome",
        new="            if True:\n                for outcome",
        why="giving the guest back is not cut short",
        tests=("system/test_monitor.py::test_uninterrupted",),
    ),
)
