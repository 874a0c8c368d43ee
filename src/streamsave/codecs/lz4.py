"""lz4: a chunk is one frame (lz4's ``lz4_Frame_format.md``) of one block, with content size and content checksum.

::

    frame = 04 22 4d 18 | 6c 70, u64 size of the chunk, checksum of these | u32 size of the block, block | u32 0, u32 xxh32

6c: independent blocks, content size, content checksum; 70: blocks of up to 4 MiB, so one for a chunk, none for an empty one.
The highest bit of a block's size says that it is stored as it is. So sizes alone lead from frame to frame. A carrier is a
skippable frame, 5a 2a 4d 18. All numbers are little-endian.

The libraries do the blocks (cramjam, into our memory) and the checksum (xxhash). Their calls for whole frames take a tenth
longer there, and three times as long back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import GiB
from .base import Codec, DecodeError, NotFramed, OversizedError, ReadBytes, TruncatedError
from .lz4_blocks import MAGIC, SKIPPABLE, STORED, Lz4Reframer, decode_blocks, header_checksum
from .members import MemberReader
from .skips import cover_with

_DESCRIPTOR: Final = b"\x6c\x70"
_PREFIX: Final = MAGIC + _DESCRIPTOR
_CARRIER_MAGIC: Final = 0x184D2A5A
_COVER_MAGIC: Final = 0x184D2A5C
_COVERED_MAX: Final = 1 * GiB
_SKIPPABLE_HEAD: Final = struct.Struct("<II")
_HEADER: Final = struct.Struct("<6sQBI")
"""Prefix, content size, header checksum, and the size of the first block, or 0 if there is none."""
_END: Final = struct.Struct("<II")
_END_EMPTY: Final = struct.Struct("<I")
_FAST_LEVELS: Final = range(1, 3)
"""Both do the same, in the tool too; the others search longer and longer (lz4hc). Measured on 1 MiB chunks of programs and
libraries (MiB/s on one core, ratio; lz4 itself in brackets). Back it is 2350 MiB/s at every level.

