"""lzop: a chunk is a run of blocks of 256 KiB, as ``lzop -c`` cuts and checks them.

::

    payload = header | frames | end: u32 0
    block   = u32 size, u32 size of the data, u32 adler32 of the block | data: LZO1X, or the block itself if that is smaller
    frame   = four blocks of 256 KiB | any number of those and a shorter one | fewer than four of those | nothing

A frame ends with its fourth full block, or with a block that is not full. Where neither is at hand (only at the end of
a stream can that be) it ends by ending the file: a new one begins behind it, for ``lzop -dc`` decodes files back to back.
A carrier is a file of nothing, whose header has the data in an extra field. Numbers are big-endian.

lzop's own files consist of the same blocks behind a header that says when and of what they were made: they split as ours do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import MiB
from .base import Codec, DecodeError, NotFramed, ReadBytes, TruncatedError
from .lzop_container import (
    ADLER_OF_BLOCK,
    BLOCK,
    BLOCK_SIZE,
    CHECKS,
    END,
    EXTRA_FIELD,
    MAGIC,
    U32,
    check_sizes,
    expand,
    header,
    read_header,
)
from .lzop_reader import LzopReader

_DEPTHS: Final = {7: 4, 8: 16, 9: 48}
"""How many places are compared at each, where lzop has LZO1X-999. Measured on programs and libraries (MB/s on one core,
ratio; lzop itself in brackets): 7: 12, 2.194 (13, 2.194)   8: 10, 2.238 (6, 2.210)   9: 9, 2.241 (5, 2.210)."""
_CHUNK_SIZE: Final = 1 * MiB
_TRIED_MORE: Final = 64
"""LZO1X makes this, and a sixteenth, of what does not compress (``ss_lzo_bound``)."""
_PROLOGUE: Final = header(0)
_NEW_FILE: Final = END + _PROLOGUE


class Lzop(Codec):
    """libvirt's ``lzop``."""

    name = "lzop"
    number = 4
    summary = "the fastest that every libvirt restores; zstd is smaller and as fast"
    magic = MAGIC
    levels = range(1, 10)
    default_level = 3
    tool_level = 3
    tool = ("lzop", "-c")
    tool_decode_options = ("-dc", "--ignore-warn")
    chunk_size = _CHUNK_SIZE
    probe_size = 512
    prologue = _PROLOGUE
    epilogue = END

    def encoder(self, level: int) -> LzopEncoder:
        return LzopEncoder(level)

    def decoder(self) -> LzopDecoder:
        return LzopDecoder()

    def splitter(self) -> LzopSplitter:
        return LzopSplitter()

    def stream_reader(self, read: ReadBytes) -> LzopReader:
        return LzopReader(read)

    def prologue_size(self, view: memoryview) -> int:
        """Of any header behind which blocks are as ours: lzop's own tells a time and a mode, perhaps a name."""
        position = 0

        def take(size: int) -> Buffer:
            nonlocal position
            position += size
            if position > len(view):
                raise NotFramed
            return view[position - size : position]

        try:
            if take(len(MAGIC)) != MAGIC or read_header(take) & (CHECKS | EXTRA_FIELD) != ADLER_OF_BLOCK:
                raise NotFramed
        except DecodeError:
            raise NotFramed from None
        return position

    def bound(self, size: int) -> int:
        """Blocks that do not compress are stored, but tried before: they take up to ``lzo.bound`` bytes then."""
        return size + size // 16 + -(-size // BLOCK_SIZE) * (BLOCK.size + _TRIED_MORE) + len(_NEW_FILE)

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        """A file of nothing, with the data in its extra field."""
        return header(EXTRA_FIELD, data) + END

    def uncarry(self, carrier: bytes) -> bytes:
        start = len(_PROLOGUE) + U32.size
        data = carrier[start : -U32.size - len(END)]
        if carrier != self.carry(data, FrameTable(self.chunk_size)):
            raise DecodeError("no empty lzop file with an extra field of ours")
        return data


