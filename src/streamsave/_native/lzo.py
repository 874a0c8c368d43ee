"""Typed wrappers of ``native/lzo.h``: LZO1X blocks, there and back. Every call releases the GIL."""

from __future__ import annotations

from typing import Any

from ..types import Buffer
from . import ffi, lib


class LzoCompressor:
    """Compresses blocks, one after the other, in one thread. ``fast``: quicker and a bit larger."""

    def __init__(self, *, fast: bool) -> None:
        self._table: Any = ffi.new("ss_lzo_table *")
        self._fast = fast

    def compress(self, block: Buffer, room: memoryview) -> int:
        """``block`` compressed at the start of ``room``, which has ``bound(len(block))`` bytes at least; the size."""
        with ffi.from_buffer("uint8_t[]", block) as data, ffi.from_buffer("uint8_t[]", room, require_writable=True) as out:
            _check_room(data, out)
            return int(lib.ss_lzo_compress(data, len(data), out, self._table, self._fast))


class LzoBestCompressor:
    """The same, as small as it gets with up to ``depth`` earlier places compared at each place."""

    def __init__(self, *, depth: int) -> None:
        self._finder: Any = ffi.new("ss_lzo_finder *")
        self._depth = depth

    def compress(self, block: Buffer, room: memoryview) -> int:
        """As ``LzoCompressor.compress``."""
        with ffi.from_buffer("uint8_t[]", block) as data, ffi.from_buffer("uint8_t[]", room, require_writable=True) as out:
            _check_room(data, out)
            return int(lib.ss_lzo_compress_best(data, len(data), out, self._finder, self._depth))


def _check_room(data: Any, out: Any) -> None:
    if len(out) < lib.ss_lzo_bound(len(data)):
        raise ValueError(f"{len(out)} bytes are too few for {len(data)} compressed ones")


def bound(size: int) -> int:
    """The room that a block of ``size`` bytes needs at most."""
    return int(lib.ss_lzo_bound(size))


def decompress(data: Buffer, room: memoryview) -> bool:
    """Whether all of ``data`` is one LZO1X stream of ``len(room)`` bytes, which are in ``room`` then."""
    with ffi.from_buffer("uint8_t[]", data) as view, ffi.from_buffer("uint8_t[]", room, require_writable=True) as out:
        return bool(lib.ss_lzo_decompress(view, len(view), out, len(out)))
