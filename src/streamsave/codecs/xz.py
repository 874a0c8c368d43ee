"""xz: a chunk is one stream (the .xz file format, version 1.2.1) of one block, whose header says how large it is.

::

    frame = fd "7zXZ" 00, flags | block header: compressed size, size, LZMA2 | LZMA2 data, padding, crc32 | index | footer

liblzma does the work as part of cramjam, into our memory. Python's own binding sets its tables up, 10 ms for a chunk at
level 3, while all other threads wait. The container is written here: liblzma's encoder leaves the sizes out of the block
header, where they lead to the next frame without decoding. All of it follows from these two sizes, so it is compared with
what it has to be, byte by byte. A carrier is a stream of empty blocks (``_carrier``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal
from zlib import crc32

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import KiB, MiB
from .base import Codec, DecodeError, NotFramed, OversizedError, ReadBytes, TruncatedError, damage
from .members import MemberReader
from .xz_blocks import XzReframer
from .xz_container import (
    FOOTER_SIZE,
    MAGIC,
    STREAM_HEADER_SIZE,
    U32,
    checked,
    index_and_footer,
    number,
    numbers,
    stream_header,
)

_CRC32_FLAGS: Final = b"\0\1"
_NO_CHECK_FLAGS: Final = b"\0\0"

_BLOCK_HEADER_SIZE: Final = 20
"""Its own size, flags, the two sizes of up to 4 bytes, LZMA2 with 3, padding, crc32."""
_BOTH_SIZES: Final = 0xC0
_HEADER_SIZE: Final = STREAM_HEADER_SIZE + _BLOCK_HEADER_SIZE
_CHECK_SIZE: Final = 4
_DICTIONARY_SIZE: Final = 4 * MiB
_LZMA2: Final = b"\x21\x01\x14"
"""The filter's number, the size of its properties, and these: a dictionary of 4 MiB (section 5.3.1)."""
_LZMA2_PIECE: Final = 4 * KiB
"""What does not compress is stored in pieces, each with 3 bytes before it. One is what would have filled 64 KiB, and no byte
takes 16 bytes: not two dozen decisions of six bits, the most that one costs. One more byte ends the data."""

_SEARCHES: Final[dict[int, tuple[Literal["hc3", "hc4", "bt4"], int, int, int]]] = {
    0: ("hc3", 128, 3, 256 * KiB),
    1: ("hc4", 128, 2, 1 * MiB),
    2: ("hc4", 273, 3, 2 * MiB),
    3: ("hc4", 273, 6, 4 * MiB),
    4: ("bt4", 16, 0, 4 * MiB),
    5: ("bt4", 32, 0, 4 * MiB),
    **dict.fromkeys(range(6, 10), ("bt4", 64, 0, 4 * MiB)),
}
"""The match finder, the length from which on a match is good enough, how many candidates are looked at, and the dictionary.
0 candidates: as many as liblzma finds right, and a search for the cheapest coding, not for the longest match. xz looks at 4,
8, 24 and 48 candidates at its levels 0 to 3; with fewer the output stays within 4 % of its. Its levels 7 to 9 differ from 6
in the dictionary, and here none is larger than a chunk: what repeats over more than 4 MiB they do not find.

Measured on 4 MiB chunks of programs and libraries (MiB/s on one core of a busy machine, ratio; xz itself in brackets).
Back it is 60 MiB/s.

0: 16, 2.792  (16, 2.816)   1: 11, 2.847 (7.2, 2.920)   2: 9.0, 2.872 (4.3, 2.952)   3: 7.2, 2.904 (2.1, 2.967)
4: 2.3, 3.128 (2.0, 3.155)  5: 2.4, 3.173 (1.6, 3.212)  6: 2.0, 3.177 (1.4, 3.219)
"""

_MEMORY_MAX: Final = 130 * MiB
"""What the sequential reader may take: dictionaries of up to 128 MiB. ``xz -9`` has 64."""

_CARRYING: Final = struct.Struct("<2s2s4s2s4s2s4s4s")
_CARRIED_PER_BLOCK: Final = 12
_CARRYING_BLOCK_SIZE: Final = 32


