"""A codec that is simple enough to be right: a 4-byte length and zlib; and versions of it that fail."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import ClassVar

from streamsave.codecs.base import Codec, DecodeError, Encoder, NotFramed, ReadBytes, Splitter, StreamReader
from streamsave.types import Buffer
from streamsave.units import KiB

SIZE = struct.Struct("<I")
UNFRAMED = 0xFFFF_FFFF
"""Instead of a length: from here on the payload is one zlib stream, as another program would write it."""


class FakeEncoder:
    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        data = zlib.compress(chunk, 1)
        return [SIZE.pack(len(data)), data]


class FakeDecoder:
    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        try:
            return zlib.decompress(frame[4:])
        except zlib.error as error:
            raise DecodeError(str(error)) from error


class FakeSplitter:
    def frame_size(self, view: memoryview, *, final: bool) -> int:
        if len(view) < 4:
            if final:
                raise NotFramed
            return 0
        (size,) = SIZE.unpack(view[:4])
        if size == UNFRAMED:
            raise NotFramed
        return 4 + int(size)


class FakeReader:
    def __init__(self, read: ReadBytes) -> None:
        data = b""
        while piece := read(1000):
            data += bytes(piece)
        if len(data) < 4:
            raise DecodeError("no frame")
        self._rest = memoryview(zlib.decompress(data[4:]))

    def readinto(self, view: memoryview) -> int:
        size = min(len(view), len(self._rest))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class FakeCodec(Codec):
    name = "fake"
    number = None
    summary = "for tests"
    levels: ClassVar[range] = range(1, 10)
    default_level = 1
    chunk_size = 16 * KiB

    def encoder(self, level: int) -> Encoder:
        return FakeEncoder()

    def decoder(self) -> FakeDecoder:
        return FakeDecoder()

    def splitter(self) -> Splitter:
        return FakeSplitter()

    def stream_reader(self, read: ReadBytes) -> StreamReader:
        return FakeReader(read)

    def bound(self, size: int) -> int:
        return size + size // 1000 + 64


class FailingEncoder(FakeEncoder):
    def __init__(self, fail_at: int) -> None:
        self._left = fail_at

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("the codec broke")
        return super().encode(chunk, room)


class FailingCodec(FakeCodec):
    """Each encoder raises at its ``fail_at``-th chunk."""

    def __init__(self, fail_at: int) -> None:
        self._fail_at = fail_at

    def encoder(self, level: int) -> Encoder:
        return FailingEncoder(self._fail_at)
