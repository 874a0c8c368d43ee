"""Typed wrappers of ``native/bits.c``: numbers of 48 bits at any bit, and strings of bits moved to another."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Buffer
from . import ffi, lib

NUMBER_BITS = 48


class BitFinder:
    """Looks for any of a few numbers of 48 bits, at any bit of some bytes."""

    def __init__(self, numbers: Sequence[int]) -> None:
        """``numbers``: one to four."""
        self._numbers = ffi.new("uint64_t[]", list(numbers))

    def find(self, data: Buffer, start: int) -> int:
        """The bit where the first of them begins, at or behind bit ``start`` and wholly in ``data``; -1: nowhere."""
        with ffi.from_buffer("uint8_t[]", data) as view:
            return int(lib.ss_bits_find(view, len(view), start, self._numbers, len(self._numbers)))


def copy_bits(target: Buffer, to: int, source: Buffer, start: int, length: int) -> None:
    """Copy ``length`` bits from bit ``start`` of ``source`` to bit ``to`` of ``target``.

    The bits of ``target`` before ``to`` stay; those that fill the last byte written to become 0.

    Raises:
        ValueError: the bits are not all there, or have no room.

    """
    with ffi.from_buffer("uint8_t[]", target, require_writable=True) as out, ffi.from_buffer("uint8_t[]", source) as data:
        if min(to, start, length) < 0 or to + length > 8 * len(out) or start + length > 8 * len(data):
            raise ValueError(f"{length} bits from bit {start} of {len(data)} bytes to bit {to} of {len(out)}")
        lib.ss_bits_copy(out, to, data, start, length)