class Xz(Codec):
    """libvirt's ``xz``."""

    name = "xz"
    number = 3
    summary = "the smallest, and slow both ways; zstd at a high level restores far faster"
    magic = MAGIC
    levels = range(10)
    default_level = 3
    tool_level = 6
    chunk_size = _DICTIONARY_SIZE
    tool = ("xz", "-c")
    needs_zeros = True

    def encoder(self, level: int) -> XzEncoder:
        return XzEncoder(level)

    def decoder(self) -> XzDecoder:
        return XzDecoder()

    def splitter(self) -> XzSplitter:
        return XzSplitter(self.chunk_size, self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> XzReader:
        return XzReader(read)

    def reframer(self, read: ReadBytes) -> XzReframer:
        return XzReframer(read)

    def bound(self, size: int) -> int:
        """What does not compress is stored."""
        data_size = size + (size // _LZMA2_PIECE + 1) * 3 + 1
        return _HEADER_SIZE + data_size + 3 + _CHECK_SIZE + len(_tail(data_size, size))

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        return _carrier(data)

    def uncarry(self, carrier: bytes) -> bytes:
        index_size = (int.from_bytes(carrier[-8:-4], "little") + 1) * 4
        blocks = range(STREAM_HEADER_SIZE, len(carrier) - FOOTER_SIZE - index_size, _CARRYING_BLOCK_SIZE)
        words = b"".join(carrier[at + 4 : at + 8] + carrier[at + 10 : at + 14] + carrier[at + 16 : at + 20] for at in blocks)
        data = words[8 : 8 + int.from_bytes(words[:8], "little")]
        if carrier != _carrier(data):
            raise DecodeError("no xz stream with data of ours in its filters")
        return data


class XzEncoder:
    """Keeps what to search; the library has a compressor for each chunk."""

    def __init__(self, level: int) -> None:
        from cramjam import xz

        finder, nice_size, depth, dictionary_size = _SEARCHES[level]
        finders = xz.MatchFinder
        options = xz.Options().set_preset(0)  # lc 3, lp 0, pb 2, as at every level
        options = options.set_dict_size(dictionary_size).set_nice_len(nice_size).set_depth(depth)
        options = options.set_mode(xz.Mode.Fast if depth else xz.Mode.Normal)
        options = options.set_mf({"hc3": finders.HashChain3, "hc4": finders.HashChain4, "bt4": finders.BinaryTree4}[finder])
        filters = xz.FilterChain()
        filters.append_filter(xz.FilterChainItem(xz.Filter.Lzma2, options))
        self._compress_into = partial(xz.compress_into, format=xz.Format.RAW, filters=filters)

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """Headers, LZMA2 data, and what follows."""
        size = self._compress_into(chunk, room)
        check = bytes(-size % 4) + U32.pack(crc32(chunk))
        return [_head(size, len(chunk)), room[:size], check + _tail(size, len(chunk))]


class XzDecoder:
    """Decodes our own frames in one call, into the room, and those of an ``XzReframer``."""

    def __init__(self) -> None:
        from cramjam import DecompressionError, xz

        self._decompress_into = xz.decompress_into
        self._error = DecompressionError

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in ``room``; see ``Decoder``."""
        chunk_size = _content_size(frame)
        if chunk_size > len(room):
            raise OversizedError(f"a chunk of {chunk_size} bytes where at most {len(room)} are expected")
        try:
            size = self._decompress_into(frame, room[:chunk_size])
        except self._error as error:
            raise damage(error, "the xz stream") from error
        if size != chunk_size:
            raise DecodeError(f"the xz stream holds {size} bytes and not {chunk_size}, as it says")
        return room[:chunk_size]


class XzSplitter:
    """Believes the block header, within the bounds of a slot."""

    def __init__(self, chunk_size: int, frame_bound: int) -> None:
        self._chunk_size = chunk_size
        self._frame_bound = frame_bound

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """From the stream's header to its footer."""
        try:
            data_size, chunk_size = _sizes(view)
        except TruncatedError:
            if final:
                raise NotFramed from None
            return 0
        except DecodeError:
            raise NotFramed from None
        size = _frame_size(data_size, chunk_size)
        if size > self._frame_bound or chunk_size > self._chunk_size:
            raise NotFramed
        return size


class XzReader(MemberReader):
    """Any xz payload: streams of any number of blocks, any check, padding between and behind them, as for ``xz -dc``.

    Padding may also be all there is, so that a reader can go on where a splitter stopped.
    """

    def __init__(self, read: ReadBytes) -> None:
        import lzma

        def new_decoder() -> lzma.LZMADecompressor:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_MAX)

        super().__init__(read, new_decoder, (lzma.LZMAError,))

    def _next_starts(self) -> bool:
        if self._skip_padding() % 4:
            raise DecodeError("the padding of an xz stream is not a multiple of four bytes")
        head = self._peek(len(MAGIC))[: len(MAGIC)]
        if not head and self._started:
            return False
        if len(head) < len(MAGIC) and head == MAGIC[: len(head)]:
            raise TruncatedError("the payload ends before an xz stream does")
        if head != MAGIC:
            raise DecodeError(f"an xz stream starts with {MAGIC.hex(' ')}, not with {head.hex(' ')}")
        return True

    def _skip_padding(self) -> int:
        size = 0
        while self._peek(1)[:1] == b"\0":
            piece = bytes(self._take())
            self._ahead = piece.lstrip(b"\0")
            size += len(piece) - len(self._ahead)
        self._started = self._started or size > 0  # or reading on at the end would miss a stream
        return size


# -- the container ----------------------------------------------------------------------------------------------------


def _sizes(view: memoryview) -> tuple[int, int]:
    """The sizes of the LZMA2 data and of the chunk of the frame of ours that ``view`` starts with.

    Raises:
        DecodeError: it starts with no such frame. ``TruncatedError``: that cannot be seen yet.

    """
    start = stream_header(_CRC32_FLAGS) + bytes([_BLOCK_HEADER_SIZE // 4 - 1, _BOTH_SIZES])
    if view[: len(start)] != start[: len(view)]:
        raise DecodeError("this is not the header of one of our xz streams")
    if len(view) < _HEADER_SIZE:
        raise TruncatedError(f"{len(view)} bytes are too few for an xz stream")
    sizes = numbers(view[len(start) : _HEADER_SIZE])
    data_size, chunk_size = next(sizes), next(sizes)
    if view[:_HEADER_SIZE] != _head(data_size, chunk_size):
        raise DecodeError("this is not the header of one of our xz streams, or it is damaged")
    return data_size, chunk_size


def _content_size(frame: memoryview) -> int:
    """The size of the chunk of a frame that is all there.

    Raises:
        DecodeError: it is no frame of ours, nor another stream of one block; or is not as large as it says.

    """
    try:
        data_size, chunk_size = _sizes(frame)
    except TruncatedError:
        raise
    except DecodeError:
        return _indexed_size(frame)
    frame_size, tail = _frame_size(data_size, chunk_size), _tail(data_size, chunk_size)
    if frame_size != len(frame):
        kind = TruncatedError if frame_size > len(frame) else DecodeError
        raise kind(f"an xz stream of {frame_size} bytes in {len(frame)}")
    if frame[-len(tail) :] != tail:
        raise DecodeError("the index or the footer of the xz stream is damaged")
    return chunk_size


def _indexed_size(frame: memoryview) -> int:
    """The size of the chunk of any stream of one block, by its index."""
    footer = bytes(frame[-FOOTER_SIZE:])
    start = len(frame) - FOOTER_SIZE - (int.from_bytes(footer[4:8], "little") + 1) * 4
    if start < STREAM_HEADER_SIZE or frame[start] or frame[start + 1] != 1:
        raise DecodeError("this is no xz stream of one block")
    sizes = numbers(frame[start + 2 : -FOOTER_SIZE])
    block_size, chunk_size = next(sizes), next(sizes)
    tail = index_and_footer(1, number(block_size) + number(chunk_size), footer[8:10])
    if frame[start:] != tail or start != STREAM_HEADER_SIZE + block_size + -block_size % 4:
        raise DecodeError("the index or the footer of the xz stream is damaged")
    return chunk_size


def _frame_size(data_size: int, chunk_size: int) -> int:
    return _HEADER_SIZE + data_size + -data_size % 4 + _CHECK_SIZE + len(_tail(data_size, chunk_size))


def _head(data_size: int, chunk_size: int) -> bytes:
    """What stands before the LZMA2 data: stream header and block header (sections 2.1.1 and 3.1)."""
    block = bytes([_BLOCK_HEADER_SIZE // 4 - 1, _BOTH_SIZES]) + number(data_size) + number(chunk_size) + _LZMA2
    return stream_header(_CRC32_FLAGS) + checked(block.ljust(_BLOCK_HEADER_SIZE - 4, b"\0"))


def _tail(data_size: int, chunk_size: int) -> bytes:
    """What stands behind the check: index and footer."""
    record = number(_BLOCK_HEADER_SIZE + data_size + _CHECK_SIZE) + number(chunk_size)
    return index_and_footer(1, record, _CRC32_FLAGS)


def _carrier(data: bytes) -> bytes:
    """A stream of empty blocks: each has three branch filters (x86, 04), whose start offsets are 12 bytes of the data.

    A decoder sets the filters up and has nothing to put through. The first 8 bytes are the size of the data.
    """
    data = len(data).to_bytes(8, "little") + data
    data += bytes(-len(data) % _CARRIED_PER_BLOCK)
    starts = range(0, len(data), _CARRIED_PER_BLOCK)
    index = index_and_footer(len(starts), b"\x1d\0" * len(starts), _NO_CHECK_FLAGS)
    return b"".join([stream_header(_NO_CHECK_FLAGS), *(_carrying_block(data, at) for at in starts), index])


def _carrying_block(data: bytes, at: int) -> bytes:
    """Header: size 28, four filters, the last LZMA2 with 4 KiB; then LZMA2 data of nothing, and padding."""
    words = data[at : at + 4], data[at + 4 : at + 8], data[at + 8 : at + 12]
    header = _CARRYING.pack(b"\x06\x03", b"\4\4", words[0], b"\4\4", words[1], b"\4\4", words[2], b"\x21\x01\0\0")
    return header + U32.pack(crc32(header)) + bytes(4)


CODEC: Final = Xz()
