"""What the QEMU tests share: machines that run without a guest system, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from streamsave.units import MiB

from ..kit.qemu import Guest

FIRMWARE = Guest((), 64 * MiB, boot_s=0)
"""A machine whose BIOS looks for something to boot, for ever: it runs, and needs no files."""


def until(look: Callable[[], Any], *, timeout_s: float = 5.0, what: str = "it") -> float:
    """Wait until ``look()`` is true, and return how long that took."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > timeout_s:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - began


def drained(receive: Callable[[int], bytes]) -> bytes:
    """Everything that ``receive`` gives until the end."""
    data = bytearray()
    while piece := receive(1 << 20):
        data += piece
    return bytes(data)
