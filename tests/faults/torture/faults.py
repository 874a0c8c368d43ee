"""Everything that can go wrong, when it may, and how the operation has to end of it.

A fault strikes once, at an instant or at some time; an ``inner`` one is in the process from its start. ``early`` is how an
operation ends that is struck before the instant ``turn``, ``late`` from there on: nothing comes of the fault any more, or
what it spoils is not the image.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ..instants import OF_A_RESTORE, OF_A_SAVE
from . import outer

if TYPE_CHECKING:
    from .scene import Scene

SOME_TIME: Final = "some time"
Strike: TypeAlias = "Callable[[Scene], None]"


@dataclass(frozen=True)
class Ending:
    """The exit statuses that it may have, and a regular expression for the error's line, where it is one of ours."""

    statuses: frozenset[int]
    says: str = ""


def ends(*statuses: int, says: str = "") -> Ending:
    return Ending(frozenset(statuses), says)


DONE: Final = ends(0)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault. ``strike`` happens while the operation waits at the instant, ``then`` after it was let go on."""

    name: str
    early: Ending
    late: Ending = DONE
    turn: str = ""
    """Empty: never; all is early."""
    restores: bool = False
    instants: tuple[str, ...] = ()
    strike: Strike | None = None
    then: Strike | None = None
    inner: str = ""
    amount: tuple[float, float] = (0.0, 1.0)
    disk: str = ""
    """The destination is on a small disk of that kind."""
    proxied: bool = False
    """The monitor's connection goes through something that can be cut."""
    by_command: bool | None = None
    """Whether the restore starts its QEMU; None: either."""
    options: tuple[str, ...] = ()
    may_miss: bool = False
    """Whether the operation may come to its end before the instant."""


def since(first: str, *, but: tuple[str, ...] = (), until: str = "", restores: bool = False) -> tuple[str, ...]:
    """The instants from ``first`` on, up to and with ``until``."""
    instants = OF_A_RESTORE if restores else OF_A_SAVE
    end = instants.index(until) + 1 if until else len(instants)
    return tuple(each for each in instants[instants.index(first) : end] if each not in but)


SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ANY: Final = (*since("connected"), SOME_TIME, SOME_TIME, SOME_TIME)
GUARDED: Final = since("settings changed")
READING: Final = since("opened", restores=True)
NO_MEMORY: Final = ends(0, 20, 31, 36, 38, 42, 50, -signal.SIGABRT, says="(?i)memory|start|broke|buffer")
"""SIGABRT: the library of lz4 and snappy gives up then."""
NO_DESCRIPTOR: Final = ends(0, 30, 31, 36, 37, 38, 41, 42, 50, says="open files|descriptor|cannot start|did not start")
NO_THREAD: Final = ends(0, 50, says="can(no|')t start")

SAVES: Final = (
    *(
        Fault(
            name=f"save: {number.name}",
            strike=outer.signal_saver(number),
            instants=ANY,
            turn="before rename",
            early=ends(128 + number, says=f"interrupted by {number.name}"),
        )
        for number in SIGNALS
    ),
    Fault(name="save: SIGKILL", strike=outer.kill_saver, instants=ANY, early=ends(-signal.SIGKILL)),
    Fault(name="save: SIGKILL again", strike=outer.kill_saver, instants=GUARDED, early=ends(-signal.SIGKILL)),
    Fault(name="save: SIGKILL of both", strike=outer.kill_both, instants=GUARDED, early=ends(-signal.SIGKILL)),
    Fault(name="save: guardian killed", strike=outer.kill_guardian, instants=GUARDED, early=DONE),
    Fault(
        name="save: QEMU killed",
        strike=outer.kill_qemu,
        instants=ANY,
        turn="before commit",
        early=ends(31, 33, 36, says="QEMU|monitor"),
        late=ends(0, 33, says="QEMU"),
    ),
    Fault(name="save: QEMU stands still", strike=outer.stall_qemu, instants=ANY, amount=(0.1, 1.5), early=DONE),
    Fault(
        name="save: monitor cut",
        strike=outer.cut_monitor,
        instants=ANY,
        proxied=True,
        turn="before commit",
        early=ends(31, 33, says="connection|conversation|closes"),
    ),
    Fault(
        name="save: disk full",
        strike=outer.fill_disk,
        instants=since("connected", until="mid write"),
        disk="tmpfs",
        early=ends(42, says="free|No space left"),
    ),
    Fault(
        name="save: ext4 full",
        strike=outer.fill_disk,
        instants=since("connected", until="before rename"),
        disk="ext4",
        turn="before fsync 2",
        early=ends(42, says="free|No space left"),
        late=ends(0, 42, says="No space left"),
    ),
    *(
        Fault(
            name=f"save: disk {what}",
            strike=strike,
            instants=since("connected"),
            disk="ext4",
            turn="after fsync 5",
            early=ends(42, says=says),
        )
        for what, strike, says in (
            ("read-only", outer.make_read_only, "Read-only file system"),
            ("dead", outer.break_disk, "Input/output error"),
        )
    ),
    *(
        Fault(
            name=f"save: disk hangs, {what}",
            strike=outer.freeze_disk,
            then=outer.freed_while_frozen(number),
            instants=("mid write", "before fsync 2", "before fsync 3"),  # later it is getting its name
            disk="ext4",
            early=ends(status, says="interrupted|not saved within"),
            options=("--timeout", "2") if number is None else (),
            may_miss=number is None,
        )
        for what, number, status in (
            ("SIGTERM", signal.SIGTERM, 128 + signal.SIGTERM),
            ("SIGKILL", signal.SIGKILL, -signal.SIGKILL),
            ("timeout", None, 60),
        )
    ),
    Fault(
        name="save: folder removed",
        strike=outer.remove_folder,
        instants=since("connected", until="before rename"),
        early=ends(42, says="No such file|somebody removed|folder"),
    ),
    Fault(
        name="save: second save",
        strike=outer.save_too,
        instants=since("connected", until="committed"),
        early=ends(0, 34, 35, 36, says="refused|run state|migrat"),
    ),
    Fault(name="save: fsync fails", inner="fsync fails", amount=(1, 6), early=ends(42, says="Input/output error")),
    Fault(name="save: short writes", inner="short writes", early=DONE),
    Fault(name="save: slow disk", inner="slow disk", amount=(0.001, 0.05), early=DONE),
    Fault(name="save: codec raises", inner="codec raises", amount=(1, 4), early=ends(20, says="injected into the codec")),
    Fault(name="save: no thread", inner="no thread", amount=(1, 10), early=NO_THREAD),
    Fault(name="save: little memory", inner="little memory", amount=(0, 300), early=NO_MEMORY),
    Fault(name="save: few descriptors", inner="few descriptors", amount=(1, 16), early=NO_DESCRIPTOR),
    Fault(name="save: small files", inner="small files", amount=(0.1, 3), early=ends(42, says="File too large")),
    Fault(name="save: stream breaks", inner="stream breaks", amount=(0, 0.9), early=ends(33, 36, 41, says="injected|QEMU")),
)

