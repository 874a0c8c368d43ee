"""bzip2: a chunk is one stream, as pbzip2 writes it; ``bzip2 -dc`` decodes streams back to back as one.

bzip2 has no room for a size, but a stream starts at a byte, and with ten bytes that data hold by no accident: ``BZh``, the
level, and the magic of a first block (pi) or of the end (its square root). Before each such place stands the end of the
stream before it: the end's magic and a checksum, shifted by up to seven bits.

The compressor is our own (``native/bzip2_encode.c``): it sorts in linear time, whatever a guest has in its memory. Measured
on 32 MiB of programs and libraries, in one thread of two busy cores (user ms per MiB, ratio; medians of five in turn):

=====  ===========  ===========  ============
level  ours         libbz2       lbzip2 -n1
=====  ===========  ===========  ============
1      21.1, 2.747  66.3, 2.744  48.7, 2.736
9      24.6, 2.861  77.0, 2.858  49.0, 2.815
=====  ===========  ===========  ============

Ours and libbz2 compressed chunks of 1 MiB, lbzip2 all of it at once. Of the time, the sort takes four fifths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..types import Buffer
from ..units import KiB
from .base import Codec, DecodeError, NotFramed, OversizedError, ReadBytes, TruncatedError
from .bzip2_blocks import END_MAGIC, MAGIC, START, START_SIZE, BlockReframer
from .framed import FrameReader

_SMALLEST: Final = 14
"""A stream of nothing: ``BZh``, level, the end's magic, a checksum of 4 bytes."""


class Bzip2(Codec):
    """libvirt's ``bzip2``."""

    name = "bzip2"
    number = 2
    summary = "small and slow, for every libvirt; zstd at a high level is as small and restores far faster"
    magic = MAGIC
    levels = range(1, 10)
    default_level = 9
    tool_level = 9
    tool = ("bzip2", "-c")
    probe_size = 64 * KiB

    def encoder(self, level: int) -> Bzip2Encoder:
        return Bzip2Encoder(level)

    def decoder(self) -> Bzip2Decoder:
        return Bzip2Decoder()

    def splitter(self) -> Bzip2Splitter:
        return Bzip2Splitter(self.chunk_size, self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> FrameReader:
        return FrameReader(self.reframer(read), self.decoder())

    def reframer(self, read: ReadBytes) -> BlockReframer:
        return BlockReframer(read)

    def bound(self, size: int) -> int:
        """1 % and 600 bytes more (libbz2's manual, section 3.5.1).

        No stream needs the last of them: the start of the next one is always seen within a buffer of this size.
        """
        return size + size // 100 + 600


class Bzip2Encoder:
    """A compressor of our own (``native/bzip2_encode.c``), whose memory lives from chunk to chunk."""

    def __init__(self, level: int) -> None:
        from .._native.bzip2 import Bzip2Compressor

        self._compressor = Bzip2Compressor(level)

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """One stream."""
        return [room[: self._compressor.compress(chunk, room)]]


class Bzip2Decoder:
    """One decompressor of ours, used again from frame to frame."""

    def __init__(self) -> None:
        from .._native.bzip2 import Bzip2Decompressor

        self._decompressor = Bzip2Decompressor()

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in ``room``; see ``Decoder``."""
        size = self._decompressor.decompress(frame, room)
        if size >= 0:
            return room[:size]
        if size == self._decompressor.TOO_LARGE:
            raise OversizedError(f"a chunk of more than the {len(room)} bytes that are expected")
        if size == self._decompressor.CUT:
            raise TruncatedError(f"the bzip2 stream does not end within its {len(frame)} bytes")
        if size == self._decompressor.FOLLOWED:
            raise DecodeError("other bytes follow the bzip2 stream")
        if size == self._decompressor.RANDOMISED:
            return _decode_with_libbz2(frame, len(room))
        raise DecodeError("the bzip2 stream is damaged: its data or a checksum is wrong")


def _decode_with_libbz2(frame: memoryview, room: int) -> Buffer:
    """What ``Bzip2Decoder`` leaves to others: blocks that bzip2 0.9.0 (1998) and its predecessors randomised."""
    from bz2 import BZ2Decompressor

    decompressor = BZ2Decompressor()
    try:
        chunk = decompressor.decompress(frame, room + 1)
    except OSError as error:
        raise DecodeError("the bzip2 stream is damaged: its data or a checksum is wrong") from error
    if len(chunk) > room:
        raise OversizedError(f"a chunk of more than the {room} bytes that are expected")
    if not decompressor.eof or decompressor.unused_data:
        raise DecodeError("the bzip2 stream does not end where its frame does")
    return chunk


class Bzip2Splitter:
    """Searches for the start of the next stream."""

    def __init__(self, chunk_size: int, frame_bound: int) -> None:
        from bz2 import BZ2Decompressor

        self._new_decompressor = BZ2Decompressor
        self._chunk_size = chunk_size
        self._frame_bound = frame_bound
        self._searched = 0
        self._is_ours = False

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """Up to where the next stream starts, or the payload ends."""
        if len(view) < _SMALLEST:
            if final:
                raise NotFramed
            return 0
        if not START.match(view):
            raise NotFramed
        size = self._find_end(view, final=final)
        if not size:
            if final or len(view) >= self._frame_bound:
                raise NotFramed
            return 0
        self._searched = 0
        if not self._is_ours:
            self._check_chunk_size(view[:size])
            self._is_ours = True
        return size

    def _find_end(self, view: memoryview, *, final: bool) -> int:
        """Where the stream ends at the start of another or at the end of the payload; 0: not seen."""
        position = max(self._searched, _SMALLEST)
        while start := START.search(view, position):
            if _ends_a_stream(view[: start.start()]):
                return start.start()
            position = start.start() + 1
        self._searched = max(position, len(view) - START_SIZE + 1)
        # Other bytes behind the last stream are the sequential reader's to ignore.
        return len(view) if final and _ends_a_stream(view) else 0

    def _check_chunk_size(self, frame: memoryview) -> None:
        """Decode the first stream: one that another program wrote may hold any number of bytes, and no header tells."""
        try:
            chunk = self._new_decompressor().decompress(frame, self._chunk_size + 1)
        except OSError:
            return  # the decoder says it better
        if len(chunk) > self._chunk_size:
            raise NotFramed


def _ends_a_stream(view: memoryview) -> bool:
    """Whether ``view`` ends with the end's magic, a checksum of 32 bits, and up to 7 bits to fill the last byte."""
    tail = int.from_bytes(view[-11:], "big")
    magic = int.from_bytes(END_MAGIC, "big")
    return any(tail >> fill + 32 & (1 << 48) - 1 == magic for fill in range(8))


CODEC: Final = Bzip2()
