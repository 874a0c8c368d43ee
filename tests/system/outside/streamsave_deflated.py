"""A format that libvirt does not have, as another package would add it: zlib streams, each behind its size."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from streamsave.codecs.base import Codec, DecodeError, ReadBytes, TruncatedError
from streamsave.types import Buffer

PREFIX = 4


class Deflated(Codec):
    name = "deflated"
    number = None
    summary = "an example"
    levels = range(1, 10)
    default_level = 1
    tool_level = 6
    probe_size = PREFIX

    def encoder(self, level: int) -> Encoder:
        return Encoder(level)

    def decoder(self) -> Decoder:
        return Decoder()

    def splitter(self) -> Splitter:
        return Splitter()

    def stream_reader(self, read: ReadBytes) -> Reader:
        return Reader()

    def bound(self, size: int) -> int:
        return PREFIX + size + size // 1000 + 64


class Encoder:
    def __init__(self, level: int) -> None:
        self._level = level

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        body = zlib.compress(chunk, self._level)
        return [len(body).to_bytes(PREFIX, "little"), body]


class Decoder:
    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        decompressor = zlib.decompressobj()
        try:
            chunk = decompressor.decompress(frame[PREFIX:], len(room) + 1)
        except zlib.error as error:
            raise DecodeError(str(error)) from error
        if not decompressor.eof:
            raise TruncatedError("the frame ends too early")
        return chunk


class Splitter:
    def frame_size(self, view: memoryview, *, final: bool) -> int:
        return PREFIX + int.from_bytes(view[:PREFIX], "little") if len(view) >= PREFIX else 0


class Reader:
    """Never needed here: every payload of this format consists of frames that the splitter finds."""

    def readinto(self, view: memoryview) -> int:
        raise DecodeError("not made of frames")