RESTORES: Final = (
    *(
        Fault(
            name=f"restore: {number.name}",
            restores=True,
            strike=outer.signal_saver(number),
            instants=(*READING, SOME_TIME, SOME_TIME),
            turn="before cont",
            early=ends(128 + number, says=f"interrupted by {number.name}"),
            late=ends(0, 128 + number),
        )
        for number in SIGNALS
    ),
    Fault(
        name="restore: SIGKILL",
        restores=True,
        strike=outer.kill_saver,
        instants=(*READING, SOME_TIME, SOME_TIME),
        early=ends(-signal.SIGKILL),
    ),
    Fault(
        name="restore: guardian killed",
        restores=True,
        by_command=True,
        strike=outer.kill_guardian,
        instants=since("started", until="loaded", restores=True),
        early=DONE,
    ),
    Fault(
        name="restore: QEMU killed",
        restores=True,
        strike=outer.kill_qemu,
        instants=since("started", restores=True),
        turn="let go",
        early=ends(31, 33, 37, 38, says="QEMU|qemu|broke|ended|killed"),
        late=ends(0, 33, 137, says="QEMU"),
    ),
    Fault(
        name="restore: QEMU stands still",
        restores=True,
        strike=outer.stall_qemu,
        instants=since("incoming", restores=True),
        amount=(0.1, 1.5),
        early=DONE,
    ),
    Fault(
        name="restore: monitor cut",
        restores=True,
        by_command=False,
        proxied=True,
        strike=outer.cut_monitor,
        instants=since("incoming", restores=True),
        turn="let go",
        early=ends(31, 33, 37, says="connection|closes|QEMU"),
        late=ends(0, 33, says="connection"),
    ),
    Fault(name="restore: image replaced", restores=True, strike=outer.replace_image, instants=READING, early=DONE),
    *(
        Fault(
            name=f"restore: image {what}",
            restores=True,
            strike=strike,
            instants=READING,
            turn="mid stream",
            early=ends(13, 14, says=says),
            late=ends(0, 13, 14, says=says),
        )
        for what, strike, says in (("cut", outer.cut_image, "ends|cut"), ("overwritten", outer.overwrite_image, "image"))
    ),
    Fault(
        name="restore: disk dead",
        restores=True,
        strike=outer.break_disk,
        disk="ext4",
        instants=READING,
        turn="mid stream",
        early=ends(41, says="Input/output error"),
        late=ends(0, 41, says="Input/output error"),
    ),
    Fault(
        name="restore: codec raises",
        restores=True,
        inner="codec raises",
        amount=(1, 4),
        early=ends(14, 20, says="injected into the codec"),
    ),
    Fault(name="restore: no thread", restores=True, inner="no thread", amount=(1, 9), early=NO_THREAD),
    Fault(name="restore: little memory", restores=True, inner="little memory", amount=(0, 300), early=NO_MEMORY),
    Fault(name="restore: few descriptors", restores=True, inner="few descriptors", amount=(1, 16), early=NO_DESCRIPTOR),
    Fault(name="restore: short reads", restores=True, inner="short reads", early=DONE),
    Fault(name="restore: slow disk", restores=True, inner="slow disk", amount=(0.001, 0.05), early=DONE),
)

FAULTS: Final = {fault.name: fault for fault in (*SAVES, *RESTORES)}
