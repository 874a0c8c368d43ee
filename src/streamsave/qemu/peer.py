"""Who is behind the monitor: the machine as QEMU tells it, and the command line as the kernel does."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..format.description import GuestDescription, SavedCommand
from .monitor import Monitor
from .process import without_start_options

NO_UUID = "00000000-0000-0000-0000-000000000000"
"""What QEMU says of a machine without one."""
UNNAMED = "guest"


def describe_guest(monitor: Monitor, *, with_command: bool) -> GuestDescription:
    """What the descriptive XML of this guest says.

    ``machine`` is the versioned machine type (``pc-q35-7.2``), whatever alias it was started by: only that loads the stream
    years later. A guest without a UUID gets a random one, as libvirt wants one, so two images of it differ in that.

    Raises:
        MonitorError: as ``Monitor.execute``.
    """
    vcpus: list[dict[str, Any]] = monitor.execute("query-cpus-fast")
    memory = monitor.execute("query-memory-size-summary")
    own_uuid = monitor.execute("query-uuid")["UUID"]
    machine: str = monitor.execute("qom-get", {"path": "/machine", "property": "type"})
    return GuestDescription(
        name=monitor.execute("query-name").get("name") or UNNAMED,
        uuid=str(uuid.uuid4()) if own_uuid == NO_UUID else own_uuid,
        memory_size=memory["base-memory"] + memory.get("plugged-memory", 0),
        vcpu_count=len(vcpus),
        machine=machine.removesuffix("-machine"),
        arch=monitor.execute("query-target")["arch"],
        accelerator="kvm" if monitor.execute("query-kvm")["enabled"] else "qemu",
        command=saved_command(monitor) if with_command else None,
    )


def saved_command(monitor: Monitor) -> SavedCommand | None:
    """The command line and working directory of the QEMU behind ``monitor``, fit to start the same machine again.

    The kernel says which process listens at the other end, and that is not always QEMU: a program may have opened the
    socket for it. So the process counts only if the guest's processors are threads of it and its command line names the
    program that it runs. None where it does not, or where this user may not look.

    Raises:
        MonitorError: as ``Monitor.execute``.
    """
    if monitor.peer_pid is None:
        return None
    thread_ids = [vcpu["thread-id"] for vcpu in monitor.execute("query-cpus-fast")]
    return read_command(Path("/proc") / str(monitor.peer_pid), thread_ids)


def read_command(process: Path, thread_ids: Iterable[int]) -> SavedCommand | None:
    """The command of the process with ``/proc`` directory ``process``, if it has these threads and runs what it names."""
    wanted = [str(each) for each in thread_ids]
    try:
        if not wanted or any(not (process / "task" / each).is_dir() for each in wanted):
            return None
        arguments = tuple(os.fsdecode(each) for each in (process / "cmdline").read_bytes().split(b"\0")[:-1])
        directory = os.readlink(process / "cwd")
        program = os.readlink(process / "exe").removesuffix(" (deleted)")  # a package upgrade meanwhile
    except OSError:
        return None
    if not arguments or not _names(arguments[0], program, directory):
        return None
    return SavedCommand(without_start_options(arguments), directory)


def _names(argument: str, program: str, directory: str) -> bool:
    """Whether ``argument``, said in ``directory``, is the file ``program``; the same file name will do."""
    if Path(argument).name == Path(program).name:
        return True
    found = shutil.which(argument) if "/" not in argument else str(Path(directory) / argument)
    return found is not None and os.path.realpath(found) == program
