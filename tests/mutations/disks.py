"""How bytes come to a disk: past the page cache, or through it at the disk's pace; and how names change places."""

from __future__ import annotations

from .mutation import Mutation

DIRECT = "endpoints/direct.py"
WRITEBACK = "endpoints/writeback.py"
EXCHANGE = "endpoints/exchange.py"
LIBC = "endpoints/libc.py"
DIRECT_TESTS = "unit/test_direct.py"
WRITEBACK_TESTS = "unit/test_writeback.py"
ENDPOINTS = "unit/test_endpoints.py"

DISKS = (
    # -- past the page cache
    Mutation(
        name="direct-full-disk",
        file=DIRECT,
        old=" or error.errno != errno.EINVAL:",
        new=":",
        why="a disk that is full does not refuse the flag",
        tests=(f"{DIRECT_TESTS}::test_a_full_disk",),
    ),
    Mutation(
        name="direct-unaligned-start",
        file=DIRECT,
        old="        if offset % BLOCK_SIZE:\n",
        new="        if False:\n",
        why="from there no block would be written as one",
        tests=(f"{DIRECT_TESTS}::test_an_offset_that_is_no_block",),
    ),
    Mutation(
        name="direct-tail",
        file=DIRECT,
        old="        self.stop()\n        self._write_out(self._fill)\n",
        new="        self._write_out(self._fill)\n        self.stop()\n",
        why="what fills no block cannot go past the cache",
        tests=(f"{DIRECT_TESTS}::test_whole_blocks_go_past_the_cache_and_the_tail_does_not",),
    ),
    Mutation(
        name="direct-part-of-a-block",
        file=DIRECT,
        old="self._view[done:size])",
        new="self._view[done // BLOCK_SIZE * BLOCK_SIZE : size])",
        why="a disk may take less than it is given",
        tests=(f"{DIRECT_TESTS}::test_a_file_system_that_takes_a_part_of_a_block",),
    ),
    Mutation(
        name="direct-rest",
        file=DIRECT,
        old="        self._view[: self._fill - size] = self._view[size : self._fill]\n",
        new="",
        why="what was not written yet comes next",
        tests=(f"{DIRECT_TESTS}::test_what_is_written",),
    ),
    Mutation(
        name="direct-abort",
        file=DIRECT,
        old="            self._check()\n",
        new="",
        why="an image that was given up is not written on",
        tests=(f"{DIRECT_TESTS}::test_an_aborted_image_writes_no_more",),
    ),
    Mutation(
        name="direct-flag-stays",
        file="endpoints/image_sink.py",
        old="                    self._direct.stop()\n",
        new="                    pass\n",
        why="a caller's descriptor shares the flag",
        tests=(f"{DIRECT_TESTS}::test_the_flag_is_off_again_whatever_happens",),
    ),
    Mutation(
        name="direct-refused-at-the-end",
        file="endpoints/image_sink.py",
        old="                self._direct.finish()\n                self._leave_refused_direct()\n",
        new="                self._direct.finish()\n",
        why="whoever asked for it is told that it was not done",
        tests=(f"{DIRECT_TESTS}::test_a_file_system_that_refuses",),
    ),
    Mutation(
        name="direct-refused-early",
        file="endpoints/image_sink.py",
        old="            self._direct = None\n            direct.finish()\n",
        new="            self._direct = None\n",
        why="what was gathered belongs to the image, too",
        tests=(f"{DIRECT_TESTS}::test_a_file_system_that_refuses",),
    ),
    # -- at the disk's pace
    Mutation(
        name="writeback-failed",
        file=WRITEBACK,
        old="        raise OSError(number, os.strerror(number))",
        new="        pass",
        why="the system tells of a write that failed only once",
        tests=(f"{WRITEBACK_TESTS}::test_what_has_no_disk_is_not_waited_for",),
    ),
    Mutation(
        name="writeback-without-a-disk",
        file=WRITEBACK,
        old="    if number and number not in _CANNOT:",
        new="    if number:",
        why="a pipe has nothing to wait for, and is no reason to fail",
        tests=(f"{WRITEBACK_TESTS}::test_what_has_no_disk_is_not_waited_for",),
    ),
    Mutation(
        name="writeback-unknown-call",
        file=WRITEBACK,
        old="errno.EINVAL, errno.ENOSYS,",
        new="errno.EINVAL,",
        why="nor is a system that does not know the call",
        tests=(f"{WRITEBACK_TESTS}::test_a_c_library_without_the_call",),
    ),
    Mutation(
        name="writeback-advice",
        file=WRITEBACK,
        old="    with suppress(OSError):  # advice\n",
        new="    if True:\n",
        why="what is only advice cannot fail",
        tests=(f"{WRITEBACK_TESTS}::test_what_has_no_disk_is_not_waited_for",),
    ),
    Mutation(
        name="writeback-backlog",
        file="endpoints/image_sink.py",
        old="            wait_for_writeback(self._fd, self._settled_offset, settled - self._settled_offset)\n",
        new="",
        why="a writer that cannot feel the disk lets the level sink, and memory fill",
        tests=(f"{WRITEBACK_TESTS}::test_the_backlog_is_bounded_where_that_is_wanted",),
    ),
    # -- names that change places
    Mutation(
        name="exchange-is-no-rename",
        file=EXCHANGE,
        old="RENAME_EXCHANGE: Final = 2",
        new="RENAME_EXCHANGE: Final = 0",
        why="the older image has to be somewhere until the new one is there for certain",
        tests=(f"{ENDPOINTS}::test_names_change_places",),
    ),
    Mutation(
        name="exchange-failed",
        file=EXCHANGE,
        old="        raise OSError(number, os.strerror(number), os.fspath(first), None, os.fspath(second))",
        new="        pass",
        why="names that did not change places are an error",
        tests=(f"{ENDPOINTS}::test_names_change_places",),
    ),
    Mutation(
        name="exchange-unknown-call",
        file=LIBC,
        old="        return errno.ENOSYS",
        new="        return 0",
        why="a C library without the call did nothing",
        tests=(f"{ENDPOINTS}::test_names_cannot_change_places_where_the_system_does_not_know_how",),
    ),
    Mutation(
        name="libc-error-number",
        file=LIBC,
        old="use_errno=True",
        new="use_errno=False",
        why="why it failed is in the error number, and nowhere else",
        tests=(f"{ENDPOINTS}::test_names_change_places",),
    ),
)
