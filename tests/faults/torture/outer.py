"""What goes wrong around the process: done by the campaign, most of it while the operation waits at its instant."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ...kit.cli import streamsave
from ...kit.waiting import until
from .world import patience

if TYPE_CHECKING:
    from .scene import Scene

# Processes


def signal_saver(number: signal.Signals) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        scene.signalled = True
        scene.run.process.send_signal(number)

    return strike


def kill_saver(scene: Scene) -> None:
    scene.killed_at = time.monotonic()
    scene.run.process.kill()


def kill_both(scene: Scene) -> None:
    """The guardian first, or it would do its duty."""
    scene.both_killed = True
    kill_guardian(scene)
    scene.run.process.kill()


def kill_guardian(scene: Scene) -> None:
    for pid in guardians(scene):
        os.kill(pid, signal.SIGKILL)


def guardians(scene: Scene) -> list[int]:
    return [pid for pid in scene.run.family() if b"guardian" in _command(pid)]


def kill_qemu(scene: Scene) -> None:
    scene.qemu_killed = True
    if (pid := qemu_of(scene)) is not None:
        os.kill(pid, signal.SIGKILL)


def stall_qemu(scene: Scene) -> None:
    """Stopped, and resumed after a while, whatever happens meanwhile."""
    if (pid := qemu_of(scene)) is None:
        return

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    scene.timer = threading.Timer(scene.plan.amount, go_on)
    scene.timer.start()


def qemu_of(scene: Scene) -> int | None:
    """The process id of the guest's QEMU, or of the one that the restore started; None: it is not there."""
    if scene.incoming is not None:
        return scene.incoming.pid
    if not scene.fault.restores:
        return scene.world.guest.qemu.pid
    return next((pid for pid in scene.run.family() if _command(pid).startswith(b"qemu-system")), None)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


# The monitor


def cut_monitor(scene: Scene) -> None:
    assert scene.proxy is not None
    scene.proxy.cut()


def save_too(scene: Scene) -> None:
    """Somebody else saves the same guest to another file, over the monitor that is held or over another one."""
    held = scene.plan.amount < 0.2
    monitor = scene.monitor if held else scene.world.guest.second
    other = scene.folder / "other.save"
    result = streamsave("save", "--qmp", monitor, other, "--then", "resume", "--format", "raw", "--quiet")
    if held:
        scene.expect(result.status == 32, f"the second save on one monitor ended with {result.status}: {result.err}")
    else:
        known = result.status in (0, 32, 34, 35, 36)
        scene.expect(known, f"the second save ended with {result.status}: {result.err}")
    scene.expect(other.exists() == (result.status == 0), f"{other.name} does not fit the status {result.status}")


# Disks


def fill_disk(scene: Scene) -> None:
    scene.disk.fill()


def make_read_only(scene: Scene) -> None:
    scene.disk.make_read_only()
    scene.disk_failed = True


def break_disk(scene: Scene) -> None:
    scene.disk.die()
    scene.disk_failed = True


def freeze_disk(scene: Scene) -> None:
    scene.disk.freeze()


def freed_while_frozen(number: signal.Signals | None) -> Callable[[Scene], None]:
    """A moment later the saver is told to end, or a time limit tells it: the guest must not wait for the disk."""

    def then(scene: Scene) -> None:
        try:
            time.sleep(0.3)
            if number is not None:
                scene.run.process.send_signal(number)
            if scene.plan.paused:  # it waits for nobody; but the disk hangs until the saver was told
                time.sleep(patience(0.5 if number is not None else 2.5))
                return
            limit_s = scene.free_s + (2.0 if number is None else 0.0)
            try:
                scene.freed_s = until(scene.world.guest.is_free, timeout_s=limit_s + 5)
                scene.expect(scene.freed_s <= limit_s, f"the guest stood still for {scene.freed_s:.1f} s more")
            except AssertionError:
                scene.expect(False, "the guest waits for the disk")
        finally:
            scene.disk.thaw()

    return then


def remove_folder(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.folder_removed = True


# Images


def replace_image(scene: Scene) -> None:
    """As everybody should: another file gets its name."""
    scene.older = b"another image"
    other = scene.folder / "other"
    other.write_bytes(scene.older)
    other.rename(scene.image)


def cut_image(scene: Scene) -> None:
    size = scene.image.stat().st_size
    os.truncate(scene.image, int(size * (0.3 + 0.5 * scene.plan.amount)))
    scene.older = scene.image.read_bytes()


def overwrite_image(scene: Scene) -> None:
    """Another image, as somebody writes it who copies over the old one: from its middle on it is noise."""
    size = scene.image.stat().st_size
    with scene.image.open("r+b") as file:
        file.seek(int(size * (0.3 + 0.4 * scene.plan.amount)))
        file.write(Random(scene.plan.number).randbytes(size // 4))
    scene.older = scene.image.read_bytes()
