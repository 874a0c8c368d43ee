"""zstd: a chunk is one frame (RFC 8878) with its size and checksum, behind a skippable frame that says how long it is.

::

    frame = 50 2a 4d 18, u32 4, u32 n (skippable, pzstd's convention) | zstd frame of n bytes: content size, blocks, checksum

``zstd -dc`` skips the first part; ``pzstd -d`` uses it as we do. A carrier is a skippable frame of the data (5a 2a 4d 18),
then the seek table of zstd's seekable format, which counts skippable frames as empty. All numbers are little-endian.

This file is the only one that knows the binding (python-zstandard).
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from io import BytesIO
from typing import IO, Final, cast

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import KiB, MiB
from .base import Codec, DecodeError, NotFramed, ReadBytes, TruncatedError

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
_CARRIER_MAGIC: Final = 0x184D2A5A
_SEEK_TABLE_MAGIC: Final = 0x184D2A5E
_SEEKABLE_MAGIC: Final = 0x8F92EAB1
"""The last bytes of zstd's seekable format 0.1.0 (contrib/seekable_format in zstd's sources)."""
_SIZE_PREFIX: Final = struct.pack("<II", _SKIPPABLE[0], 4)
_U32: Final = struct.Struct("<I")
_PREFIX_SIZE: Final = len(_SIZE_PREFIX) + _U32.size
_HEADER_BOUND: Final = 18
"""The longest header of a zstd frame."""
_WINDOW_MAX: Final = 128 * MiB
"""The largest window that ``zstd -d`` accepts without being told to; ours are no larger than a chunk."""
_PIECE_SIZE: Final = 128 * KiB

# RFC 8878, sections 3.1.1.1.1 and 3.1.1.2.2.
_SINGLE_SEGMENT: Final = 0x20
_HAS_CHECKSUM: Final = 0x04
_CHECKSUM_SIZE: Final = 4
_REPEATED_BYTE: Final = 1


_TABLES: Final = {3: {"hash_log": 16, "chain_log": 15}}
"""zstd's own tables for this level are 768 KiB, too much for a core's second cache beside a chunk. With half of that 1 MiB
of programs takes 8 % less time and 0.8 % more space; the image stays within 2 % of what ``zstd -3`` makes."""


class Zstd(Codec):
    """libvirt's ``zstd``."""

    name = "zstd"
    number = 5
    summary = "small and fast, the default; restored by libvirt 10.4 and later"
    magic = _MAGIC
    levels = range(1, 20)
    default_level = 3
    tool_level = 3
    tool = ("zstd", "-c")

    def encoder(self, level: int) -> ZstdEncoder:
        return ZstdEncoder(level)

    def decoder(self) -> ZstdDecoder:
        return ZstdDecoder()

    def splitter(self) -> ZstdSplitter:
        return ZstdSplitter(self.chunk_size, self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> ZstdReader:
        return ZstdReader(read)

    def bound(self, size: int) -> int:
        """``ZSTD_COMPRESSBOUND`` of zstd.h, which includes the frame's header, and what stands around it."""
        return size + (size >> 8) + max(0, 128 * KiB - size >> 11) + _PREFIX_SIZE + 4

    def carry(self, data: bytes, frames: FrameTable) -> bytes:
        """A skippable frame of the data, and one of the seek table, which has to be the last."""
        carrier = _skippable(_CARRIER_MAGIC, data)
        table = bytearray()
        for size, chunk_size in frames:
            table += struct.pack("<IIII", _PREFIX_SIZE, 0, size - _PREFIX_SIZE, chunk_size)
        table += struct.pack("<II", len(carrier), 0)
        table += struct.pack("<IBI", len(table) // 8, 0, _SEEKABLE_MAGIC)
        return carrier + _skippable(_SEEK_TABLE_MAGIC, table)

    def uncarry(self, carrier: bytes) -> bytes:
        magic, size = struct.unpack_from("<II", carrier) if len(carrier) >= 8 else (0, 0)
        rest = carrier[8 + size :]
        if magic != _CARRIER_MAGIC or rest[:4] != _U32.pack(_SEEK_TABLE_MAGIC):
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

    def encode(self, chunk: memoryview) -> Sequence[Buffer]:
        """The size, the zstd frame."""
        data = self._context.compress(chunk)
        return [_SIZE_PREFIX + _U32.pack(len(data)), data]


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
        content_size = _content_size(frame[_PREFIX_SIZE:])
        if content_size > len(room):
            raise DecodeError(f"a chunk of {content_size} bytes where at most {len(room)} are expected")
        try:
            # Checks the content size and the checksum, and that nothing is missing or left.
            chunk = self._context.decompress(frame[_PREFIX_SIZE:], allow_extra_data=False)
        except self._error as error:
            raise DecodeError(str(error)) from error
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
        if len(view) < _PREFIX_SIZE + _HEADER_BOUND and not final:
            return 0
        try:
            size = _announced_size(view)
            is_cut = final and size > len(view)
            if size > self._frame_bound or (not is_cut and _content_size(view[_PREFIX_SIZE:size]) > self._chunk_size):
                raise NotFramed
        except DecodeError:
            raise NotFramed from None
        return size


class ZstdReader:
    """Any zstd payload.

    The binding decodes frame after frame into the caller's memory, but takes any end of its input for the end. So its input
    goes through a walk over the frames' structure, which knows where a payload may end and what may stand behind a frame.
    """

    def __init__(self, read: ReadBytes) -> None:
        import zstandard

        context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        self._reader = context.stream_reader(
            cast("IO[bytes]", WalkedInput(read)), read_size=_PIECE_SIZE, read_across_frames=True
        )
        self._error = zstandard.ZstdError

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``."""
        try:
            return self._reader.readinto(view)
        except self._error as error:
            raise DecodeError(str(error)) from error


class WalkedInput:
    """Passes a payload on, and follows its structure meanwhile: frames, blocks, checksums (RFC 8878, section 3.1)."""

    def __init__(self, read: ReadBytes) -> None:
        self._read = read
        self._steps = self._walk()
        self._wanted = next(self._steps)
        self._field = bytearray()
        self._to_skip = 0
        self._between_frames = False

    def read(self, size: int) -> Buffer:
        """What ``read`` gives.

        Raises:
            DecodeError: neither a frame nor the end follows a frame.
            TruncatedError: the end comes within a frame, or before the first.

        """
        data = self._read(size)
        if data:
            self._follow(memoryview(data))
        elif self._to_skip or self._field or not self._between_frames:
            raise TruncatedError("the payload ends inside a zstd frame")
        return data

    def _follow(self, data: memoryview) -> None:
        position = 0
        while position < len(data):
            if self._to_skip:
                step = min(self._to_skip, len(data) - position)
                self._to_skip -= step
            else:
                step = min(self._wanted - len(self._field), len(data) - position)
                self._field += data[position : position + step]
                if len(self._field) == self._wanted:
                    field, self._field = bytes(self._field), bytearray()
                    self._wanted = self._steps.send(field)
            position += step

    def _walk(self) -> Generator[int, bytes, None]:
        """Asks for the fields one after the other, by their sizes; says how much to skip before the next one."""
        while True:
            magic = yield _U32.size
            self._between_frames = False
            if _U32.unpack(magic)[0] in _SKIPPABLE:
                length = yield _U32.size
                (self._to_skip,) = _U32.unpack(length)
                self._between_frames = magic + length != _SIZE_PREFIX  # a frame has to follow its announcement
            elif magic == _MAGIC:
                (descriptor,) = yield 1
                self._to_skip = _header_size(descriptor) - len(_MAGIC) - 1
                last = 0
                while not last:
                    block = int.from_bytes((yield 3), "little")
                    last, kind, size = block & 1, block >> 1 & 3, block >> 3
                    self._to_skip = 1 if kind == _REPEATED_BYTE else size
                self._to_skip += _CHECKSUM_SIZE if descriptor & _HAS_CHECKSUM else 0
                self._between_frames = True
            else:
                raise DecodeError(f"neither a zstd frame nor the end follows, but {magic.hex(' ')}")


def _check_empty(frame: memoryview) -> None:
    """Raise ``DecodeError`` unless nothing is in ``frame``, and all of it is there."""
    with BytesIO(frame) as file:
        if ZstdReader(file.read).readinto(memoryview(bytearray(1))):
            raise DecodeError("the zstd frame says that it is empty and is not")


def _announced_size(view: memoryview) -> int:
    """The size of the frame of ours that ``view`` starts with, the skippable frame included.

    Raises:
        DecodeError: it starts with no skippable frame that holds a size.

    """
    if len(view) < _PREFIX_SIZE or view[: len(_SIZE_PREFIX)] != _SIZE_PREFIX:
        raise DecodeError("a zstd frame of ours starts with its size in a skippable frame, and this does not")
    return _PREFIX_SIZE + int(_U32.unpack_from(view, len(_SIZE_PREFIX))[0])


def _content_size(view: memoryview) -> int:
    """The content size in the header of the zstd frame that ``view`` starts with.

    Raises:
        DecodeError: this is no zstd frame, or its header is cut or has no content size.

    """
    if len(view) <= len(_MAGIC) or bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise DecodeError("no zstd frame follows its announced size")
    descriptor = view[len(_MAGIC)]
    end, width = _header_size(descriptor), _content_field_size(descriptor)
    if not width or len(view) < end:
        raise DecodeError("the zstd frame has no content size")
    return int.from_bytes(view[end - width : end], "little") + (256 if width == 2 else 0)


def _header_size(descriptor: int) -> int:
    """Magic, descriptor, window unless there is only one segment, dictionary's id, content size."""
    return (
        len(_MAGIC) + 1 + (not descriptor & _SINGLE_SEGMENT) + (0, 1, 2, 4)[descriptor & 3] + _content_field_size(descriptor)
    )


def _content_field_size(descriptor: int) -> int:
    return (1 if descriptor & _SINGLE_SEGMENT else 0, 2, 4, 8)[descriptor >> 6]


CODEC: Final = Zstd()
