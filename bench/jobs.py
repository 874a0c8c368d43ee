"""What a worker does with a guest: it is saved, restored, or its stream thrown away. A job is made ready first, then done.

Only what is made ready before is imported when the clock starts; connecting to the monitor is part of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import thread_time
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import streamsave
from streamsave.choices import Level
from streamsave.endpoints.socket import SocketSource
from streamsave.options import usable_cpus
from streamsave.pipeline.bufpool import BufferPool, slot_count
from streamsave.qemu.migration import MigrationSettings, check_savable, start_outgoing, wait_outgoing
from streamsave.qemu.monitor import Monitor
from streamsave.qemu.recovery import carry_out
from streamsave.units import MiB

from . import parts

Job: TypeAlias = Callable[[], Any]


def save(monitor: str, path: str, format: str, level: Level | None) -> Job:  # noqa: A002
    """Save the guest at ``monitor``, which goes on afterwards."""
    options = streamsave.SaveOptions(format=format, level=level, then="resume")
    options.codec.encoder(options.codec.default_level)  # imports its binding
    act = streamsave.save  # imports what it needs

    def run() -> dict[str, Any]:
        report = act(monitor, path, options)
        return {
            "image_size": report.image_size,
            "payload_size": report.payload_size,
            "stream_size": report.stream_size,
            "stopped_s": report.stopped_s,
            "stage_s": report.stage_s,
            "threads": report.threads,
            "levels": {str(use.level): use.stream_size / report.stream_size for use in report.levels},
        }

    return run


def restore(monitor: str, path: str, format: str) -> Job:  # noqa: A002
    """Restore the image at ``path`` into the QEMU at ``monitor``, whose guest then runs."""
    streamsave.find_codec(format).decoder()
    act, options = streamsave.restore, streamsave.RestoreOptions(state="running")

    def run() -> dict[str, Any]:
        report = act(path, monitor=monitor, options=options)
        return {
            "stream_size": report.stream_size,
            "stage_s": report.stage_s,
            "threads": report.threads,
            "parallel": report.parallel,
        }

    return run


def discard(monitor: str) -> Job:
    """Receive the stream of the guest at ``monitor`` in the slots that a save would have, and throw it away."""
    pool = BufferPool(slot_count(usable_cpus()), MiB)

    def run() -> dict[str, Any]:
        with Monitor(monitor) as qmp:
            guest = check_savable(qmp)
            settings = MigrationSettings(qmp)
            settings.neutralise()
            qmp.execute("stop")
            source = SocketSource(start_outgoing(qmp, "fd"))
            size, began = 0, thread_time()
            while got := source.readinto(pool.free[0].view):
                size += got
                pool.free.rotate()
            receive_s = thread_time() - began
            wait_outgoing(qmp)
            source.close()
            carry_out(qmp, "resume", was_running=guest.was_running, undo=settings.undo_commands())
        return {"stream_size": size, "receive_s": receive_s}

    return run


JOBS: Final[Mapping[str, Callable[..., Job]]] = MappingProxyType(
    {"save": save, "restore": restore, "discard": discard, "encode": parts.encode, "write": parts.write}
)
