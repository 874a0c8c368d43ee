"""The structure of a zstd payload (RFC 8878, section 3.1): frames, skippable ones too, their headers and blocks."""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from ..types import Buffer
from ..units import KiB
from .base import DecodeError, ReadBytes, TruncatedError

MAGIC: Final = b"\x28\xb5\x2f\xfd"
SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
SIZE_PREFIX: Final = struct.pack("<II", SKIPPABLE[0], 4)
"""Of a skippable frame that holds the size of the frame behind it: pzstd's convention, and ours."""
U32: Final = struct.Struct("<I")
PREFIX_SIZE: Final = len(SIZE_PREFIX) + U32.size
HEADER_BOUND: Final = 18
"""The longest header of a zstd frame."""
BLOCK_BOUND: Final = 128 * KiB
"""What a block decodes to at most."""

# Sections 3.1.1.1.1 and 3.1.1.2.2.
_SINGLE_SEGMENT: Final = 0x20
_HAS_CHECKSUM: Final = 0x04
_CHECKSUM_SIZE: Final = 4
_REPEATED_BYTE: Final = 1


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the header of a zstd frame says."""

    size: int
    """Of the header, the magic included."""
    window: int
    """How far back the frame may refer, in bytes."""
    content_size: int | None
    checksum_size: int


def header_size(descriptor: int) -> int:
    """Magic, descriptor, window unless there is only one segment, dictionary's id, content size."""
    return (
        len(MAGIC) + 1 + (not descriptor & _SINGLE_SEGMENT) + (0, 1, 2, 4)[descriptor & 3] + _content_field_size(descriptor)
    )


def parse_header(view: Buffer) -> FrameHeader:
    """The header of the zstd frame that ``view`` starts with.

    Raises:
        DecodeError: this is no zstd frame, or its header is cut.

    """
    if len(view) <= len(MAGIC) or bytes(view[: len(MAGIC)]) != MAGIC:
        raise DecodeError("no zstd frame is here")
    descriptor = view[len(MAGIC)]
    size, width = header_size(descriptor), _content_field_size(descriptor)
    if len(view) < size:
        raise DecodeError("the header of a zstd frame is cut")
    content_size = None
    if width:
        content_size = int.from_bytes(view[size - width : size], "little") + (256 if width == 2 else 0)
    if descriptor & _SINGLE_SEGMENT:
        window = content_size or 0
    else:
        exponent, mantissa = divmod(view[len(MAGIC) + 1], 8)
        window = (1 << 10 + exponent) // 8 * (8 + mantissa)
    return FrameHeader(size, window, content_size, _CHECKSUM_SIZE if descriptor & _HAS_CHECKSUM else 0)


def _content_field_size(descriptor: int) -> int:
    return (1 if descriptor & _SINGLE_SEGMENT else 0, 2, 4, 8)[descriptor >> 6]


def parse_block(head: Buffer) -> tuple[bool, int, int]:
    """Of a block's header of three bytes: whether it is the last, the size of what follows, what that may decode to."""
    word = int.from_bytes(head, "little")
    size, repeated = word >> 3, word >> 1 & 3 == _REPEATED_BYTE
    return bool(word & 1), 1 if repeated else size, BLOCK_BOUND


class WalkedInput:
    """Passes a payload on, and follows its structure meanwhile."""

    def __init__(self, read: ReadBytes, max_window: int) -> None:
        self._read = read
        self._max_window = max_window
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
            magic = yield U32.size
            self._between_frames = False
            if U32.unpack(magic)[0] in SKIPPABLE:
                length = yield U32.size
                (self._to_skip,) = U32.unpack(length)
                self._between_frames = magic + length != SIZE_PREFIX  # a frame has to follow its announcement
            elif magic == MAGIC:
                (descriptor,) = descriptor_byte = yield 1
                header = parse_header(magic + descriptor_byte + (yield header_size(descriptor) - len(MAGIC) - 1))
                if header.window > self._max_window:
                    raise DecodeError(
                        f"the zstd frame needs a window of {header.window} bytes, and {self._max_window} are allowed:"
                        " allow more with --max-window (max_window)"
                    )
                last = False
                while not last:
                    last, self._to_skip, _ = parse_block((yield 3))
                self._to_skip += header.checksum_size
                self._between_frames = True
            else:
                raise DecodeError(f"neither a zstd frame nor the end follows, but {magic.hex(' ')}")
