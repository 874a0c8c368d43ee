"""A save in a process that kills itself with SIGKILL at a chosen instant: ``MONITOR IMAGE THEN POINT``, as a module."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from streamsave.errors import CommandError
from streamsave.options import SaveOptions
from streamsave.qemu.monitor import Monitor

from .instants import arm_save, instant, saving


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def migrate_elsewhere_and_refuse(qmp: Monitor, _transport: str) -> None:
    """Somebody else is quicker, with a migration that takes two seconds."""
    qmp.execute("migrate", {"uri": "exec:sleep 2"})
    raise CommandError("QEMU refused migrate: there is one already", command="migrate")


def main(monitor: str, image: str, then: Any, point: str) -> None:
    if point == "refused":
        saving.start_outgoing = migrate_elsewhere_and_refuse
        saving._GuestSave._undo = instant(saving._GuestSave._undo, die, before=True)
    else:
        arm_save(point, die)
    saving.save(monitor, image, SaveOptions(then=then, format="raw"))
    raise SystemExit(f"{point} was not reached")


if __name__ == "__main__":
    main(*sys.argv[1:])