1: 530, 1.772 (530, 1.773)   3: 82, 2.115 (82, 2.120)   4: 72, 2.143 (70, 2.148)   5: 60, 2.160 (58, 2.166)
6:  52, 2.170  (50, 2.176)   7: 44, 2.175 (43, 2.181)   8: 37, 2.178 (37, 2.184)   9: 32, 2.180 (33, 2.186)
10: 19, 2.181  (19, 2.187)  11: 10, 2.187 (11, 2.194)  12: 10, 2.188 (10, 2.194)
"""


class Lz4(Codec):
    """Not one of libvirt's."""

    name = "lz4"
    number = None
    summary = "the fastest that compresses; restored by streamsave alone"
    magic = MAGIC
    levels = range(1, 13)
    default_level = 1
    tool_level = 1
    tool = ("lz4", "-c")

    def encoder(self, level: int) -> Lz4Encoder:
        return Lz4Encoder(level)

    def decoder(self) -> Lz4Decoder:
        return Lz4Decoder()

    def splitter(self) -> Lz4Splitter:
        return Lz4Splitter(self.chunk_size, self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> Lz4Reader:
        return Lz4Reader(read)

    def reframer(self, read: ReadBytes) -> Lz4Reframer:
        return Lz4Reframer(read)

    def bound(self, size: int) -> int:
        """What does not compress is stored, but tried before, and takes up to ``LZ4_compressBound`` bytes then."""
        return size + size // 255 + 16 + _HEADER.size + _END.size

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        """A skippable frame."""
        return _SKIPPABLE_HEAD.pack(_CARRIER_MAGIC, len(data)) + data

    def cover(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Skippable frames."""
        return cover_with(lambda body: _SKIPPABLE_HEAD.pack(_COVER_MAGIC, body), _SKIPPABLE_HEAD.size, _COVERED_MAX, size)

    def uncarry(self, carrier: bytes) -> bytes:
        data = carrier[_SKIPPABLE_HEAD.size :]
        if carrier[: _SKIPPABLE_HEAD.size] != _SKIPPABLE_HEAD.pack(_CARRIER_MAGIC, len(data)):
            raise DecodeError("no skippable frame with data of ours")
        return data


class Lz4Encoder:
    """Keeps nothing from chunk to chunk: the library's tables live in its calls."""

    def __init__(self, level: int) -> None:
        import xxhash
        from cramjam import lz4

        self._compress_into = lz4.compress_block_into
        self._options: dict[str, Any] = {"store_size": False}
        if level not in _FAST_LEVELS:
            self._options |= {"mode": "high_compression", "compression": level}
        self._xxh32 = xxhash.xxh32_intdigest

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """Header, block, end mark and checksum."""
        checksum = self._xxh32(chunk)
        if not chunk:
            return [_header(0, 0, self._xxh32), _END_EMPTY.pack(checksum)]
        size = self._compress_into(chunk, room, **self._options)
        block = room[:size]
        if size >= len(chunk):
            block, size = chunk, len(chunk) | STORED
        return [_header(len(chunk), size, self._xxh32), block, _END.pack(0, checksum)]


class Lz4Decoder:
    """Decodes our own frames in one call, into the room, but for what is stored; and those of an ``Lz4Reframer``."""

    def __init__(self) -> None:
        import xxhash
        from cramjam import DecompressionError, lz4

        self._decompress_into = lz4.decompress_block_into
        self._error = DecompressionError
        self._xxh32 = xxhash.xxh32_intdigest

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in ``room`` or ``frame``; see ``Decoder``."""
        prefix = bytes(frame[: len(_PREFIX)])
        if prefix[: len(MAGIC)] == MAGIC and prefix != _PREFIX:
            return decode_blocks(frame, room, self._expand, self._xxh32)
        frame_size, chunk_size, block_size = _sizes(frame)
        if frame_size != len(frame):
            kind = TruncatedError if frame_size > len(frame) else DecodeError
            raise kind(f"an lz4 frame of {frame_size} bytes in {len(frame)}")
        if chunk_size > len(room):
            raise OversizedError(f"a chunk of {chunk_size} bytes where at most {len(room)} are expected")
        if frame[: _HEADER.size] != _header(chunk_size, block_size, self._xxh32):
            raise DecodeError("the header of the lz4 frame is damaged")
        chunk = self._decode(frame[_HEADER.size : -_END.size], block_size, room[:chunk_size])
        end = _END.pack(0, self._xxh32(chunk)) if chunk_size else _END_EMPTY.pack(self._xxh32(chunk))
        if len(chunk) != chunk_size or frame[-len(end) :] != end:
            raise DecodeError("the lz4 frame is damaged: its size or its checksum is wrong")
        return chunk

    def _decode(self, block: memoryview, block_size: int, room: memoryview) -> memoryview:
        if block_size & STORED:
            return block
        if not block_size:
            return room
        return room[: self._expand(block, room)]

    def _expand(self, block: memoryview, room: memoryview) -> int:
        try:
            return int(self._decompress_into(block, room, output_len=len(room)))
        except self._error as error:
            raise DecodeError(f"the lz4 block is damaged: {error}") from error


class Lz4Splitter:
    """Believes the content size and the block's size, within the bounds of a slot."""

    def __init__(self, chunk_size: int, frame_bound: int) -> None:
        self._chunk_size = chunk_size
        self._frame_bound = frame_bound

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """From the header to behind the checksum."""
        try:
            frame_size, chunk_size, _ = _sizes(view)
        except TruncatedError:
            if final:
                raise NotFramed from None
            return 0
        except DecodeError:
            raise NotFramed from None
        if frame_size > self._frame_bound or chunk_size > self._chunk_size:
            raise NotFramed
        return frame_size


def _header(chunk_size: int, block_size: int, xxh32: Callable[[Buffer], int]) -> bytes:
    checked = _DESCRIPTOR + chunk_size.to_bytes(8, "little")
    return _HEADER.pack(_PREFIX, chunk_size, header_checksum(checked, xxh32), block_size)


def _sizes(view: memoryview) -> tuple[int, int, int]:
    """The sizes of the frame of ours that ``view`` starts with, of its chunk, and of its block as it is written.

    Raises:
        DecodeError: it starts with no such frame. ``TruncatedError``: that cannot be seen yet.

    """
    if view[: len(_PREFIX)] != _PREFIX[: len(view)]:
        raise DecodeError("this is not the header of one of our lz4 frames")
    if len(view) < _HEADER.size:
        raise TruncatedError(f"{len(view)} bytes are too few for an lz4 frame")
    _, chunk_size, _, block_size = _HEADER.unpack_from(view)
    if bool(chunk_size) != bool(block_size):
        raise DecodeError("the lz4 frame has no block, or one for nothing")
    end = _END if block_size else _END_EMPTY
    return _HEADER.size + (block_size & ~STORED) + end.size, chunk_size, block_size


class Lz4Reader(MemberReader):
    """Any lz4 payload: frames of any kind, but for those of before 2013, and skippable ones everywhere."""

    def __init__(self, read: ReadBytes) -> None:
        super().__init__(read, Lz4Member, (RuntimeError,))

    def _next_starts(self) -> bool:
        while (head := self._peek(_SKIPPABLE_HEAD.size)[: _SKIPPABLE_HEAD.size])[:4] != MAGIC:
            if not head and self._started:
                return False
            if len(head) < len(MAGIC) and (head == MAGIC[: len(head)] or head[1:] == b"\x2a\x4d\x18"[: len(head) - 1]):
                raise TruncatedError("the payload ends before an lz4 frame does")
            if int.from_bytes(head[:4], "little") not in SKIPPABLE:
                raise DecodeError(f"an lz4 frame starts with 04 22 4d 18, not with {head[:4].hex(' ')}")
            if len(head) < _SKIPPABLE_HEAD.size:
                raise TruncatedError("the payload ends inside a skippable lz4 frame")
            self._skip(sum(_SKIPPABLE_HEAD.unpack(head)[1:], _SKIPPABLE_HEAD.size))
            self._started = True
        return True

    def _skip(self, size: int) -> None:
        while size:
            piece = self._take()
            if not piece:
                raise TruncatedError("the payload ends inside a skippable lz4 frame")
            self._ahead = bytes(piece[size:])
            size -= min(size, len(piece))


class Lz4Member:
    """``LZ4FrameDecompressor`` with the interface of a ``MemberDecoder``."""

    def __init__(self) -> None:
        import lz4.frame

        self._decompressor: Any = lz4.frame.LZ4FrameDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._decompressor.needs_input)

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data or b""

    def decompress(self, data: Buffer, max_length: int, /) -> bytes:
        """The library keeps to ``max_length``."""
        decoded: bytes = self._decompressor.decompress(data, max_length)
        return decoded


CODEC: Final = Lz4()
