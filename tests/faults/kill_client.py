"""A save in a process that kills itself with SIGKILL at a chosen instant: ``kill_client.py MONITOR IMAGE THEN POINT``."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from streamsave.endpoints import file
from streamsave.errors import CommandError
from streamsave.operations.image_writer import ImageWriter
from streamsave.operations.save import _GuestSave
from streamsave.options import SaveOptions
from streamsave.qemu.monitor import Monitor
from streamsave.units import MiB

HEADER_SYNC = 4
FOLDER_SYNC = 5
"""Among the calls of fsync: the folder to see whether it can be, the payload twice, the complete header, the folder."""

operation: Any = importlib.import_module("streamsave.operations.save")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def instant(wrapped: Any, *, before: bool = False, when: Callable[..., bool] = lambda *_: True) -> Any:
    """``wrapped``, and death before or after the call for which ``when(*arguments)``."""

    def call(*arguments: Any, **options: Any) -> Any:
        now = when(*arguments)
        if now and before:
            die()
        result = wrapped(*arguments, **options)
        if now:
            die()
        return result

    return call


def nth(count: int) -> Callable[..., bool]:
    """True at the ``count``-th call."""
    calls = iter(range(1, 1 << 30))
    return lambda *_: next(calls) == count


def migrate_elsewhere_and_refuse(qmp: Monitor, _transport: str) -> None:
    """Somebody else is quicker, with a migration that takes two seconds."""
    qmp.execute("migrate", {"uri": "exec:sleep 2"})
    raise CommandError("QEMU refused migrate: there is one already", command="migrate")


def arm(point: str) -> None:
    """Patch what happens at ``point``."""
    at_stop = lambda _monitor, command, *_: command == "stop"  # noqa: E731
    late = lambda image, _parts: image.size > MiB  # noqa: E731
    match point:
        case "before the guardian":
            operation.Guardian = instant(operation.Guardian, before=True)
        case "refused":
            operation.start_outgoing = migrate_elsewhere_and_refuse
            _GuestSave._undo = instant(_GuestSave._undo, before=True)  # type: ignore[method-assign]
        case "settings changed":
            operation.MigrationSettings.neutralise = instant(operation.MigrationSettings.neutralise)
        case "before stop":
            Monitor.execute = instant(Monitor.execute, before=True, when=at_stop)  # type: ignore[method-assign]
        case "stopped":
            Monitor.execute = instant(Monitor.execute, when=at_stop)  # type: ignore[method-assign]
        case "migrating":
            operation.start_outgoing = instant(operation.start_outgoing)
        case "mid stream":
            file.NewImage.write = instant(file.NewImage.write, when=late)  # type: ignore[method-assign]
        case "stream ended":
            operation.wait_outgoing = instant(operation.wait_outgoing, before=True)
        case "before commit":
            ImageWriter.commit = instant(ImageWriter.commit, before=True)  # type: ignore[method-assign]
        case "between the syncs":
            os.fsync = instant(os.fsync, before=True, when=nth(HEADER_SYNC))
        case "before rename":
            os.rename = instant(os.rename, before=True)
        case "after rename":
            os.rename = instant(os.rename)
        case "folder synced":
            os.fsync = instant(os.fsync, when=nth(FOLDER_SYNC))
        case "committed":
            operation.carry_out = instant(operation.carry_out, before=True)
        case "let go":
            operation.carry_out = instant(operation.carry_out)
        case _:
            raise SystemExit(f"no such point: {point}")


if __name__ == "__main__":
    monitor, image, then, where = sys.argv[1:]
    arm(where)
    operation.save(monitor, image, SaveOptions(then=then, format="raw"))  # type: ignore[arg-type]
    raise SystemExit(f"{where} was not reached")