class LzopEncoder:
    """One table, used again from block to block."""

    def __init__(self, level: int) -> None:
        from deflate import adler32  # many times as fast as zlib's

        from .._native import lzo

        if level in _DEPTHS:
            self._compress = lzo.LzoBestCompressor(depth=_DEPTHS[level]).compress
        else:
            self._compress = lzo.LzoCompressor(fast=level == 1).compress
        self._adler32: Callable[[Buffer], int] = adler32

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """The blocks, and what ends the frame where they do not."""
        parts: list[Buffer] = []
        for start in range(0, len(chunk), BLOCK_SIZE):
            block, head, room = chunk[start : start + BLOCK_SIZE], room[: BLOCK.size], room[BLOCK.size :]
            size = self._compress(block, room)
            data, room = (room[:size], room[size:]) if size < len(block) else (block, room)
            BLOCK.pack_into(head, 0, len(block), len(data), self._adler32(block))
            parts += [head, data]
        if len(chunk) % BLOCK_SIZE == 0 and len(chunk) != _CHUNK_SIZE:
            parts.append(_NEW_FILE)
        return parts


class LzopDecoder:
    """Decodes into the room that it is given."""

    def __init__(self) -> None:
        from deflate import adler32

        from .._native.lzo import decompress

        self._decompress = decompress
        self._adler32: Callable[[Buffer], int] = adler32

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in ``room``."""
        position = filled = 0
        goes_on = True
        while goes_on:
            if frame[position : position + len(END)] == END:
                if frame[position : position + len(_NEW_FILE)] != _NEW_FILE:
                    raise DecodeError(f"an lzop frame ends within its {len(frame)} bytes, and not as ours do")
                position += len(_NEW_FILE)
                break
            if len(frame) < position + BLOCK.size:
                raise TruncatedError(f"the lzop frame does not end within its {len(frame)} bytes")
            size, data_size, checksum = BLOCK.unpack_from(frame, position)
            check_sizes(size, data_size, BLOCK_SIZE)
            if size > len(room) - filled:
                raise DecodeError(f"a chunk of more than the {len(room)} bytes that are expected")
            position += BLOCK.size + data_size
            if position > len(frame):
                raise TruncatedError(f"the lzop frame does not end within its {len(frame)} bytes")
            block = room[filled : filled + size]
            expand(frame[position - data_size : position], block, self._decompress)
            if self._adler32(block) != checksum:
                raise DecodeError("the adler32 of an lzop block is wrong")
            filled += size
            goes_on = size == BLOCK_SIZE and (filled % _CHUNK_SIZE > 0 or position < len(frame))
        if position != len(frame):
            raise DecodeError(f"{len(frame) - position} other bytes follow the lzop frame")
        return room[:filled]


class LzopSplitter:
    """Follows the sizes of the blocks, within the bounds of a slot."""

    def __init__(self) -> None:
        self._position = 0
        """Of the next block in the frame that is looked at."""
        self._filled = 0
        """How much of a chunk the blocks before it are."""

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """Up to the end of the block, or of the file, that ends the frame."""
        size = BLOCK_SIZE
        while size == BLOCK_SIZE and self._filled < _CHUNK_SIZE:
            ending = view[self._position : self._position + len(_NEW_FILE)]
            if ending == _NEW_FILE:
                return self._end(len(_NEW_FILE))
            if len(ending) < BLOCK.size or ending[: len(END)] == END:
                if final or (ending != _NEW_FILE[: len(ending)] and ending[: len(END)] == END):
                    raise NotFramed
                return -self._position - (len(_NEW_FILE) if ending[: len(END)] == END else BLOCK.size)
            size, data_size, _ = BLOCK.unpack_from(view, self._position)
            try:
                check_sizes(size, data_size, BLOCK_SIZE)
            except DecodeError:
                raise NotFramed from None
            self._position += BLOCK.size + data_size
            self._filled += size
        return self._end(0)

    def _end(self, size: int) -> int:
        """The frame ends ``size`` bytes behind its last block; the next call is about another one."""
        size += self._position
        self._position = self._filled = 0
        return size


CODEC: Final = Lzop()
