"""Looks at what a restore left: the image as it was, and either a whole guest that runs, or none."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from streamsave.demo.console import Console
from streamsave.demo.machine import Machine

from ...kit.cli import Result
from ...kit.qmp import Qmp
from .checker import TICKS_S, check_end
from .faults import SOME_TIME
from .outer import qemu_of
from .plan import order_of
from .world import GONE, GUEST, patience, settled

if TYPE_CHECKING:
    from .scene import Scene

LET_LIVE = order_of("before cont", restores=True)
"""From this instant on QEMU has all of the guest, and does not end with the process that restored it."""


def own_command(scene: Scene) -> tuple[str, ...]:
    """A QEMU for the restore to start."""
    return Machine(
        _console(scene).path, _monitor(scene), memory_size=GUEST.memory_size, name="test", guest=GUEST.arguments
    ).command


def attend(scene: Scene, deadline: float) -> None:
    """Of a restore that starts its QEMU: it stays in front of it, or is killed. Look at the guest, and end it."""
    if scene.incoming is not None:
        return
    while scene.run.process.poll() is None and time.monotonic() < deadline:
        if scene.in_front and (scene.struck or not scene.fault.instants):
            _look(scene)
            with suppress(*GONE), Qmp(_monitor(scene), timeout_s=5) as qmp:
                qmp.execute("quit")
            return
        time.sleep(0.02)
    if scene.killed_at is None:
        return
    _check_ended_with_its_restore(scene)
    _look(scene)
    if (pid := qemu_of(scene)) is not None:  # it has what the restore had for its output: nobody would see an end of that
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def check_restore(scene: Scene, result: Result) -> bool:
    """Everything about a restore; returns whether the guest came back."""
    if scene.incoming is not None:
        settled(lambda: _state(scene) != "inmigrate", patience(2.0))
        _look(scene)
    check_end(scene, result)
    if result.status == 0 and not (scene.qemu_killed or scene.signalled):
        scene.expect(scene.came_back, "done, and the guest does not run")
    if result.status > 0 and scene.came_back:
        told = "the guest is restored" in result.err or result.status == 137
        scene.expect(told or scene.signalled, "failed, and the guest runs")
    if scene.disk_failed:
        scene.disk.mend()
    scene.expect(scene.image.read_bytes() == scene.older, "the image is not as it was")
    return scene.came_back


def _check_ended_with_its_restore(scene: Scene) -> None:
    """The QEMU that a killed restore had started and not filled yet."""
    assert scene.killed_at is not None
    if order_of(scene.here, restores=True) >= LET_LIVE:
        return
    if scene.here == SOME_TIME:  # of either kind
        settled(lambda: _state(scene) not in ("inmigrate", "paused"), patience(2.0))
        return
    took = settled(lambda: not scene.run.family(), patience(6.0))
    scene.expect(took is not None, "a QEMU that is half restored lives on")
    scene.freed_s = time.monotonic() - scene.killed_at
    scene.expect(scene.freed_s <= scene.free_s, f"its QEMU ended only {scene.freed_s:.1f} s after the kill")


def _look(scene: Scene) -> None:
    """A guest that runs has all of its memory."""
    if _state(scene) != "running":
        return
    console = _console(scene)
    have = len(console.ticks())
    counts = settled(lambda: len(console.ticks()) >= have + 2 or console.damage(), patience(TICKS_S))
    ticks = console.ticks()
    scene.expect(counts is not None and not console.damage(), f"the guest runs and is not whole: {console.damage()}")
    scene.expect(bool(ticks) and ticks == list(range(ticks[0], ticks[0] + len(ticks))), "its count has a seam")
    scene.came_back = True


def _state(scene: Scene) -> str:
    """Of the guest in the QEMU that was to get it; ``gone`` without one."""
    if qemu_of(scene) is None or (scene.incoming is not None and scene.incoming.process.poll() is not None):
        return "gone"
    try:
        with Qmp(_monitor(scene), timeout_s=5) as qmp:
            return qmp.status()
    except GONE:
        return "gone"


def _console(scene: Scene) -> Console:
    return scene.incoming.console if scene.incoming else Console(scene.home / "console")


def _monitor(scene: Scene) -> Path:
    return scene.incoming.monitor if scene.incoming else scene.home / "qmp"
