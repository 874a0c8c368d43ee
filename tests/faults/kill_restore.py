"""A restore in a process that kills itself with SIGKILL at a chosen instant: ``kill_restore.py IMAGE POINT COMMAND...``."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from streamsave.endpoints.socket import SocketSink
from streamsave.qemu.process import QemuProcess

operation: Any = importlib.import_module("streamsave.operations.restore")
client: Any = importlib.import_module("kill_client")  # beside this script

if __name__ == "__main__":
    image, point, *command = sys.argv[1:]
    match point:
        case "started":
            QemuProcess.open_monitor = client.instant(QemuProcess.open_monitor, before=True)  # type: ignore[method-assign]
        case "mid stream":
            SocketSink.write = client.instant(SocketSink.write)  # type: ignore[method-assign]
    operation.restore(image, command=command)
    client.die()
