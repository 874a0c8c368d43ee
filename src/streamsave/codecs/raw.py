"""raw: the migration stream as it is. A chunk is its own frame, so nothing is copied, and nothing can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..types import Buffer
from ..units import MiB
from .base import Codec, DecodeError, ReadBytes


class Raw(Codec):
    """libvirt's ``raw``."""

    name = "raw"
    number = 0
    summary = "no compression: for fast, large disks and for programs that read the stream as it is"
    chunk_size = 1 * MiB
    probe_size = chunk_size
    detects_damage = False
    tells_its_end = False
    verbatim = True

    def encoder(self, level: int) -> RawEncoder:  # noqa: ARG002
        return RawEncoder()

    def decoder(self) -> RawDecoder:
        return RawDecoder()

    def splitter(self) -> RawSplitter:
        return RawSplitter()

    def stream_reader(self, read: ReadBytes) -> RawReader:
        return RawReader(read)

    def bound(self, size: int) -> int:
        """The same."""
        return size


class RawEncoder:
    """Passes the chunk on."""

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:  # noqa: ARG002
        """``chunk`` itself."""
        return [chunk]


class RawDecoder:
    """Passes the frame on."""

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """``frame`` itself.

        Raises:
            DecodeError: it is larger than ``room``.

        """
        if len(frame) > len(room):
            raise DecodeError(f"a frame of {len(frame)} bytes where at most {len(room)} are expected")
        return frame


class RawSplitter:
    """Cuts anywhere: chunks of the usual size, and what is left."""

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """A whole chunk, or the rest of the payload."""
        if len(view) >= Raw.chunk_size:
            return Raw.chunk_size
        return len(view) if final else 0


class RawReader:
    """Passes bytes on."""

    def __init__(self, read: ReadBytes) -> None:
        self._read = read

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; every end is well-formed."""
        filled = 0
        while filled < len(view) and (data := self._read(len(view) - filled)):
            view[filled : filled + len(data)] = data
            filled += len(data)
        return filled


CODEC: Final = Raw()
