"""libvirt's xz, as another package would add it: one class and one entry point (beside this file), nothing else.

A chunk is one xz stream. Streams are found by their ends: the footer's magic before the next header's magic.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence

from streamsave.codecs.base import Codec, DecodeError, NotFramed, ReadBytes, TruncatedError
from streamsave.codecs.members import MemberReader
from streamsave.types import Buffer
from streamsave.units import KiB

HEADER = b"\xfd7zXZ\0"
FOOTER = b"YZ"


class Xz(Codec):
    name = "xz"
    number = 3
    summary = "an example"
    magic = HEADER
    levels = range(10)
    default_level = 0
    tool_level = 6
    tool = ("xz", "-c")
    probe_size = 64 * KiB

    def encoder(self, level: int) -> XzEncoder:
        return XzEncoder(level)

    def decoder(self) -> XzDecoder:
        return XzDecoder()

    def splitter(self) -> XzSplitter:
        return XzSplitter(self.chunk_size, self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> XzReader:
        return XzReader(read, lzma.LZMADecompressor, (lzma.LZMAError,))

    def bound(self, size: int) -> int:
        return size + size // 1000 + 256


class XzEncoder:
    def __init__(self, level: int) -> None:
        self._level = level

    def encode(self, chunk: memoryview) -> Sequence[Buffer]:
        return [lzma.compress(chunk, preset=self._level)]


class XzDecoder:
    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        try:
            chunk = decompressor.decompress(frame, len(room) + 1)
        except lzma.LZMAError as error:
            raise DecodeError(str(error)) from error
        if len(chunk) > len(room) or not decompressor.eof or decompressor.unused_data:
            raise DecodeError("not exactly one xz stream that fits")
        return chunk


class XzSplitter:
    def __init__(self, chunk_size: int, frame_bound: int) -> None:
        self._chunk_size = chunk_size
        self._frame_bound = frame_bound
        self._is_ours = False

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        if bytes(view[: len(HEADER)]) != HEADER[: len(view)]:
            raise NotFramed
        found = bytes(view).find(FOOTER + HEADER, len(HEADER))
        size = found + len(FOOTER) if found > 0 else len(view) if final and view[-len(FOOTER) :] == FOOTER else 0
        if not size:
            if final or len(view) >= self._frame_bound:
                raise NotFramed
            return 0
        if not self._is_ours and len(self._decode(view[:size])) > self._chunk_size:
            raise NotFramed
        self._is_ours = True
        return size

    def _decode(self, frame: memoryview) -> bytes:
        try:
            return lzma.LZMADecompressor().decompress(frame, self._chunk_size + 1)
        except lzma.LZMAError:
            return b""


class XzReader(MemberReader):
    def _next_starts(self) -> bool:
        head = self._peek(len(HEADER))
        if not head and self._started:
            return False
        if head[: len(HEADER)] == HEADER:
            return True
        if HEADER.startswith(head):
            raise TruncatedError("the payload ends before an xz stream does")
        raise DecodeError("no xz stream")
