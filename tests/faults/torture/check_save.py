"""Looks at what a save left: the image, what lies beside it, and the guest, which is owed one of two endings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX
from streamsave.errors import StreamsaveError
from streamsave.operations.verify import verify

from ...kit.cli import Result, streamsave
from ...kit.qmp import Qmp
from .checker import MAGICS, PARTIAL_MAGICS, TICKS_S, check_end
from .world import GONE, patience, settled

if TYPE_CHECKING:
    from .scene import Scene


def check_save(scene: Scene, result: Result) -> bool:
    """Everything about a save; returns whether its image exists."""
    killed = scene.killed_at is not None or scene.both_killed or result.status == -9
    if scene.killed_at is not None:
        _check_freed_in_time(scene)
    check_end(scene, result)
    if scene.disk_failed:
        scene.disk.mend()
    elif scene.maybe_disk is not None:
        (scene.disk.folder / "filler").unlink(missing_ok=True)
    committed = _check_destination(scene, result)
    _check_guest(scene, result, committed=committed)
    _check_temporaries(scene, result, killed=killed)
    return committed


def _check_freed_in_time(scene: Scene) -> None:
    """After a kill: the guest runs, or has ended, or is where ``--then pause`` leaves it."""
    assert scene.killed_at is not None
    guest = scene.world.guest
    may_rest = scene.plan.paused or scene.plan.then == "pause"
    if may_rest:
        settled(lambda: not scene.run.family(), patience(5.0))
        return
    took = settled(guest.is_free, patience(6.0))
    if took is None:
        scene.expect(False, f"the guest is not free after the kill: {guest.state()}")
    else:
        scene.freed_s = time.monotonic() - scene.killed_at
        scene.expect(scene.freed_s <= scene.free_s, f"the guest was free only {scene.freed_s:.1f} s after the kill")


def _check_destination(scene: Scene, result: Result) -> bool:
    """What stands at the image's name: nothing, what was there, or a whole new image."""
    try:
        data = scene.image.read_bytes()
    except FileNotFoundError:
        data = None
    if data is None:
        gone = scene.older is not None and not scene.folder_removed
        scene.expect(not gone, "the older image is gone")
        scene.expect(result.status != 0, "done, and there is no image")
        return False
    if data == scene.older:
        scene.expect(result.status != 0, "done, and the older image is there")
        return False
    scene.expect(data.startswith(MAGICS), f"what is there begins with {data[:16]!r}")
    try:
        verify(scene.image)
    except StreamsaveError as error:
        scene.expect(False, f"what is there is not whole: {error}")
    if result.status > 0:
        told = "is complete; only --then" in result.err
        if scene.disk_failed:
            told = told or any(f"{scene.image} could not be {done}" in result.err for done in ("taken back", "removed"))
        scene.expect(told, "an image is there, and the error does not tell of it")
    return True


def _check_temporaries(scene: Scene, result: Result, *, killed: bool) -> None:
    """None after a fault that was handled; one at most that is known for what it is, and goes with the next save."""
    if scene.folder_removed:
        return
    others = [each for each in scene.folder.iterdir() if each.name not in (scene.image.name, "other.save")]
    for other in others:
        told = str(other) in result.err
        told = told or f"{scene.image} could not be" in result.err  # and its new name did not get to the disk
        told = told or other.read_bytes() == scene.older  # its removal did not
        scene.expect(killed or (scene.disk_failed and told), f"left in the folder: {other.name}")
    scene.expect(len(others) <= 1, f"left in the folder: {len(others)} files")
    for other in others:
        scene.expect(other.name.endswith(TEMPORARY_SUFFIX), f"nobody knows what {other.name} is")
        magic = other.read_bytes()[:16]
        if magic in MAGICS:
            scene.expect(scene.both_killed or scene.disk_failed, "what is left looks complete")
            verify(other)
        else:
            scene.expect(magic in PARTIAL_MAGICS or not magic, f"what is left begins with {magic!r}")
            _check_cleaned_by_the_next(scene, other)


def _check_cleaned_by_the_next(scene: Scene, leftover: Path) -> None:
    guest = scene.world.guest
    if guest.state() != "running":
        return
    result = streamsave("save", "--qmp", guest.qemu.monitor, scene.image, "--format", "raw", "--then", "resume", "--quiet")
    scene.expect(result.status == 0, f"the next save ended with {result.status}: {result.err}")
    scene.expect(not leftover.exists(), "the next save let the leftover be")


def _check_guest(scene: Scene, result: Result, *, committed: bool) -> None:
    """Its state is what is owed, its memory is whole, its monitor free, its settings as they were."""
    guest = scene.world.guest
    state = guest.state()
    if scene.qemu_killed:
        scene.expect(state == "gone", "QEMU was killed, and lives")
    elif scene.both_killed:
        _check_can_be_continued(scene, committed=committed)
        return
    else:
        owed = _owed(scene, result, committed=committed)
        image = "an image" if committed else "no image"
        scene.expect(state in owed, f"the guest is {state}, not {' or '.join(owed)}, and there is {image}")
    if state == "gone":
        if committed:
            _check_rises_again(scene)
        else:
            scene.world.drop_guest()
        return
    with Qmp(guest.qemu.monitor, timeout_s=5):
        pass  # or somebody holds it
    now = guest.ask("query-migrate-capabilities"), guest.ask("query-migrate-parameters")
    scene.expect(now == guest.settings, "the settings are not as they were")
    if state != "running":
        guest.ask("cont")
    _check_counts_on(scene)


def _owed(scene: Scene, result: Result, *, committed: bool) -> tuple[str, ...]:
    """The run states that the guest may be in now."""
    before = ("paused", "postmigrate") if scene.plan.paused else ("running",)
    if not committed or (scene.disk_failed and result.status == 42):
        return before
    return {"quit": ("gone",), "resume": before, "pause": ("paused", "postmigrate")}[scene.plan.then]


def _check_can_be_continued(scene: Scene, *, committed: bool) -> None:
    """Saver and guardian are dead: nobody frees the guest or ends it, but anybody can."""
    guest = scene.world.guest
    if committed and scene.plan.then == "quit":
        scene.expect(guest.state() != "running", "the guest was to be ended, and runs")

    def goes() -> bool:
        try:
            guest.ask("cont")
        except GONE:
            pass
        return guest.state() == "running"

    if guest.state() != "gone":
        scene.expect(settled(goes, patience(10.0)) is not None, f"the guest cannot be continued: {guest.state()}")
        _check_counts_on(scene)
    elif committed and scene.plan.then == "quit":
        _check_rises_again(scene)
    else:
        scene.expect(False, "the guest is gone")
    scene.world.drop_guest()  # nobody put its settings back


def _check_counts_on(scene: Scene, *, seamless: bool = True) -> None:
    """Two more looks of the guest at all of its memory."""
    guest = scene.world.guest
    try:
        guest.qemu.wait_for_ticks(2, patience(TICKS_S))
    except AssertionError as error:
        scene.expect(False, f"the guest does not go on: {error}")
        return
    scene.expect(guest.qemu.console.seamless() or not seamless, "the guest's count has a seam")


def _check_rises_again(scene: Scene) -> None:
    """The image is all there is of the guest."""
    guest = scene.world.guest
    try:
        guest.rise_again(scene.image)
    except StreamsaveError as error:
        scene.expect(False, f"the image does not restore: {error}")
        scene.world.drop_guest()
        return
    if guest.state() != "running":
        guest.ask("cont")
    _check_counts_on(scene, seamless=scene.plan.then == "quit")
    if scene.plan.then != "quit":  # it may have run on before it ended
        scene.world.drop_guest()
