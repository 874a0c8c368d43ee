"""Any bzip2 payload as frames of one block each, so that one stream of ``bzip2 -c`` too is decoded by many threads.

::

    stream = BZh, level | blocks: magic (pi) 48 bits, checksum 32, data | end: magic (its root) 48, checksum of checksums 32

Blocks are of any number of bits and do not say how many. So a payload is cut wherever one of the two magics stands, at
whatever bit, and what is between two cuts, moved to a byte, becomes a stream of its own. A magic can stand in a block's data
by accident (once in 16 TiB) or on purpose. That shows when the block does not decode, and then it goes on, bit by bit, with
what comes next. What the end's checksum has to be only the writer knows for sure: it sees all blocks, in order.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from operator import eq
from typing import Final

from .._native.bits import NUMBER_BITS, BitFinder, copy_bits
from ..types import Buffer
from ..units import KiB, MiB
from .base import DecodeError, ReadBytes, TruncatedError
from .bzip2_joint import Joint

MAGIC: Final = b"BZh"
BLOCK_MAGIC: Final = bytes.fromhex("314159265359")
END_MAGIC: Final = bytes.fromhex("177245385090")
START: Final = re.compile(rb"BZh[1-9](?:%b|%b)" % (re.escape(BLOCK_MAGIC), re.escape(END_MAGIC)))
START_SIZE: Final = 10

_BLOCK: Final = int.from_bytes(BLOCK_MAGIC, "big")
_END: Final = int.from_bytes(END_MAGIC, "big")
_HEAD_SIZE: Final = len(MAGIC) + 1
_END_BITS: Final = NUMBER_BITS + 32
_PIECE_SIZE: Final = 256 * KiB


class Kind(Enum):
    """What a piece of a payload is, as far as the reader can tell."""

    START = "the start of a stream"
    END = "the end of one, going by its checksum or by what follows"
    BLOCK = "from the magic of a block to the next magic"
    MAYBE_END = "from the magic of an end, which may be data, to the next magic"
    MORE = "what follows something that is longer than a frame"

    @property
    def has_frame(self) -> bool:
        return self not in (Kind.START, Kind.END)


@dataclass(frozen=True, slots=True)
class Piece:
    """What the reader tells the writer."""

    kind: Kind
    bits: int = 0
    """Of the payload that are in the frame, behind its head."""
    checksum: int = 0
    """In a block or an end."""
    data: bytes = b""
    """Where there is no frame: a start's head, all of an end."""


class BlockReframer:
    """See ``Reframer``; the two halves share the queue of pieces and nothing else."""

    frame_bound = 1 * MiB
    """A block of an encoder in its right mind is under 910 KB; one that is not is decoded piece by piece."""
    chunk_bound = 4 * MiB
    """A block of 900 kB is that many bytes unless there are runs in it, which can be up to 51 times as long."""

    def __init__(self, read: ReadBytes) -> None:
        pieces: deque[Piece] = deque()
        self._cutter = _Cutter(read, pieces, 8 * (self.frame_bound - _HEAD_SIZE) - _END_BITS - 7)
        self._settler = _Settler(pieces)

    @property
    def rest(self) -> bytes:
        return b""  # any payload becomes frames

    def next_frame(self, room: memoryview) -> int:
        return self._cutter.next_frame(room)

    def settle(self, frame: memoryview, chunk: Buffer | DecodeError) -> Iterable[Buffer]:
        return self._settler.settle(frame, chunk)

    def finish(self) -> Iterable[Buffer]:
        return self._settler.finish()


