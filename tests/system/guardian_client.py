"""A client that starts a guardian, stops the guest, gets to a point, and waits there to be killed.

``guardian_client.py MONITOR FOLDER POINT THEN``: prints the guardian's process id when it is there (at the point
``forked``, that of its own child before).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from streamsave.format.header import MAGIC_COMPLETE, MAGIC_PARTIAL
from streamsave.guardian.parent import Guardian
from streamsave.guardian.plan import MIGRATING, STOPPING, GuardianPlan
from streamsave.qemu.migration import MigrationSettings, start_outgoing, wait_outgoing
from streamsave.qemu.monitor import Monitor


def main(address: str, folder: str, point: str, then: str) -> None:
    temporary, destination = Path(folder) / "image.part", Path(folder) / "image"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    monitor = Monitor(address)
    settings = MigrationSettings(monitor)
    plan = GuardianPlan(
        kind="file",
        temporary=str(temporary),
        destination=str(destination),
        partial=MAGIC_PARTIAL.decode(),
        complete=MAGIC_COMPLETE.decode(),
        was_running=True,
        then=then,
        undo=settings.undo_commands(),
    )
    settings.neutralise()
    guardian = Guardian(monitor.fileno(), fd, plan)
    if point != "not stopped":
        guardian.say(STOPPING)
        monitor.execute("stop")
    if point in ("migrating", "forked", "completed", "committed", "taken back"):
        guardian.say(MIGRATING)
    if point in ("migrating", "forked"):
        monitor.execute("migrate-set-parameters", {"max-bandwidth": 1000})
        assert start_outgoing(monitor, "fd").recv(4) == b"QEVM"
    if point == "half a command":
        os.write(monitor.fileno(), b'{"execute": "query-sta')
    if point == "half a number":
        os.write(monitor.fileno(), b'{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 12')
    if point in ("completed", "committed", "taken back"):
        with start_outgoing(monitor, "fd") as sock:
            while sock.recv(1 << 20):
                pass
        wait_outgoing(monitor, 10)
    if point in ("committed", "taken back"):
        os.write(fd, MAGIC_COMPLETE if point == "committed" else MAGIC_PARTIAL)
        temporary.rename(destination)
    if point == "forked":
        child = os.fork()  # it has copies of everything, as multiprocessing makes them
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
    print(guardian.pid, flush=True)
    if point == "exec":
        os.execvp("sleep", ["sleep", "60"])
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
