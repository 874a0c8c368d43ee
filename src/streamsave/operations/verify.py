"""Verify: an image is read as a restore would read it, and everything that can be held against it is.

Every frame is decoded, in parallel, by its codec's own checksums; where there is an index every MiB of the stream is held
against its digest; and the stream is walked from its start to its well-formed end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..cancel import Cancellation
from ..choices import DEFAULT_WINDOW
from ..codecs.base import Codec
from ..endpoints.memory import DiscardSink
from ..errors import CorruptImageError, ImageError
from ..format.index import Index
from ..format.migration import StreamMap
from ..options import RestoreOptions
from ..types import ProgressCallback
from .course import Course
from .image import OpenImage
from .outflow import Outflow
from .reports import STREAM, StreamReport

Proof: TypeAlias = Literal["digests", "checksums", "structure"]
"""How strong a verification was.

``digests``: every MiB of the stream is the one that was saved. ``checksums``: the codec's own, one per frame or block.
``structure``: a raw image without an index, of which only the stream's structure could be checked.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport(StreamReport):
    """An image that is good. Sizes in bytes, durations in seconds, rates in MiB/s."""

    proof: Proof
    frame_count: int
    parallel: bool
    """Whether the frames could be decoded in parallel."""
    root: str
    """The digest of the stream in hexadecimal; empty without an index. It is the same in every format."""
    metadata_as_saved: bool | None
    """Whether XML and cookie are those that were saved; False: edited since, or damaged; None: nobody knows."""


def verify(
    image: str | Path,
    *,
    threads: int | None = None,
    max_window: int = DEFAULT_WINDOW,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> VerifyReport:
    """Read all of ``image`` and check it; the image is only read. Any thread may call.

    Raises:
        IncompleteImageError: it was never finished.
        TruncatedImageError: it ends too early. CorruptImageError: it is damaged. Both with ``offset``, ``frame`` and
            ``good_size``, how much of the stream before that is good.
        NotAnImageError, UnsupportedImageError, SourceError, Aborted.

    """
    options = RestoreOptions(threads=threads, max_window=max_window)
    cancel = cancel or Cancellation()
    with Course("verify", image, ("prepare", STREAM), progress) as course, OpenImage(image) as opened:
        codec, info = opened.codec().allowing(options.max_window), opened.info
        outflow = Outflow(opened, codec, DiscardSink(), options.thread_count)
        course.end("prepare")
        try:
            outflow.run(course, cancel)
        finally:
            outflow.join()
        stream, stats = outflow.scanner.map(), outflow.pipeline.stats
        try:
            outflow.check_end()
            if info.index:
                _check_index(info.index, stream, opened, codec)
            elif info.index_problem:
                raise CorruptImageError(
                    f"{info.path}: the index is damaged: {info.index_problem}; all {stream.size} bytes of the stream decode,"
                    " so convert the image to the same format for a new index",
                    path=info.path,
                    offset=info.payload_offset + info.payload_size,
                )
        except ImageError as error:
            error.good_size = stream.size
            raise
        course.end(STREAM)
        return VerifyReport(
            path=info.path,
            format=codec.name,
            proof=proof_of(info.index, codec),
            image_size=info.file_size,
            stream_size=stream.size,
            frame_count=stats.frame_count,
            parallel=stats.parallel,
            root=info.index.root.hex() if info.index else "",
            metadata_as_saved=info.metadata_as_saved,
            stream=stream,
            total_s=course.total_s,
            cpu_s=stats.cpu_s,
            stage_s=course.stage_s,
        )


def proof_of(index: Index | None, codec: Codec) -> Proof:
    """What a verification rests on."""
    if index:
        return "digests"
    return "checksums" if codec.detects_damage else "structure"


def _check_index(index: Index, stream: StreamMap, image: OpenImage, codec: Codec) -> None:
    """The index describes this stream, and what stands around the frames is what the stock tool wants to see there."""
    path, offset = image.path, image.info.payload_offset
    if index.stream_map != stream:
        raise CorruptImageError(
            f"{path}: the index describes another stream than the payload holds: {index.stream_map} and not {stream}",
            path=path,
        )
    for what, place in ((codec.prologue, offset), (codec.epilogue, offset + index.frames.payload_end)):
        if image.source.read_at(len(what), place) != what:
            raise CorruptImageError(
                f"{path}: the frames are good, but the {codec.name} payload is damaged around them, at offset {place}:"
                " streamsave restores it, others may not; convert it to the same format to mend that",
                path=path,
                offset=place,
            )
