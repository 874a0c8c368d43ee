"""How a guest gets back to its owner, whatever state our save left it in.

Used by the save itself when it fails, and by the guardian when the save's process is gone. So it talks to a ``Commander``,
which both have, imports nothing heavy, and can be repeated: every step first looks whether it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ..errors import CommandError, GuestError, MonitorError, MonitorLostError

Command: TypeAlias = tuple[str, Mapping[str, object]]
"""A QMP command and its arguments."""

PATIENCE_S = 10.0
"""How long ``cont`` is tried. A migration whose socket broke ends within milliseconds, but not at once."""
RETRY_S = 0.02
QUIT_S = 10.0
"""How long QEMU may take to end; until then it holds the locks of its disks."""

ACTIVE = frozenset(
    {
        "setup", "wait-unplug", "active", "pre-switchover", "device", "cancelling", "colo",
        "postcopy-active", "postcopy-paused", "postcopy-recover", "postcopy-recover-setup",
    }
)  # fmt: skip
"""The values of ``query-migrate``'s status in which a migration is under way (QEMU 7.2 to 10.0)."""
BACK = frozenset({"shutdown", "internal-error", "guest-panicked", "suspended"})
"""Run states of a guest that ended or sleeps by its own doing: ``cont`` cannot and need not bring it back."""


class Commander(Protocol):
    """Whoever can run QMP commands: the monitor, or the guardian's own few lines."""

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float | None = None) -> Any:
        """Run ``command`` and return QEMU's answer.

        CommandError: refused. MonitorLostError: QEMU is gone. MonitorError: no answer within ``timeout_s`` seconds.
        """


def free_guest(
    commander: Commander,
    *,
    was_running: bool,
    undo: Sequence[Command],
    migrating: bool = True,
    patience_s: float = PATIENCE_S,
) -> None:
    """Undo a save that did not come to its end: no migration, the guest as it was, QEMU's settings as they were.

    ``migrating``: the migration that may be under way is ours; one that is not is left alone. The guest comes first: a
    setting that QEMU refuses to take back is reported when the guest runs.

    Raises:
        MonitorLostError: QEMU is gone, and the guest with it.
        GuestError: the guest ran before and does not run after ``patience_s`` seconds of trying.
        CommandError: the guest is free, but QEMU refused to take one of its settings back.
    """
    deadline = time.monotonic() + patience_s
    if migrating:
        _end_migration(commander, deadline - patience_s / 2)
    if was_running:
        _run_again(commander, deadline)
    _put_back(commander, undo)


def carry_out(commander: Commander, then: str, *, was_running: bool, undo: Sequence[Command]) -> bool:
    """Let go of a guest whose image exists: ``quit`` ends QEMU, ``resume`` is the state before, ``pause`` leaves it stopped.

    Returns whether all of it is done: False is a QEMU that was told to quit and has not ended after ``QUIT_S`` seconds.

    Raises:
        GuestError: the guest is to be ended, but runs: somebody resumed it, and the image does not hold what it did since.
        As ``free_guest``; but that QEMU goes before it answers ``quit`` is what was asked for.
    """
    if then == "quit":
        if not commander.execute("query-status")["running"]:  # raises if the connection is broken: QEMU may live on behind
            return _quit(commander)
        _put_back(commander, undo)
        raise GuestError(
            "the guest runs, for somebody else resumed it after it was saved: it was not ended", status="running"
        )
    if then == "resume" and was_running:
        _run_again(commander, time.monotonic() + PATIENCE_S)
    _put_back(commander, undo)
    return True


def _quit(commander: Commander) -> bool:
    """Returns whether QEMU has ended. Its monitor is among the last that it closes, after its disks."""
    deadline = time.monotonic() + QUIT_S
    try:
        commander.execute("quit", timeout_s=QUIT_S)
        while (left := deadline - time.monotonic()) > 0:
            commander.execute("query-status", timeout_s=left)
            time.sleep(RETRY_S)
    except MonitorLostError:
        return True  # perhaps before it could answer
    except MonitorError:
        pass
    return False


def migration_status(commander: Commander) -> str:
    """QEMU's word for how its migration stands, ``none`` where there was none."""
    return str(commander.execute("query-migrate").get("status", "none"))


def _end_migration(commander: Commander, deadline: float) -> None:
    """Cancel what is under way and wait for its end; give up at ``deadline``, for the guest can run in spite of it."""
    while migration_status(commander) in ACTIVE:
        try:
            commander.execute("migrate_cancel")
        except CommandError:
            pass  # it ended in between
        if time.monotonic() >= deadline:
            return
        time.sleep(RETRY_S)


def _run_again(commander: Commander, deadline: float) -> None:
    """``cont`` until the guest is seen running: in some states QEMU refuses it, in ``finish-migrate`` it ignores it."""
    refusal = ""
    tried = False
    while True:
        status = commander.execute("query-status")
        if status["running"] or status["status"] in BACK:
            return
        if tried:
            if time.monotonic() >= deadline:
                raise GuestError(
                    f"the guest does not run again: it stays {status['status']} although cont was tried for a while"
                    f" ({refusal or 'QEMU accepted it'}); look at its state and send cont yourself",
                    status=str(status["status"]),
                )
            time.sleep(RETRY_S)
        try:
            commander.execute("cont")
            refusal = ""
        except CommandError as error:
            refusal = str(error)
        tried = True


def _put_back(commander: Commander, undo: Sequence[Command]) -> None:
    """Every command of ``undo``, whatever becomes of the others; then the first refusal is raised."""
    refused: CommandError | None = None
    for command, arguments in undo:
        try:
            commander.execute(command, arguments)
        except CommandError as error:
            refused = refused or error
    if refused is not None:
        raise refused
