"""The instants of a save and of a restore at which something may go wrong, and how to be there.

For programs that run one operation: what is here patches streamsave, for good. ``kill_client`` dies at an instant, the
campaign of ``torture`` does whatever comes to its mind.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from itertools import count
from typing import Any, Final, TypeAlias

from streamsave.endpoints import file
from streamsave.endpoints.socket import SocketSink
from streamsave.operations.image_writer import ImageWriter
from streamsave.operations.inflow import Inflow
from streamsave.pipeline.compress import Compression
from streamsave.qemu.monitor import Monitor
from streamsave.qemu.process import QemuProcess
from streamsave.units import MiB

saving: Any = importlib.import_module("streamsave.operations.save")
restoring: Any = importlib.import_module("streamsave.operations.restore")

Act: TypeAlias = Callable[[], object]

STREAM_SIZE: Final = 11 * MiB
"""Of a demo guest with 16 MiB, and a little less: where an instant is a part of the stream."""
OF_A_SAVE: Final = (
    "connected", "begun", "settings changed", "before stop", "stopped", "migrating", "mid stream", "mid write",
    "before fsync 2", "after fsync 2", "stream ended", "before commit", "before name", "before fsync 3", "after fsync 3",
    "before fsync 4", "after fsync 4", "before rename", "after rename", "after fsync 5", "committed", "let go",
)  # fmt: skip
"""In their order. The calls of fsync: the folder to see whether it can be, the payload twice, the complete header, the
folder. The image exists from the rename on, and may not be taken back by anybody from ``after fsync 5`` on."""
OF_A_RESTORE: Final = ("opened", "started", "incoming", "mid stream", "stream sent", "loaded", "before cont", "let go")
"""In their order; ``started`` only where the restore starts its QEMU."""


def instant(wrapped: Any, act: Act, *, before: bool = False, when: Callable[..., bool] = lambda *_: True) -> Any:
    """``wrapped``, and ``act`` before or after each call for which ``when(*arguments)``."""

    def call(*arguments: Any, **options: Any) -> Any:
        now = when(*arguments)
        if now and before:
            act()
        result = wrapped(*arguments, **options)
        if now and not before:
            act()
        return result

    return call


def nth(number: int, *, for_good: bool = False) -> Callable[..., bool]:
    """True at the call of that ``number``, from 1; ``for_good``: and at all that follow."""
    calls = count(1)
    return lambda *_: (call := next(calls)) == number or (for_good and call > number)


def arm_save(point: str, act: Act, part: float = 0.1) -> None:
    """Let ``act`` happen at ``point``, in whatever thread comes by; ``part``: of the stream or its frames, in its midst."""
    at_stop = lambda _monitor, command, *_: command == "stop"  # noqa: E731
    match point:
        case "connected":
            _patch(saving, "check_savable", act, before=True)
        case "begun":
            _patch(saving, "Guardian", act, before=True)
        case "settings changed":
            _patch(saving.MigrationSettings, "neutralise", act)
        case "before stop":
            _patch(Monitor, "execute", act, before=True, when=at_stop)
        case "stopped":
            _patch(Monitor, "execute", act, when=at_stop)
        case "migrating":
            _patch(saving, "start_outgoing", act)
        case "mid stream":
            _patch(Inflow, "_observe", act, when=lambda flow, _: flow.pipeline.stats.bytes_in >= part * STREAM_SIZE)
        case "mid write":
            _patch(Compression, "_put", act, when=lambda pipeline, _: len(pipeline.frames) >= part * _frame_count(pipeline))
        case "stream ended":
            _patch(saving, "wait_outgoing", act, before=True)
        case "before commit":
            _patch(ImageWriter, "commit", act, before=True)
        case "before name":
            _patch(file, "give_name", act, before=True)
        case "before rename" | "after rename":
            for owner, name in ((os, "rename"), (file, "exchange")):  # where nothing is yet, and where an image is
                if hasattr(owner, name):
                    _patch(owner, name, act, before=point.startswith("before"))
        case "committed":
            _patch(saving, "carry_out", act, before=True)
        case "let go":
            _patch(saving, "carry_out", act)
        case _:
            when, call, number = point.split()
            assert call == "fsync"
            _patch(os, "fsync", act, before=when == "before", when=nth(int(number)))


def arm_restore(point: str, act: Act, part: float = 0.0) -> None:
    """The same for a restore; ``part``: of the stream, or as soon as any of it is on its way."""
    at_cont = lambda _monitor, command, *_: command == "cont"  # noqa: E731
    sent = 0

    def far(_sink: Any, parts: Any) -> bool:
        nonlocal sent
        sent += sum(len(each) for each in parts)
        return sent >= part * STREAM_SIZE

    match point:
        case "opened":
            _patch(restoring, "_GuestRestore", act, before=True)
        case "started":
            _patch(QemuProcess, "open_monitor", act, before=True)
        case "incoming":
            _patch(restoring, "start_incoming", act)
        case "mid stream":
            _patch(SocketSink, "write", act, when=far)
        case "stream sent":
            _patch(restoring, "wait_incoming", act, before=True)
        case "loaded":
            _patch(restoring, "wait_incoming", act)
        case "before cont":
            _patch(Monitor, "execute", act, before=True, when=at_cont)
        case "let go":
            _patch(Monitor, "execute", act, when=at_cont)
        case _:
            raise AssertionError(f"no such point: {point}")


def _patch(owner: Any, name: str, act: Act, *, before: bool = False, when: Callable[..., bool] = lambda *_: True) -> None:
    setattr(owner, name, instant(getattr(owner, name), act, before=before, when=when))


def _frame_count(pipeline: Compression) -> int:
    return max(1, STREAM_SIZE // pipeline.frames.chunk_size)
