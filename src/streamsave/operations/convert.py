"""Convert: an image in another format, level or metadata; the stream in it stays the same to the last bit.

Two pipelines end to end, so that all processors decode and encode at the same time and memory stays bounded. The source is
only read. The new image exists once its stream was seen to be whole, and the same as the source's index says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..cancel import Cancellation
from ..choices import DEFAULT_WINDOW
from ..codecs.base import Codec
from ..codecs.registry import find_codec
from ..endpoints.descriptor import name_of
from ..endpoints.image_pipe import ImagePipe
from ..endpoints.image_sink import ImageSink
from ..endpoints.replacement import Replacement
from ..errors import CorruptImageError, UnsupportedImageError
from ..format.digest import root_of
from ..format.domain_xml import check_same_guest
from ..format.metadata import Metadata
from ..format.migration import StreamMap
from ..format.save_format import SaveFormat
from ..options import CompressOptions, GuestState, RestoreOptions, runs_after
from ..pipeline.decompress import Decompression
from ..pipeline.gate import Gate
from ..pipeline.handover import HandOver
from ..types import ProgressCallback, Source
from .course import COMMIT, Course
from .destination import adjusted, open_destination
from .flow import convert_progress
from .guarding import check_managed
from .image import OpenImage
from .image_index import FoundIndex
from .image_writer import ImageWriter
from .inflow import Inflow
from .piped_image import PipedImage
from .reports import STREAM, ConvertReport
from .sparse_payload import SparsePayload


def convert(
    source: str | Path | int,
    destination: str | Path | int,
    options: CompressOptions | None = None,
    *,
    xml: str | None = None,
    state: GuestState | None = None,
    max_window: int = DEFAULT_WINDOW,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> ConvertReport:
    """Write the image ``source`` to ``destination`` in the format of ``options``, replacing what is there.

    Any image that a restore takes, and libvirt's format sparse too, whose pages are put in order.
    Either may be a descriptor (a pipe, a socket), which stays the caller's; an image that was written into one has no index
    that its header points to. ``destination`` may be the source: the new image takes its place, with owner, mode and
    attributes of the old one. ``xml`` replaces the domain XML, ``state`` what the guest is to do after a restore
    (``"running"`` or ``"paused"``); else both stay. ``max_window`` is that of ``RestoreOptions``. Any thread may call.

    Raises:
        IncompleteImageError, TruncatedImageError, CorruptImageError, NotAnImageError, UnsupportedImageError: what is wrong
            with the source; nothing is at the destination that was not there before.
        UsageError: ``xml`` is not one of the same guest.
        SourceError, DestinationError, CodecError, Aborted, TimeLimitError.

    """
    options = options or CompressOptions()
    reading = RestoreOptions(threads=options.threads, state=state, max_window=max_window)
    cancel = cancel or Cancellation()
    limit_s = options.timeout_s
    with (
        Course("convert", _name(destination), ("prepare", STREAM, COMMIT), progress) as course,
        cancel.limited(limit_s, f"not converted within {limit_s or 0:g} s; allow more time"),
        PipedImage(source, cancel) if isinstance(source, int) else OpenImage(source) as image,
    ):
        codec, payload = _payload(image, reading)
        metadata = image.info.metadata
        was_running = runs_after(state, was_running=image.info.header.was_running)
        if xml is not None:
            check_same_guest(metadata.xml, xml)
            metadata = Metadata(xml, metadata.cookie)
        if not isinstance(destination, int):
            check_managed(Path(destination), options.codec)
        create = _creator(image, destination, options.codec, cancel)
        with ImageWriter(
            lambda head: adjusted(create(head), options),
            options.codec,
            metadata,
            was_running=was_running,
            at_once=isinstance(destination, int),
        ) as new:
            return _Conversion(image, codec, payload, new, options, course).run(was_running, cancel)


def _payload(image: OpenImage | PipedImage, options: RestoreOptions) -> tuple[Codec, Source]:
    """What is decoded, and by which codec. Of the format sparse that is what it would be in raw."""
    header = image.info.header
    if not isinstance(image, OpenImage) or header.own or header.payload_format != SaveFormat.SPARSE:
        return image.codec().allowing(options.max_window), image.payload
    image.check_complete()
    if header.byte_order != "little":
        raise UnsupportedImageError(
            f"{image.path}: a sparse image of a big-endian host, in whose words its bitmaps are: restore it there, with"
            " virsh, and save the guest in another format",
            path=image.path,
        )
    return find_codec(SaveFormat.RAW.word), SparsePayload(image)


def _name(endpoint: str | Path | int) -> Path:
    return name_of(endpoint) if isinstance(endpoint, int) else Path(endpoint)


def _creator(
    image: OpenImage | PipedImage, destination: str | Path | int, codec: Codec, cancel: Cancellation
) -> Callable[[bytes], ImageSink]:
    """What makes the new image: into a pipe, instead of the source, or as a save does it."""
    if isinstance(destination, int):
        return partial(ImagePipe, destination)
    path = Path(destination)
    if not isinstance(image, OpenImage) or not _is_file(path, image.status):
        return partial(open_destination, path, codec=codec, cancel=cancel)
    return partial(Replacement, path, fd=image.source.fileno(), status=image.status)


def _is_file(path: Path, status: os.stat_result) -> bool:
    """``path`` leads to the file, or the device, that ``status`` is of."""
    try:
        there = os.stat(path)
    except OSError:
        return False  # whoever writes there says it better
    if stat.S_ISBLK(there.st_mode) and stat.S_ISBLK(status.st_mode):
        return there.st_rdev == status.st_rdev
    return (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)


class _Conversion:
    """The stream of ``image`` on its way into ``new``."""

    def __init__(
        self,
        image: OpenImage | PipedImage,
        codec: Codec,
        payload: Source,
        new: ImageWriter[ImageSink],
        options: CompressOptions,
        course: Course,
    ) -> None:
        self._image = image
        self._codec = codec
        self._payload_size = image.info.payload_size if payload is image.payload else 0
        self._new = new
        self._options = options
        self._course = course
        self._gate = Gate()
        self._handover = HandOver(self._gate)
        self._inflow = Inflow(self._handover, new, options, self._gate)
        self._writing = self._inflow.pipeline
        self._reading = Decompression(
            payload,
            self._handover,
            codec,
            threads=options.thread_count,  # both sides have that many: whichever is slower gets the processors
            observe=lambda _chunk: None,  # the other side looks at it
            path=image.path,
            payload_offset=image.info.payload_offset,
            index=image.info.index,
            gate=self._gate,
        )

    def run(self, was_running: bool, cancel: Cancellation) -> ConvertReport:
        """All of it."""
        self._course.end("prepare")
        with cancel.waking(self._gate.fail):
            try:
                self._stream()
                stream = self._inflow.scanner.map()
                self._image.check_stream(stream)
                root = root_of(stream.size, self._writing.leaves)
                found = self._source_index(cancel)
                if found.index and found.index.root != root:
                    raise CorruptImageError(
                        f"{self._image.path}: the stream that was decoded is not the one that was saved: its digest is"
                        f" {root.hex()}, in the index it is {found.index.root.hex()}; nothing was written",
                        path=self._image.path,
                    )
                cancel.check()
            except BaseException as error:
                self._gate.fail(error)
                raise
            finally:
                self._reading.join()
                self._writing.join()
        self._course.end(STREAM)
        self._new.commit()
        self._course.end(COMMIT)
        return self._report(was_running, stream, root, found)

    def _stream(self) -> None:
        course, scanner = self._course, self._inflow.scanner
        course.follow(
            lambda elapsed_s: convert_progress(self._reading, self._writing, scanner, self._payload_size, elapsed_s)
        )
        on_tick = course.tick if course.watched else None
        self._writing.start()
        self._reading.start()
        self._reading.wait(on_tick)
        self._handover.end()
        self._writing.wait(on_tick)

    def _source_index(self, cancel: Cancellation) -> FoundIndex:
        """A pipe's comes last."""
        if isinstance(self._image, PipedImage):
            return self._image.read_index(self._codec, cancel)
        info = self._image.info
        return FoundIndex(info.payload_size, index=info.index, problem=info.index_problem)

    def _report(self, was_running: bool, stream: StreamMap, root: bytes, found: FoundIndex) -> ConvertReport:
        reading, writing, new = self._reading.stats, self._writing.stats, self._new
        codec = self._options.codec
        new.file.remove_older()
        warnings = (f"the index of the source is damaged: {found.problem}; it was not used",) if found.problem else ()
        return ConvertReport(
            source=self._image.path,
            path=new.file.path,
            source_format=self._image.info.format,
            format=codec.name,
            level=self._inflow.level,
            levels=self._writing.levels,
            threads=self._options.thread_count,
            parallel=reading.parallel,
            source_size=reading.bytes_in,
            payload_size=writing.bytes_out,
            image_size=new.file.size,
            stream_size=stream.size,
            frame_count=writing.frame_count,
            was_running=was_running,
            root=root.hex(),
            root_compared=found.index is not None,
            total_s=self._course.total_s,
            stage_s=self._course.stage_s,
            cpu_s=reading.cpu_s + writing.cpu_s,
            stream=stream,
            oldest_libvirt=new.oldest_libvirt,
            needs_xml=new.needs_xml,
            warnings=(*new.file.notes, *warnings),
        )
