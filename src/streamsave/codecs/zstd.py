"""zstd: a chunk is one frame (RFC 8878) with its size and checksum, behind a skippable frame that says how long it is.

::

    frame = 50 2a 4d 18, u32 4, u32 n (skippable, pzstd's convention) | zstd frame of n bytes: content size, blocks, checksum

``zstd -dc`` skips the first part; ``pzstd -d`` uses it as we do. A carrier is a skippable frame of the data (5a 2a 4d 18),
then the seek table of zstd's seekable format, which counts skippable frames as empty. All numbers are little-endian.

This file is the only one that knows the binding (python-zstandard).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import IO, Final, cast

from ..choices import DEFAULT_WINDOW
from ..format.frames import FrameTable
from ..types import Buffer
from ..units import GiB, KiB
from .base import Codec, DecodeError, NotFramed, OversizedError, ReadBytes, TruncatedError, damage
from .skips import cover_with
from .zstd_frames import ZstdReframer
from .zstd_structure import HEADER_BOUND, MAGIC, PREFIX_SIZE, SIZE_PREFIX, U32, WalkedInput, parse_header

_CARRIER_MAGIC: Final = 0x184D2A5A
_COVER_MAGIC: Final = 0x184D2A5C
_COVERED_MAX: Final = 1 * GiB
_SEEK_TABLE_MAGIC: Final = 0x184D2A5E
_SEEKABLE_MAGIC: Final = 0x8F92EAB1
"""The last bytes of zstd's seekable format 0.1.0 (contrib/seekable_format in zstd's sources)."""
_PIECE_SIZE: Final = 128 * KiB

_TABLES: Final = {3: {"hash_log": 16, "chain_log": 15}}
"""zstd's own tables for this level are 768 KiB, too much for a core's second cache beside a chunk. With half of that 1 MiB
of programs takes 8 % less time and 0.8 % more space: 2.1 % more than ``zstd -3`` needs for a whole guest full of them (1.3 %
with zstd's own tables)."""


class Zstd(Codec):
    """libvirt's ``zstd``; decodes frames whose window is up to ``max_window`` bytes."""

    name = "zstd"
    number = 5
    summary = "small and fast, the default; restored by libvirt 10.4 and later"
    magic = MAGIC
    levels = range(1, 20)
    default_level = 3
    tool_level = 3
    tool = ("zstd", "-c")

    def __init__(self, max_window: int = DEFAULT_WINDOW) -> None:
        self._max_window = max_window

    def allowing(self, max_window: int) -> Zstd:
        return Zstd(max_window)

    def encoder(self, level: int) -> ZstdEncoder:
        return ZstdEncoder(level)

    def decoder(self) -> ZstdDecoder:
        return ZstdDecoder()

    def splitter(self) -> ZstdSplitter:
        return ZstdSplitter(self.chunk_size, self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> ZstdReader:
        return ZstdReader(read, self._max_window)

    def reframer(self, read: ReadBytes) -> ZstdReframer:
        return ZstdReframer(read)

    def bound(self, size: int) -> int:
        """``ZSTD_COMPRESSBOUND`` of zstd.h, which includes the frame's header, and what stands around it."""
        return size + (size >> 8) + max(0, 128 * KiB - size >> 11) + PREFIX_SIZE + 4

    def carry(self, data: bytes, frames: FrameTable) -> bytes:
        """A skippable frame of the data, and one of the seek table, which has to be the last."""
        carrier = _skippable(_CARRIER_MAGIC, data)
        table = bytearray()
        for size, chunk_size in frames:
            table += struct.pack("<IIII", PREFIX_SIZE, 0, size - PREFIX_SIZE, chunk_size)
        table += struct.pack("<II", len(carrier), 0)
        table += struct.pack("<IBI", len(table) // 8, 0, _SEEKABLE_MAGIC)
        return carrier + _skippable(_SEEK_TABLE_MAGIC, table)

    def cover(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Skippable frames."""
        return cover_with(lambda body: struct.pack("<II", _COVER_MAGIC, body), 8, _COVERED_MAX, size)

    def uncarry(self, carrier: bytes) -> bytes:
        magic, size = struct.unpack_from("<II", carrier) if len(carrier) >= 8 else (0, 0)
        rest = carrier[8 + size :]
        if magic != _CARRIER_MAGIC or rest[:4] != U32.pack(_SEEK_TABLE_MAGIC):
            raise DecodeError("no skippable frame with data of ours and a seek table behind it")
        return carrier[8 : 8 + size]


def _skippable(magic: int, data: Buffer) -> bytes:
    return struct.pack("<II", magic, len(data)) + data


class ZstdEncoder:
    """One compression context, used again from chunk to chunk."""

    def __init__(self, level: int) -> None:
        import zstandard

        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=Zstd.chunk_size, write_checksum=True, write_content_size=True, **_TABLES.get(level, {})
        )
        self._context = zstandard.ZstdCompressor(compression_params=parameters)

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:  # noqa: ARG002
        """The size, the zstd frame in new memory: the binding takes none of ours."""
        data = self._context.compress(chunk)
        return [SIZE_PREFIX + U32.pack(len(data)), data]


class ZstdDecoder:
    """One decompression context, used again from frame to frame."""

    def __init__(self) -> None:
        import zstandard

        self._context = zstandard.ZstdDecompressor()
        self._error = zstandard.ZstdError

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in new memory; see ``Decoder``."""
        size = _announced_size(frame)
        if size != len(frame):
            kind = TruncatedError if size > len(frame) else DecodeError
            raise kind(f"the size before the zstd frame makes it {size} bytes, but there are {len(frame)}")
        content_size = parse_header(frame[PREFIX_SIZE:]).content_size
        if content_size is None:
            return _decode_unsized(frame[PREFIX_SIZE:], room)
        if content_size > len(room):
            raise DecodeError(f"a chunk of {content_size} bytes where at most {len(room)} are expected")
        try:
            # Checks the content size and the checksum, and that nothing is missing or left.
            chunk = self._context.decompress(frame[PREFIX_SIZE:], allow_extra_data=False)
        except self._error as error:
            raise damage(error, "the zstd frame") from error
        if not content_size:
            _check_empty(frame)  # the binding believes a size of 0 without another look
        return chunk


class ZstdSplitter:
    """Believes the skippable frame and the content size, within the bounds of a slot."""

    def __init__(self, chunk_size: int, frame_bound: int) -> None:
        self._chunk_size = chunk_size
        self._frame_bound = frame_bound

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """The size in the skippable frame, if a zstd frame follows whose content fits."""
        if len(view) < PREFIX_SIZE + HEADER_BOUND and not final:
            return 0
        try:
            size = _announced_size(view)
            if size > self._frame_bound:
                raise NotFramed
            if not final or size <= len(view):  # else it is cut, for the decoder to say
                content_size = parse_header(view[PREFIX_SIZE:size]).content_size
                if content_size is None or content_size > self._chunk_size:
                    raise NotFramed
        except DecodeError:
            raise NotFramed from None
        return size


class ZstdReader:
    """Any zstd payload.

    The binding decodes frame after frame into the caller's memory, but takes any end of its input for the end. So its input
    goes through a walk over the frames' structure, which knows where a payload may end and what may stand behind a frame.
    """

    def __init__(self, read: ReadBytes, max_window: int) -> None:
        import zstandard

        context = zstandard.ZstdDecompressor(max_window_size=max_window)
        self._reader = context.stream_reader(
            cast("IO[bytes]", WalkedInput(read, max_window)), read_size=_PIECE_SIZE, read_across_frames=True
        )
        self._error = zstandard.ZstdError

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``."""
        try:
            return self._reader.readinto(view)
        except BaseException as error:
            # The garbage collector does not see into it: an error that is kept where its input comes from would stay.
            del self._reader
            if isinstance(error, self._error):
                raise damage(error, "the zstd frame") from error
            raise


def _check_empty(frame: memoryview) -> None:
    """Raise ``DecodeError`` unless nothing is in ``frame``, and all of it is there."""
    with BytesIO(frame) as file:
        if ZstdReader(file.read, DEFAULT_WINDOW).readinto(memoryview(bytearray(1))):
            raise DecodeError("the zstd frame says that it is empty and is not")


def _decode_unsized(frame: memoryview, room: memoryview) -> Buffer:
    """The chunk, in ``room``, of a zstd frame that does not say how large it is."""
    pieces = iter((frame, b""))
    reader = ZstdReader(lambda _: next(pieces, b""), ZstdReframer.chunk_bound)
    size = reader.readinto(room)
    if size == len(room) and reader.readinto(memoryview(bytearray(1))):
        raise OversizedError(f"a chunk of more than the {size} bytes that are expected")
    return room[:size]


def _announced_size(view: memoryview) -> int:
    """The size of the frame of ours that ``view`` starts with, the skippable frame included.

    Raises:
        DecodeError: it starts with no skippable frame that holds a size.

    """
    if len(view) < PREFIX_SIZE or view[: len(SIZE_PREFIX)] != SIZE_PREFIX:
        raise DecodeError("a zstd frame of ours starts with its size in a skippable frame, and this does not")
    return PREFIX_SIZE + int(U32.unpack_from(view, len(SIZE_PREFIX))[0])


CODEC: Final = Zstd()
