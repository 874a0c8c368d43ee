"""What takes another file's place, or is written over; what killed saves leave."""

from __future__ import annotations

from .mutation import Mutation

REPLACEMENT = "endpoints/replacement.py"
LEFTOVERS = "endpoints/leftovers.py"

REPLACING = (
    # -- replacements
    Mutation(
        name="replacement-changed-at-the-last-moment",
        file=REPLACEMENT,
        old="        check_unchanged(self.path, self._old_status)\n        try:\n            changed_places",
        new="        try:\n            changed_places",
        why="a managed save that libvirt used up does not come back",
        tests=("faults/test_replacement.py::test_an_image_that_was_used_up_does_not_come_back",),
    ),
    Mutation(
        name="replacement-changed-by-then",
        file=REPLACEMENT,
        old="        check_unchanged(self.temporary, self._old_status, name=self.path)",
        new="        pass",
        why="between the look and the exchange somebody may have put another file there",
        tests=("faults/test_replacement.py::test_an_image_that_changes_between_the_look_and_the_exchange",),
    ),
    Mutation(
        name="replacement-mode",
        file=REPLACEMENT,
        old="        os.fchmod(self._fd, stat.S_IMODE(old.st_mode))",
        new="        pass",
        why="libvirt has to be able to read its managed save afterwards",
        tests=("system/test_edit.py::test_owner_mode_and_attributes_stay",),
    ),
    Mutation(
        name="replacement-attributes",
        file=REPLACEMENT,
        old="            if name not in OF_THE_CONTENTS:",
        new="            if False:",
        why="the same: labels of SELinux are attributes",
        tests=("system/test_edit.py::test_owner_mode_and_attributes_stay",),
    ),
    Mutation(
        name="overwrite-more-than-a-sector",
        file=REPLACEMENT,
        old="    if offset // SECTOR_SIZE != (offset + len(data) - 1) // SECTOR_SIZE:",
        new="    if False:",
        why="a disk writes a sector whole or not at all, and no more",
        tests=("system/test_edit.py::test_more_than_a_sector_is_never_overwritten",),
    ),
    Mutation(
        name="overwrite-changed",
        file=REPLACEMENT,
        old='in one sector")\n    check_unchanged(path, status)\n',
        new='in one sector")\n',
        why="an image that changed meanwhile is left alone",
        tests=("system/test_edit.py::test_an_image_that_changes_while_it_is_edited_is_left_alone",),
    ),
    Mutation(
        name="overwrite-fsync",
        file=REPLACEMENT,
        old='"short write")\n    os.fsync(fd)\n',
        new='"short write")\n',
        why="an edit that was told to be done is durable",
        tests=("faults/test_replacement.py::test_what_changes_in_place_is_durable",),
    ),
    Mutation(
        name="overwrite-short",
        file=REPLACEMENT,
        old="    if os.pwrite(fd, data, offset) != len(data):\n",
        new="    if not os.pwrite(fd, data, offset):\n",
        why="half an edit is an error",
        tests=("faults/test_replacement.py::test_half_a_change_in_place_is_none",),
    ),
    Mutation(
        name="overwrite-not-taken-back",
        file=REPLACEMENT,
        old="                _write_through(writing_fd, before, offset)",
        new="                pass",
        why="a change that may not be durable is undone: the image is as it was, or the error says so",
        tests=("system/test_edit.py::test_a_sector_that_the_disk_does_not_take",),
    ),
    Mutation(
        name="edit-sector-rule",
        file="operations/edit.py",
        old="    if first // SECTOR_SIZE != (end - 1) // SECTOR_SIZE:",
        new="    if False:",
        why="what crosses a border between sectors goes into a new file",
        tests=("system/test_edit.py::test_a_change_across_a_border_between_sectors_is_not",),
    ),
    Mutation(
        name="edit-older-image-untold",
        file="operations/edit.py",
        old="        file.remove_older()\n",
        new="",
        why="the older image has a name that nobody knows, if it cannot be removed",
        tests=("faults/test_replacement.py::test_an_older_file_that_cannot_be_removed_is_told",),
    ),
    Mutation(
        name="edit-warnings-unsaid",
        file="cli/edit.py",
        old="        output.warn(warning)\n",
        new="        pass\n",
        why="whoever types the command reads no report",
        tests=("faults/test_replacement.py::test_an_older_file_that_cannot_be_removed_is_told",),
    ),
    # -- leftovers
    Mutation(
        name="leftover-locked",
        file=LEFTOVERS,
        old=" or not try_lock(fd):",
        new=":",
        why="what somebody holds is no leftover",
        tests=("faults/test_leftovers.py::test_a_lock_of_another_process",),
    ),
    Mutation(
        name="leftover-of-somebody-else",
        file=LEFTOVERS,
        old=" or status.st_uid != os.geteuid()",
        new="",
        why="root does not tidy up what others made",
        tests=("faults/test_leftovers.py::test_what_another_user_left",),
    ),
    Mutation(
        name="leftover-replaced",
        file=LEFTOVERS,
        old="        if not os.path.samestat(status, os.lstat(path)):\n            return\n",
        new="",
        why="the file that was looked at is the one that is removed",
        tests=("faults/test_leftovers.py::test_a_leftover_that_is_another_file_by_now",),
    ),
    Mutation(
        name="leftover-complete",
        file=LEFTOVERS,
        old="        if magic and magic not in (MAGIC_PARTIAL, OWN_MAGIC_PARTIAL):",
        new="        if False:",
        why="a complete image may be all that is left of a guest",
        tests=("faults/test_leftovers.py::test_what_is_not",),
    ),
    Mutation(
        name="leftover-of-another-image",
        file=LEFTOVERS,
        old="            if name.fullmatch(entry.name):",
        new="            if entry.name.endswith(TEMPORARY_SUFFIX):",
        why="only what belongs to this destination is looked at",
        tests=("faults/test_leftovers.py::test_what_is_not",),
    ),
)
