"""snappy: a chunk is one stream of the framing format, with a skippable chunk of ours that says how large it is.

::

    frame = ff 06 00 00 "sNaPpY" | fd 0a 00 00 "SS", u32 size of the frame, u32 size of the chunk | snappy's chunks

snappy's chunks (google/snappy, ``framing_format.txt``) are a byte that says of which kind, the size in 24 bits, and for data
the masked CRC32C of up to 64 KiB, compressed or as they are. A stream may begin anew anywhere, and what is not to be
understood is skipped if its kind is 80 or above. A carrier is skippable chunks, fd, "SX". Numbers are little-endian.

cramjam does the work, a chunk of the migration stream in one call. Measured on 1 MiB chunks of programs and libraries:
418 MiB/s on one core and 1120 MiB/s back, ratio 1.754.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import KiB
from .base import Codec, DecodeError, ReadBytes, TruncatedError
from .sized import SizedHeader, SizedSplitter
from .skips import cover_with

_IDENTIFIER: Final = b"\xff\x06\x00\x00sNaPpY"
_COMPRESSED, _STORED, _OURS, _RESERVED, _IDENTIFIES = 0x00, 0x01, 0xFD, range(0x02, 0x80), 0xFF
"""Kinds of chunks."""
_HEAD: Final = struct.Struct("<I")
_CONTENT_MAX: Final = 64 * KiB
_DATA_MAX: Final = 4 + 32 + _CONTENT_MAX + _CONTENT_MAX // 6
"""The checksum and what 64 KiB become at most (``MaxCompressedLength`` of snappy)."""
_PADDING: Final = 0xFE
_COVERED_MAX: Final = (1 << 24) - 1
_CARRIED_MAX: Final = 64 * KiB
"""In a skippable chunk. It could be 16 MiB, but a reader in wide use (Rust's ``snap``) refuses more than data may have."""
_PIECE_SIZE: Final = 64 * KiB


def _head(kind: int, size: int) -> bytes:
    return _HEAD.pack(size << 8 | kind)


_SIZES_HEAD: Final = _head(_OURS, 10) + b"SS"
_HEADER: Final = SizedHeader("snappy", _IDENTIFIER + _SIZES_HEAD, smallest=len(_IDENTIFIER) + len(_SIZES_HEAD) + 8)


class Snappy(Codec):
    """Not one of libvirt's."""

    name = "snappy"
    number = None
    summary = "for other programs that read snappy; lz4 is as small, faster, and known to more tools"
    magic = _IDENTIFIER

    def encoder(self, level: int) -> SnappyEncoder:  # noqa: ARG002
        return SnappyEncoder()

    def decoder(self) -> SnappyDecoder:
        return SnappyDecoder()

    def splitter(self) -> SizedSplitter:
        return SizedSplitter(_HEADER, chunk_size=self.chunk_size, frame_bound=self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> SnappyReader:
        return SnappyReader(read)

    def bound(self, size: int) -> int:
        """What does not compress is stored: 8 bytes more for every 64 KiB."""
        return size + (size // _CONTENT_MAX + 1) * 8 + _HEADER.size

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        """Skippable chunks."""
        pieces = (data[start : start + _CARRIED_MAX] for start in range(0, len(data), _CARRIED_MAX))
        return b"".join(_head(_OURS, 2 + len(piece)) + b"SX" + piece for piece in pieces)

    def cover(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Chunks of padding."""
        return cover_with(lambda body: _head(_PADDING, body), 4, _COVERED_MAX, size)

    def uncarry(self, carrier: bytes) -> bytes:
        position, data = 0, []
        while position < len(carrier):
            head, start = carrier[position : position + 6], position + 6
            position += 4 + int.from_bytes(head[1:4], "little")
            if head[:1] + head[4:] != b"\xfdSX" or not start <= position <= len(carrier):
                raise DecodeError(f"no skippable chunk with data of ours before byte {position} of the carrier")
            data.append(carrier[start:position])
        return b"".join(data)


class SnappyEncoder:
    """Compresses into the room, where the header takes the place of the library's identifier."""

    def __init__(self) -> None:
        from cramjam import snappy

        self._compress_into = snappy.compress_into

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """Header, snappy's chunks."""
        start = _HEADER.size - len(_IDENTIFIER)
        size = self._compress_into(chunk, room[start:]) or len(_IDENTIFIER)  # of nothing it makes nothing
        frame = room[: start + size]
        frame[: _HEADER.size] = _HEADER.pack(len(frame), len(chunk))
        return [frame]


class SnappyDecoder:
    """Decodes our own frames in one call, into the room."""

    def __init__(self) -> None:
        from cramjam import DecompressionError, snappy

        self._decompress_into = snappy.decompress_into
        self._error = DecompressionError

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in ``room``; see ``Decoder``."""
        chunk_size = _HEADER.check(frame, len(room))
        try:
            size = self._decompress_into(frame, room[:chunk_size])
        except self._error as error:
            raise DecodeError(f"the snappy stream is damaged: {error}") from error
        if size != chunk_size:
            raise DecodeError(f"the snappy stream holds {size} bytes and not {chunk_size}, as it says")
        return room[:chunk_size]


class SnappyReader:
    """Any snappy payload. It walks the chunks, and has the library decode those of data, one at a time.

    Nothing marks the end of a stream. Ours say how much they hold, so that a cut shows; and something has to follow an
    identifier, or a cut there would not show.
    """

    def __init__(self, read: ReadBytes) -> None:
        from cramjam import DecompressionError, snappy

        self._decompress_into = snappy.decompress_into
        self._error = DecompressionError
        self._read = read
        self._room = memoryview(bytearray(_CONTENT_MAX))
        self._content = self._room[:0]
        """What is left of the last chunk of data."""
        self._announced = True
        """Whether a stream has to follow."""
        self._started = False
        self._missing = 0
        """How much of a stream of ours has not come yet."""

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``."""
        filled = 0
        while filled < len(view) and (self._content or self._next_content()):
            step = min(len(self._content), len(view) - filled)
            view[filled : filled + step] = self._content[:step]
            self._content = self._content[step:]
            filled += step
        return filled

    def _next_content(self) -> bool:
        """Decode the next chunk of data; False: the payload ends."""
        while not self._content:
            head = self._take(_HEAD.size)
            if not head and not self._announced and not self._missing:
                return False
            if len(head) < _HEAD.size:
                raise TruncatedError("the payload ends inside a snappy stream")
            self._handle(head)
        return True

    def _handle(self, head: bytes) -> None:
        kind, size = head[0], int.from_bytes(head[1:], "little")
        if not self._started and kind == _OURS:
            self._announced = False  # a carrier, where a splitter has found all that was to be decoded
        elif not self._started and head != _IDENTIFIER[: len(head)]:
            raise DecodeError(f"a snappy stream starts with ff 06 00 00, not with {head.hex(' ')}")
        self._started = True
        if kind in (_COMPRESSED, _STORED):
            self._decode(head, size)
        elif kind == _IDENTIFIES:
            self._begin(head + self._take_whole(min(size, len(_IDENTIFIER))))
        elif kind in _RESERVED:
            raise DecodeError(f"a chunk of kind {kind:02x}, which is not snappy's, or is damaged")
        elif head == _SIZES_HEAD[: len(head)]:
            self._expect(self._take_whole(size))
        else:
            self._skip(size)

    def _begin(self, identifier: bytes) -> None:
        if identifier != _IDENTIFIER:
            raise DecodeError("the identifier of a snappy stream is damaged")
        if self._missing:
            raise DecodeError(f"a snappy stream begins {self._missing} bytes before the one before it should end")
        self._announced = True

    def _expect(self, body: bytes) -> None:
        if body[:2] == b"SS":
            self._missing = int.from_bytes(body[-4:], "little")
            self._announced = False

    def _decode(self, head: bytes, size: int) -> None:
        if size > _DATA_MAX:
            raise DecodeError(f"a snappy chunk of {size} bytes, more than 64 KiB can become")
        try:
            count = self._decompress_into(_IDENTIFIER + head + self._take_whole(size), self._room)
        except self._error as error:
            raise DecodeError(f"the snappy stream is damaged: {error}") from error
        self._content = self._room[:count]
        self._missing = max(0, self._missing - count)
        self._announced = False

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._take_whole(min(size, _PIECE_SIZE)))

    def _take(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end of the payload."""
        taken = b""
        while len(taken) < size and (more := self._read(size - len(taken))):
            taken += more
        return taken

    def _take_whole(self, size: int) -> bytes:
        taken = self._take(size)
        if len(taken) < size:
            raise TruncatedError("the payload ends inside a chunk of a snappy stream")
        return taken


CODEC: Final = Snappy()
