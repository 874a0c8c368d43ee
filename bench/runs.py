"""One save or restore of one contestant, measured.

The guest is stopped for all of them: by hand before a pipe's migration, by streamsave itself otherwise. Nothing of an image
is left to be written when the next run begins: a pipe's is made durable afterwards, outside its time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.kit.qemu import Guest, RunningQemu
from tests.kit.qmp import Qmp

from .contestants import Contestant, Discard, Ours, Pipe
from .meters import PeakOfChildren, account_of
from .results import Run
from .worker import Done, Worker

LOOK_S = 0.01
PATIENCE_S = 3600.0
"""QEMU answers nothing while it waits for a pipe to take the last of the stream: xz with threads takes its time."""


def save_run(qemu: RunningQemu, contestant: Contestant, path: Path) -> tuple[Run, dict[str, Any]]:
    """Save the guest, which runs on, to ``path``; with what streamsave reported, if it was that."""
    path.unlink(missing_ok=True)
    if isinstance(contestant, Pipe):
        path.touch()  # dd does not, with these flags
        return _piped_save(qemu, contestant, path), {}
    worker = _worker_of(qemu, contestant, path)
    before = account_of(qemu.pid)
    done = worker.run()
    qemu_s = account_of(qemu.pid).since(before).own_s
    stopped_s = done.result.get("stopped_s", done.wall_s)
    run = _run_of(done, qemu_s, stopped_s, done.result.get("image_size", 0))
    return replace(run, levels=done.result.get("levels", {})), done.result


def restore_run(guest: Guest, contestant: Ours | Pipe, path: Path) -> Run:
    """Restore ``path`` (an image for streamsave, a payload for a pipe) into a new QEMU, whose guest runs in the end."""
    with RunningQemu(guest, incoming=True, paused=True) as qemu:
        qemu.qmp().close()  # it is up
        if isinstance(contestant, Pipe):
            return _piped_restore(qemu, contestant, path)
        worker = Worker("restore", monitor=str(qemu.monitor), path=str(path), format=contestant.format)
        before = account_of(qemu.pid)
        done = worker.run()
        qemu_s = account_of(qemu.pid).since(before).own_s
        return _run_of(done, qemu_s, done.wall_s, path.stat().st_size)


def _worker_of(qemu: RunningQemu, ours: Ours | Discard, path: Path) -> Worker:
    if isinstance(ours, Discard):
        return Worker("discard", monitor=str(qemu.monitor))
    return Worker("save", monitor=str(qemu.monitor), path=str(path), format=ours.format, level=ours.level)


def _run_of(done: Done, qemu_s: float, stopped_s: float, size: int) -> Run:
    return Run(
        wall_s=done.wall_s,
        tool_cpu_s=done.cpu_s,
        qemu_cpu_s=qemu_s,
        faults=done.faults,
        peak=done.peak,
        stopped_s=stopped_s,
        size=size,
    )


def _piped_save(qemu: RunningQemu, pipe: Pipe, path: Path) -> Run:
    with qemu.qmp(PATIENCE_S) as qmp:
        stopped = time.perf_counter()
        qmp.execute("stop")
        qmp.execute("migrate-set-parameters", max_bandwidth=0)
        run = _migrated(qemu, qmp, lambda: qmp.execute("migrate", uri=f"exec:{pipe.into(str(path))}"))
        qmp.execute("cont")
        stopped_s = time.perf_counter() - stopped
    began = time.perf_counter()
    _make_durable(path)
    return Run(**run, stopped_s=stopped_s, size=path.stat().st_size, sync_s=time.perf_counter() - began)


def _piped_restore(qemu: RunningQemu, pipe: Pipe, path: Path) -> Run:
    with qemu.qmp(PATIENCE_S) as qmp:
        stopped = time.perf_counter()
        run = _migrated(qemu, qmp, lambda: qmp.execute("migrate-incoming", uri=f"exec:{pipe.out_of(str(path))}"))
        qmp.execute("cont")
        stopped_s = time.perf_counter() - stopped
    return Run(**run, stopped_s=stopped_s, size=path.stat().st_size)


def _migrated(qemu: RunningQemu, qmp: Qmp, start: Callable[[], object]) -> dict[str, Any]:
    """From ``start`` to ``completed``: the fields of ``Run`` that this tells."""
    before = account_of(qemu.pid)
    with PeakOfChildren(qemu.pid) as peak:
        began = time.perf_counter()
        start()
        while (status := qmp.execute("query-migrate").get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise RuntimeError(f"the pipe failed; QEMU says: {qemu.stderr()}")
            time.sleep(LOOK_S)
        wall_s = time.perf_counter() - began
    used = account_of(qemu.pid).since(before)
    return {
        "wall_s": wall_s,
        "tool_cpu_s": used.children_s,
        "qemu_cpu_s": used.own_s,
        "faults": used.children_faults,
        "peak": peak.size,
    }


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
