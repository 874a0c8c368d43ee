"""Counts what a test may leave behind: threads, descriptors, child processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def descriptors() -> dict[str, str]:
    """Our open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the one that listed them
    return found


def children() -> set[int]:
    """Our child processes, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread that just ended
    return found


@contextmanager
def nothing_left(settle_s: float = 2.0) -> Iterator[None]:
    """After the body there are no threads, descriptors and children that were not there before."""
    threads, fds, pids = set(threading.enumerate()), descriptors(), children()
    yield
    deadline = time.monotonic() + settle_s
    while True:
        left = (set(threading.enumerate()) - threads, set(descriptors().items()) - set(fds.items()), children() - pids)
        if not any(left) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert left == (set(), set(), set())
