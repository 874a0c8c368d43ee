"""A migration from its first question to its last: may this guest be saved, go, and how did it end.

What the operations need of QEMU's migration is in here; settings and sockets have files of their own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import GuestError, IncomingError, MigrationError, MonitorLostError
from .conversation import Event
from .monitor import Monitor
from .recovery import ACTIVE
from .settings import MigrationSettings
from .transport import start_incoming, start_outgoing

__all__ = [
    "GuestStatus",
    "MigrationSettings",
    "check_savable",
    "start_incoming",
    "start_outgoing",
    "wait_incoming",
    "wait_outgoing",
]

LOOK_S = 1.0
"""How long to rely on events before asking again: one that was missed must not make us wait for ever."""

RETRY = "try again, and look at QEMU's own messages if it fails again"
"""What to do when a migration failed."""

SAVABLE = {"running": True, "paused": False, "prelaunch": False}
"""Run states that can be saved, and whether the guest runs in them."""
REFUSED = {
    "inmigrate": "it waits for an incoming migration, so there is nothing to save yet",
    "postmigrate": "it was migrated or saved already and left paused; send cont first (stop it again if it shall not run)",
    "finish-migrate": "a migration is about to end; wait for its end",
    "suspended": "it sleeps (ACPI S3); wake it first, with system_wakeup",
    "io-error": "it is stopped by an error of a disk; mend that and send cont first",
    "watchdog": "its watchdog stopped it; send cont or system_reset first",
    "guest-panicked": "it crashed; there is nothing to come back to",
    "internal-error": "its emulation failed; send system_reset first",
    "shutdown": "it shut itself down; there is nothing to come back to",
    "save-vm": "a snapshot is being taken; wait for its end",
    "restore-vm": "a snapshot is being loaded; wait for its end",
    "debug": "a debugger stopped it; let it go on first",
    "colo": "it is half of a COLO pair",
}
"""Run states that cannot be saved, why, and what to do."""


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """A guest that can be saved: QEMU's run state, and whether that is running."""

    run_state: str
    was_running: bool


def check_savable(monitor: Monitor) -> GuestStatus:
    """Ask QEMU whether its guest can be saved now.

    Raises:
        GuestError: it cannot; ``status`` and ``reasons`` hold what QEMU said.
    """
    migration: dict[str, Any] = monitor.execute("query-migrate")
    run_state: str = monitor.execute("query-status")["status"]
    if migration.get("status") in ACTIVE:
        raise GuestError(
            f"QEMU at {monitor.address} is migrating already (status {migration['status']});"
            " wait for the end of that migration, or end it with migrate_cancel",
            status=run_state,
        )
    if run_state not in SAVABLE:
        why = REFUSED.get(run_state, "that is neither running nor paused")
        raise GuestError(f"the guest at {monitor.address} is in run state {run_state}: {why}", status=run_state)
    reasons = tuple(migration.get("blocked-reasons", ()))
    if reasons:
        raise GuestError(
            f"the guest at {monitor.address} cannot be saved while it has what QEMU cannot migrate: {'; '.join(reasons)}",
            status=run_state,
            reasons=reasons,
        )
    return GuestStatus(run_state, SAVABLE[run_state])


def wait_outgoing(monitor: Monitor, timeout_s: float | None = None) -> None:
    """Wait for the end of the outgoing migration; return if it is completed. Never to be called by who reads the stream.

    Raises:
        MigrationError: it failed or was cancelled, with QEMU's reason; or it did not end within ``timeout_s`` seconds.
        MonitorError: as ``Monitor.execute``.
    """
    status = _wait_end(monitor, timeout_s)
    if status.get("status") != "completed":
        raise MigrationError(f"QEMU at {monitor.address} did not migrate the guest: {_outcome(status, timeout_s)}; {RETRY}")


def wait_incoming(monitor: Monitor, timeout_s: float | None = None) -> None:
    """Wait until the incoming migration is loaded.

    Raises:
        IncomingError: QEMU failed to load it, ended over it (as QEMU until 9.0 always does), or is not done within
            ``timeout_s`` seconds.
        MonitorError: as ``Monitor.execute``.
    """
    try:
        status = _wait_end(monitor, timeout_s)
    except MonitorLostError as error:
        raise IncomingError(
            f"QEMU at {monitor.address} ended while it loaded the stream; its own message says why"
        ) from error
    if status.get("status") != "completed":
        raise IncomingError(f"QEMU at {monitor.address} did not load the stream: {_outcome(status, timeout_s)}")


def _wait_end(monitor: Monitor, timeout_s: float | None) -> dict[str, Any]:
    """The answer of ``query-migrate`` once no migration is active any more, or when ``timeout_s`` is over."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        status: dict[str, Any] = monitor.execute("query-migrate", timeout_s=None if left is None else left + LOOK_S)
        if status.get("status", "none") not in {*ACTIVE, "none"} or left == 0:
            return status
        monitor.wait_event(_is_migration, timeout_s=LOOK_S if left is None else min(left, LOOK_S))


def _is_migration(event: Event) -> bool:
    return bool(event["event"] == "MIGRATION")


def _outcome(status: Mapping[str, Any], timeout_s: float | None) -> str:
    word = status.get("status", "none")
    if word in {*ACTIVE, "none"}:
        return f"not done after {timeout_s:g} s (status {word})"
    return f"{word}{': ' + status['error-desc'] if 'error-desc' in status else ''}"
