"""Where a trial happens: everything is put in its place before, and what was seen is written down."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ...kit.cli import Run
from ...kit.disk import Disk
from ...kit.proxy import Proxy
from ...kit.qemu import RunningQemu
from .faults import FAULTS, SOME_TIME, Ending, Fault
from .plan import Plan, order_of
from .world import GUEST, World, patience

GOLDEN: Final = Path(__file__).parents[2] / "data" / "golden" / "tiny.zstd.save"


@dataclass
class Scene:
    """A trial while it runs, for faults and for the checker."""

    world: World
    plan: Plan
    fault: Fault
    home: Path
    """For what the trial needs."""
    folder: Path
    """For the image, and for what the save puts beside it."""
    image: Path
    older: bytes | None
    """What is at the image's name before, and has to be there unless a whole image took its place."""
    monitor: Path
    after: ExitStack
    """What a fault wants to be done after the check."""
    free_s: float
    """How long a guest may stand still after a death."""
    proxy: Proxy | None = None
    incoming: RunningQemu | None = None
    """The QEMU that waits for a restore."""
    run: Run = field(init=False)
    timer: threading.Timer | None = None
    maybe_disk: Disk | None = None
    broken: list[str] = field(default_factory=list)
    """The promises that were seen broken."""
    here: str = ""
    """The instant at which the fault strikes; empty: none was reached."""
    struck: bool = False
    left: list[str] | None = None
    """What the process said of itself at its end."""
    killed_at: float | None = None
    freed_s: float | None = None
    both_killed: bool = False
    signalled: bool = False
    qemu_killed: bool = False
    disk_failed: bool = False
    folder_removed: bool = False
    in_front: bool = False
    """A restore that started its QEMU is done, and waits for its end."""
    came_back: bool = False
    """The restored guest was seen counting on."""

    @property
    def disk(self) -> Disk:
        assert self.maybe_disk is not None
        return self.maybe_disk

    def expect(self, holds: bool, complaint: str) -> None:
        """A promise that is broken unless it ``holds``."""
        if not holds:
            self.broken.append(complaint)

    @property
    def ending(self) -> Ending:
        """How the operation has to end."""
        if self.here == SOME_TIME:  # of either, or before the program heard of its signals
            both = self.fault.early.statuses | self.fault.late.statuses
            return Ending(both | {0} | {128 - status for status in both if status > 128}, self.fault.early.says)
        if self.fault.instants and not self.here:
            if not self.fault.may_miss:
                return Ending(frozenset())
            return Ending(self.fault.early.statuses | {0}, self.fault.early.says)
        turn = self.fault.turn
        restores = self.fault.restores
        late = bool(turn) and order_of(self.here, restores=restores) >= order_of(turn, restores=restores)
        return self.fault.late if late else self.fault.early


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. ``broken`` says which promises it broke; empty: none."""

    plan: Plan
    status: int | None = None
    committed: bool = False
    broken: tuple[str, ...] = ()
    impossible: str = ""
    """Why it cannot be run on this machine."""
    said: str = ""
    freed_s: float | None = None
    took_s: float = 0.0

    @property
    def word(self) -> str:
        """For the table."""
        if self.impossible:
            return "impossible"
        if self.broken:
            return "BROKEN"
        return str(self.status)


def set_up(world: World, plan: Plan, stack: ExitStack) -> Scene:
    """The scene of ``plan``; ``stack`` clears it.

    Raises:
        CannotMount: there are no disks here.

    """
    fault = FAULTS[plan.fault]
    home = stack.enter_context(world.folder())
    disk = Disk(home / "disk", home / "backing" if fault.disk == "ext4" else None) if fault.disk else None
    if disk is not None:
        stack.callback(disk.close)
    folder = (disk.folder if disk else home) / "images"
    folder.mkdir()
    image = folder / "guest.save"
    older: bytes | None = None
    if fault.restores:
        older = world.image(plan.format, plan.level).read_bytes()
    elif plan.older:
        older = GOLDEN.read_bytes()
    if older is not None:
        with image.open("wb") as file:
            file.write(older)
            file.flush()
            os.fsync(file.fileno())
    if disk is not None:
        disk.sync()
    incoming = stack.enter_context(RunningQemu(GUEST, incoming=True)) if fault.restores and not plan.by_command else None
    monitor = incoming.monitor if incoming else world.guest.qemu.monitor
    if incoming:
        incoming.qmp().close()
    proxy = None
    if fault.proxied:
        proxy = Proxy(home / "proxy", monitor)
        stack.callback(proxy.close)
        monitor = home / "proxy"
    if plan.paused:
        world.guest.ask("stop")
    return Scene(
        world, plan, fault, home, folder, image, older, monitor, stack, patience(2.0), proxy, incoming, maybe_disk=disk
    )
