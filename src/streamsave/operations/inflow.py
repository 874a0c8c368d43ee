"""A migration stream on its way into an image: the half of a save that knows nothing of guests and monitors.

``save`` puts a guest in front of it; callers that drive QMP themselves have ``save_stream``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from .._native.scan import StreamScanner
from ..cancel import Cancellation
from ..choices import AUTO, Level
from ..endpoints.descriptor import DescriptorSource
from ..errors import MigrationError, SourceError
from ..format.metadata import Metadata
from ..format.migration import StreamMap
from ..format.pages import FirstRecords
from ..options import CompressOptions
from ..pipeline.adaptive import AutoLevel
from ..pipeline.compress import Compression
from ..pipeline.gate import Gate
from ..types import ProgressCallback, Source
from ..units import MiB
from .course import COMMIT, Course
from .destination import Destination
from .flow import run, save_progress
from .image_writer import FileT, ImageWriter, new_image
from .reports import STREAM, SaveReport

NEAR_END = 64 * MiB
"""Of the guest's memory."""


class Inflow:
    """A migration stream on its way into an image.

    ``before_end`` is called once, in the reader's thread, when less than ``NEAR_END`` of the guest's memory is left: what it
    takes its time for keeps the stream from its end.
    """

    def __init__(
        self,
        source: Source,
        image: ImageWriter[FileT],
        options: CompressOptions,
        gate: Gate | None = None,
        *,
        before_end: Callable[[], None] | None = None,
    ) -> None:
        self.source = source
        self.scanner = StreamScanner()
        self._image = image
        self._options = options
        codec, threads = options.codec, options.thread_count
        self.level: Level = AUTO if options.level == AUTO else codec.check_level(options.level)
        """What was asked for, or the codec's default."""
        self._first_records = FirstRecords()
        self._before_end = before_end
        self.pipeline = Compression(
            source,
            image.file,
            codec,
            level=AutoLevel(codec, threads) if self.level == AUTO else self.level,
            threads=threads,
            observe=self._observe,
            trailer=self._index,
            gate=gate,
        )

    def _observe(self, chunk: memoryview) -> None:
        chunk_offset = self.pipeline.stats.bytes_in
        self.scanner.feed(chunk)
        self._first_records.append(chunk_offset, self.scanner.first_record)
        if self._before_end is not None and self.scanner.memory_left < NEAR_END:
            call, self._before_end = self._before_end, None
            call()

    def _index(self) -> bytes:
        pipeline = self.pipeline
        return self._image.index(
            pipeline.frames, bytes(pipeline.leaves), self.scanner.map(), self._first_records, pipeline.levels
        )

    def run(self, course: Course, cancel: Cancellation) -> None:
        """Until the source's end, everything written."""
        run(
            self.pipeline,
            lambda elapsed_s: save_progress(self.pipeline, self.scanner, elapsed_s),
            course,
            cancel,
        )

    def check_end(self) -> None:
        """The last bytes are those that end a migration stream; or MigrationError."""
        stream = self.scanner.map()
        if not stream.well_formed_end:
            raise MigrationError(
                f"the migration stream of {stream.size} bytes is not all of one: {stream.problem}; nothing was saved"
            )

    def report(self, course: Course, *, was_running: bool, then: str, warnings: tuple[str, ...]) -> SaveReport:
        """Of a save that succeeded."""
        stats, file = self.pipeline.stats, self._image.file
        file.remove_older()
        return SaveReport(
            path=file.path,
            format=self._options.codec.name,
            level=self.level,
            levels=self.pipeline.levels,
            threads=self._options.thread_count,
            image_size=file.size,
            payload_size=stats.bytes_out,
            stream_size=stats.bytes_in,
            frame_count=stats.frame_count,
            was_running=was_running,
            then=then,
            total_s=course.total_s,
            stopped_s=course.stopped_s,
            stage_s=course.stage_s,
            cpu_s=stats.cpu_s,
            stream=self.scanner.map(),
            oldest_libvirt=self._image.oldest_libvirt,
            needs_xml=self._image.needs_xml,
            warnings=(*file.notes, *warnings),
        )


def save_stream(
    fd: int,
    destination: Destination,
    metadata: Metadata,
    options: CompressOptions | None = None,
    *,
    was_running: bool,
    confirm: Callable[[StreamMap], None] | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> SaveReport:
    """Save the migration stream that arrives on ``fd`` (a socket, a pipe, a file), for callers that drive QMP themselves.

    ``fd`` stays the caller's. The end of the input is not success: once the stream ended, well-formed, ``confirm`` is called
    and has to raise unless QEMU reports the migration as completed; only then the image is committed. The guest must not be
    let go before this function returned.

    Raises:
        MigrationError: the stream ended without its end mark.
        Everything that ``confirm`` raises, and ``SourceError``, ``DestinationError``, ``CodecError``, ``Aborted``,
        ``TimeLimitError``.

    """
    options = options or CompressOptions()
    cancel = cancel or Cancellation()
    try:
        source = DescriptorSource(fd)
    except OSError as error:
        raise SourceError(f"descriptor {fd} cannot be read: {error}") from error
    with (
        closing(source),
        Course("save", destination, ("prepare", STREAM, COMMIT), progress) as course,
        cancel.limited(options.timeout_s, f"not saved within {options.timeout_s or 0:g} s; allow more time"),
        new_image(destination, options, metadata, was_running=was_running, cancel=cancel) as image,
    ):
        inflow = Inflow(source, image, options)
        course.end("prepare")
        try:
            inflow.run(course, cancel)
            inflow.check_end()
            if confirm is not None:
                confirm(inflow.scanner.map())
            cancel.check()
        except BaseException as error:
            inflow.pipeline.fail(error)
            raise
        finally:
            inflow.pipeline.join()
        course.end(STREAM)
        image.commit()
        course.end(COMMIT)
        return inflow.report(course, was_running=was_running, then="", warnings=())
