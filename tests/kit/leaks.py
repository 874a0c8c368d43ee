"""What a test left behind: threads, descriptors, child processes; and how much memory the process has."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SETTLE_S = 2.0
"""How long what is ending may take to be gone: a thread that was joined, a process that was waited for, needs none of it."""


@dataclass(frozen=True)
class Belongings:
    """What this process has at one moment."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]
    """Number and what it refers to, as /proc names it."""
    children: frozenset[int]
    """Process ids, zombies included."""

    @classmethod
    def now(cls) -> Self:
        """Look."""
        return cls(frozenset(threading.enumerate()), frozenset(_descriptors()), frozenset(_children()))

    def gained(self, before: Belongings) -> list[str]:
        """What is here now and was not ``before``, one line each."""
        return [
            *(f"thread {thread.name}" for thread in self.threads - before.threads),
            *(f"descriptor {number} -> {target}" for number, target in self.descriptors - before.descriptors),
            *(f"child process {pid}: {_command(pid)}" for pid in self.children - before.children),
        ]


def leaks_since(before: Belongings, settle_s: float = SETTLE_S) -> list[str]:
    """What has come since ``before`` and does not go within ``settle_s``."""
    deadline = time.monotonic() + settle_s
    while (leaks := Belongings.now().gained(before)) and time.monotonic() < deadline:
        subprocess._cleanup()  # type: ignore[attr-defined] # as the next process that is started: it reaps those that ended late
        time.sleep(0.02)
    return leaks


def memory(name: str) -> int:
    """Bytes of this process's memory, as /proc names them: ``VmRSS`` now, ``VmHWM`` at most so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget_peak() -> int:
    """Begin a new ``VmHWM``; how much memory this process has now.

    Raises:
        OSError: this kernel does not let it.

    """
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            continue  # the one that listdir itself used
    return found


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended meanwhile; its children are listed under another one
    return found


def _command(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return command.replace(b"\0", b" ").decode(errors="replace").strip() or "a zombie"