class _Cutter:
    """The reader's half: cuts at the magics. Positions are bits of ``_data``, whose first bytes go as they are done with."""

    def __init__(self, read: ReadBytes, pieces: deque[Piece], limit: int) -> None:
        self._read = read
        self._pieces = pieces
        self._limit = limit
        """The most bits in a frame."""
        self._finder = BitFinder((_BLOCK, _END))
        self._data = bytearray()
        self._ended = False
        self._bit = 0
        """Where the next piece begins."""
        self._head = b""
        """Of the stream that we are in; empty: in none."""
        self._checksum = 0
        """Of the stream so far, if all is what it seems."""
        self._started = False
        """Whether there was a stream."""

    def next_frame(self, room: memoryview) -> int:
        """See ``Reframer``."""
        del self._data[: self._bit // 8]
        self._bit %= 8
        while self._head or self._start():
            kind, checksum = self._look()
            if kind is Kind.MAYBE_END and self._is_end(checksum):
                self._end(checksum)
            else:
                bits = self._bits_of_piece()
                return self._frame(room, Piece(kind, bits, checksum)) if bits else 0
        return 0

    def _start(self) -> bool:
        """Whether a stream starts here; otherwise the payload ends. Streams of nothing are gone over."""
        while True:
            self._has(8 * START_SIZE)
            head = bytes(self._data[self._bit // 8 :][:START_SIZE])
            if not self._starts_with(head):
                return False
            self._started = True
            self._bit += 8 * _HEAD_SIZE
            if self._bits(0, NUMBER_BITS) != _END or not self._has(_END_BITS):
                break
            if self._bits(NUMBER_BITS, 32):
                raise DecodeError("the checksum of an empty bzip2 stream is not 0")
            self._bit += _END_BITS
            del self._data[: self._bit // 8]
            self._bit = 0
        self._head, self._checksum = head[:_HEAD_SIZE], 0
        self._pieces.append(Piece(Kind.START, data=self._head))
        return True

    def _starts_with(self, head: bytes) -> bool:
        """What is no stream ends the payload, as for ``bzip2 -dc`` (which warns).

        Unlike there, not if it almost is one: then a few flipped bits would lose everything that follows.
        """
        if head[: len(MAGIC)] == MAGIC[: len(head)]:
            if b"1" <= head[len(MAGIC) : _HEAD_SIZE] <= b"9":
                return True
            if len(head) < _HEAD_SIZE and (head or not self._started):
                raise TruncatedError("the payload ends before a bzip2 stream does")
        if not self._started:
            raise DecodeError(f"a bzip2 stream starts with BZh1 to BZh9, not with {head[:_HEAD_SIZE].hex(' ')}")
        if _resembles_a_start(head):
            raise DecodeError("the start of a bzip2 stream is damaged")
        return False

    def _look(self) -> tuple[Kind, int]:
        """What follows, and its checksum."""
        number, checksum = self._bits(0, NUMBER_BITS), self._bits(NUMBER_BITS, 32)
        if number == _BLOCK:
            return Kind.BLOCK, checksum
        return (Kind.MAYBE_END, checksum) if number == _END and checksum >= 0 else (Kind.MORE, -1)

    def _is_end(self, checksum: int) -> bool:
        """Whether the magic of an end is one. If data held magics before, only the writer knows the right checksum."""
        behind = _bytes(self._bit + _END_BITS)
        self._has(8 * (behind + START_SIZE) - self._bit)
        return checksum == self._checksum or behind == len(self._data) or START.match(self._data, behind) is not None

    def _end(self, checksum: int) -> None:
        end = bytearray(_END_BITS // 8)
        copy_bits(end, 0, self._data, self._bit, _END_BITS)
        self._pieces.append(Piece(Kind.END, _END_BITS, checksum, bytes(end)))
        self._bit = 8 * _bytes(self._bit + _END_BITS)
        self._head = b""

    def _frame(self, room: memoryview, piece: Piece) -> int:
        """A stream of its own: head, the bits, and the end of a stream of one block."""
        if piece.kind is Kind.BLOCK:
            self._checksum = _combine(self._checksum, piece.checksum)
        self._pieces.append(piece)
        room[:_HEAD_SIZE] = self._head
        copy_bits(room, 8 * _HEAD_SIZE, self._data, self._bit, piece.bits)
        copy_bits(room, 8 * _HEAD_SIZE + piece.bits, END_MAGIC + _packed(piece.checksum), 0, _END_BITS)
        self._bit += piece.bits
        return _HEAD_SIZE + _bytes(piece.bits + _END_BITS)

    def _bits_of_piece(self) -> int:
        """How many bits to the next magic, or to where a frame or the payload ends."""
        start = self._bit + 1
        while True:
            found = self._finder.find(self._data, start)
            have = 8 * len(self._data) - self._bit
            if found >= 0 or have >= self._limit or not self._read_more():
                return min(found - self._bit if found >= 0 else have, self._limit)
            start = max(start, self._bit + have - NUMBER_BITS + 1)

    def _bits(self, start: int, count: int) -> int:
        """The number in the ``count`` bits from bit ``start`` of the piece; -1 if there are fewer."""
        if not self._has(start + count):
            return -1
        first, end = self._bit + start, self._bit + start + count
        return int.from_bytes(self._data[first // 8 : _bytes(end)], "big") >> -end % 8 & (1 << count) - 1

    def _has(self, count: int) -> bool:
        """Whether ``count`` bits follow."""
        while 8 * len(self._data) - self._bit < count:
            if not self._read_more():
                return False
        return True

    def _read_more(self) -> bool:
        if not self._ended:
            data = self._read(_PIECE_SIZE)
            self._data += data
            self._ended = not data
        return not self._ended


class _Settler:
    """The writer's half: knows in order what the blocks are."""

    def __init__(self, pieces: deque[Piece]) -> None:
        self._pieces = pieces
        self._head = b""
        self._in_stream = False
        self._checksum = 0
        """Of the stream so far."""
        self._joint: Joint | None = None
        """A block that did not decode alone and is not known to be over."""

    def settle(self, frame: memoryview, chunk: Buffer | DecodeError) -> Iterator[Buffer]:
        """See ``Reframer``."""
        while not (piece := self._pieces.popleft()).kind.has_frame:
            yield from self._pass(piece)
        yield from self._continue(frame, 8 * _HEAD_SIZE, piece.bits)
        if self._joint or not self._in_stream:
            return
        if piece.kind is Kind.MAYBE_END:
            self._end(piece)
        elif piece.kind is Kind.BLOCK and not isinstance(chunk, DecodeError):
            self._checksum = _combine(self._checksum, piece.checksum)
            yield chunk
        else:
            self._joint = Joint(self._head, piece.checksum)
            yield from self._joint.feed(frame, 8 * _HEAD_SIZE, piece.bits)

    def finish(self) -> Iterator[Buffer]:
        """See ``Reframer``."""
        while self._pieces:
            yield from self._pass(self._pieces.popleft())
        if self._joint or self._in_stream:
            raise TruncatedError("the payload ends inside a bzip2 stream")

    def _pass(self, piece: Piece) -> Iterator[Buffer]:
        """The start or the end of a stream."""
        yield from self._continue(piece.data, 0, piece.bits)
        if piece.kind is Kind.START:
            if self._joint or self._in_stream:
                raise DecodeError("a bzip2 stream starts inside another")
            self._head, self._in_stream, self._checksum = piece.data, True, 0
        elif self._in_stream and not self._joint:
            self._end(piece)

    def _end(self, piece: Piece) -> None:
        if piece.checksum != self._checksum:
            raise DecodeError("the checksum of a bzip2 stream is wrong")
        self._in_stream = False

    def _continue(self, data: Buffer, start: int, count: int) -> Iterator[Buffer]:
        """Give the next bits to the block that is not over, unless it was over before them."""
        if self._joint and (yield from self._joint.feed(data, start, count)):
            self._checksum = _combine(self._checksum, self._joint.checksum)
            self._joint = None


def _resembles_a_start(head: bytes) -> bool:
    """Whether half of ``head`` or more is as it would be at the start of a stream."""
    starts = (MAGIC + b"9" + BLOCK_MAGIC, MAGIC + b"9" + END_MAGIC)
    return any(sum(map(eq, head, start)) >= START_SIZE // 2 for start in starts)


def _packed(checksum: int) -> bytes:
    return max(checksum, 0).to_bytes(4, "big")


def _combine(checksum: int, block: int) -> int:
    """The checksum of a stream, one block later."""
    return (checksum << 1 | checksum >> 31) & 0xFFFF_FFFF ^ max(block, 0)


def _bytes(bits: int) -> int:
    return (bits + 7) // 8
