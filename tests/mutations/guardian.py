"""What the guardian does to the image when the saver is gone."""

from __future__ import annotations

from .mutation import Mutation

CHILD = "guardian/child.py"
AFTER_A_KILL = "faults/test_powerloss.py::test_after_a_kill"

GUARDIAN = (
    Mutation(
        name="guardian-told",
        file=CHILD,
        old="    committed = said.committed or _in_time(image.is_committed)",
        new="    committed = _in_time(image.is_committed)",
        why="an image that may be all there is of a guest is not taken back because the disk is slow or fails",
        tests=(f"{AFTER_A_KILL}[save_zstd_over_an_image]",),
    ),
    Mutation(
        name="guardian-written-anew",
        file=CHILD,
        old="                os.pwrite(self._fd, os.pread(self._fd, SECTOR_SIZE, 0), 0)\n",
        new="                pass\n",
        why="a header whose fsync failed may be in memory alone, and no later fsync tells",
        tests=(f"{AFTER_A_KILL}[save_zstd_onto_a_device]",),
    ),
    Mutation(
        name="guardian-image-fsync",
        file=CHILD,
        old="            os.fsync(self._fd)\n            if self._plan.kind",
        new="            if self._plan.kind",
        why="what the guest is ended for is durable",
        tests=(f"{AFTER_A_KILL}[save_zstd_onto_a_device]",),
    ),
    Mutation(
        name="guardian-folder-fsync",
        file=CHILD,
        old="                _sync_directory(self._plan.destination)\n        except",
        new="                pass\n        except",
        why="and so is its name",
        tests=(f"{AFTER_A_KILL}[save_zstd]",),
    ),
    Mutation(
        name="guardian-changes-places-back",
        file=CHILD,
        old="                exchange(temporary, destination)",
        new="                pass",
        why="the older image has its name again",
        tests=(f"{AFTER_A_KILL}[save_zstd_over_an_image]",),
    ),
    Mutation(
        name="guardian-tidies-up",
        file=CHILD,
        old="                os.unlink(self._plan.temporary)",
        new="                pass",
        why="what the image took the place of is not left under a name that nobody knows",
        tests=(f"{AFTER_A_KILL}[save_zstd_over_an_image]",),
    ),
)
