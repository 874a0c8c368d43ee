"""What the QEMU tests share: machines that run without a guest system, and what they send."""

from __future__ import annotations

from collections.abc import Callable

from streamsave.units import MiB

from ..kit.qemu import Guest

FIRMWARE = Guest((), 64 * MiB, boot_s=0)
"""A machine whose BIOS looks for something to boot, for ever: it runs, and needs no files."""


def drained(receive: Callable[[int], bytes]) -> bytes:
    """Everything that ``receive`` gives until the end."""
    data = bytearray()
    while piece := receive(1 << 20):
        data += piece
    return bytes(data)
