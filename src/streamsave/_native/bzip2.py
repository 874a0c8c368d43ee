"""Typed wrappers of ``native/bzip2_*.c``: a chunk in, one bzip2 stream out, and back. Every call releases the GIL."""

from __future__ import annotations

from typing import Any

from ..types import Buffer
from . import ffi, lib

_allocate = ffi.new_allocator(should_clear_after_alloc=False)
"""Memory that is touched only where it is used: a low level needs a small part of it."""


class Bzip2Compressor:
    """A compressor's memory, for one thread: 48 MB of addresses; programs touch 19 MB of it at level 9, 4 MB at 1."""

    def __init__(self, level: int) -> None:
        """Args:
        level: 1 to 9; a block's size in units of 100,000 bytes.

        """
        self._level = level
        self._encoder: Any = _allocate("ss_bzip2_encoder *")
        lib.ss_bzip2_init(self._encoder)

    def compress(self, chunk: Buffer, room: memoryview) -> int:
        """Write ``chunk`` as one stream into ``room``; the size of the stream.

        Raises:
            ValueError: the stream takes more than that.

        """
        with ffi.from_buffer("uint8_t[]", chunk) as view, ffi.from_buffer("uint8_t[]", room, require_writable=True) as out:
            size = int(lib.ss_bzip2_encode(self._encoder, self._level, view, len(view), out, len(out)))
        if not size:
            raise ValueError(f"{len(chunk)} bytes do not fit into a bzip2 stream of {len(room)}")
        return size

    def rotations(self, data: bytes) -> tuple[bytes, int]:
        """The sort alone: the last column of the sorted rotations of 1 to 900,000 bytes, and the row that is ``data``."""
        if not 1 <= len(data) <= lib.SS_BZIP2_BLOCK:
            raise ValueError(f"{len(data)} bytes are no block")
        last = _allocate("uint8_t[]", len(data))
        row = lib.ss_bzip2_rotations(self._encoder, data, len(data), last)
        return bytes(ffi.buffer(last)), int(row)


class Bzip2Decompressor:
    """A decompressor's memory, for one thread: 9 MB, as much of it touched as the largest block takes."""

    DAMAGED = int(lib.SS_BZIP2_DAMAGED)
    CUT = int(lib.SS_BZIP2_CUT)
    TOO_LARGE = int(lib.SS_BZIP2_TOO_LARGE)
    FOLLOWED = int(lib.SS_BZIP2_FOLLOWED)
    RANDOMISED = int(lib.SS_BZIP2_RANDOMISED)

    def __init__(self) -> None:
        self._decoder: Any = _allocate("ss_bzip2_decoder *")
        lib.ss_bzip2_decoder_init(self._decoder)

    def decompress(self, stream: Buffer, room: memoryview) -> int:
        """Write what ``stream``, one bzip2 stream, decodes to into ``room``; its size, or one of the above."""
        with ffi.from_buffer("uint8_t[]", stream) as view, ffi.from_buffer("uint8_t[]", room, require_writable=True) as out:
            return int(lib.ss_bzip2_decode(self._decoder, view, len(view), out, len(out)))
