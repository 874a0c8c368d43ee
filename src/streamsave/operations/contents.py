"""What is in the payload of an image, as far as that can be told for little: by the index, or by the stream's beginning."""

from __future__ import annotations

from dataclasses import dataclass

from .._native.scan import StreamScanner
from ..errors import ImageError
from ..format.migration import StreamMap
from ..units import KiB
from .image import ImageInfo
from .image_index import payload_codec
from .image_stream import open_stream
from .verify import Proof, VerifyReport, proof_of

BEGINNING_SIZE = 256 * KiB
"""Enough for the machine's name and the list of RAM blocks, which begin every stream."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The stream in an image. Sizes in bytes; -1: nobody knows without decoding all of it."""

    stream: StreamMap | None
    """What the stream holds; of its beginning only where ``whole`` is False, None where that cannot be decoded."""
    whole: bool
    frame_count: int
    chunk_size: int
    """Of the stream, in one frame; -1 where the frames are another program's."""
    stream_size: int
    proof: Proof
    """What a verification would rest on."""

    def ratio(self, payload_size: int) -> float:
        """Stream bytes per payload byte; 0: unknown."""
        return self.stream_size / payload_size if payload_size and self.stream_size > 0 else 0.0


def look_into(info: ImageInfo) -> Contents:
    """By the index where there is one, else by the beginning of the stream; nothing else is decoded.

    Raises:
        UnsupportedImageError: nothing here decodes the payload.

    """
    proof = proof_of(info.index, payload_codec(info.header))
    if info.index:
        frames = info.index.frames
        return Contents(info.index.stream_map, True, len(frames), frames.chunk_size, frames.stream_size, proof)
    return Contents(_beginning(info), False, -1, -1, -1, proof)


def contents_of(report: VerifyReport) -> Contents:
    """The same of an image that was decoded to its end."""
    return Contents(report.stream, True, report.frame_count, -1, report.stream_size, report.proof)


def _beginning(info: ImageInfo) -> StreamMap | None:
    scanner = StreamScanner()
    try:
        with open_stream(info.path) as stream:
            scanner.feed(stream.read_at(0, BEGINNING_SIZE))
    except ImageError:  # partial, cut, damaged: what there is to say of that is said elsewhere
        return None
    return scanner.map()
