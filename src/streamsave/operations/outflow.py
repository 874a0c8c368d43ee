"""A migration stream on its way out of an image: the half of a restore that knows nothing of guests and monitors.

The mirror image of ``inflow``. ``restore`` puts a guest behind it; callers that drive QMP themselves use ``restore_stream``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from .._native.scan import StreamScanner
from ..cancel import Cancellation
from ..choices import DEFAULT_WINDOW
from ..codecs.base import Codec
from ..endpoints.descriptor import DescriptorSink
from ..errors import DestinationError, ImageError
from ..options import RestoreOptions
from ..pipeline.decompress import Decompression
from ..qemu.process import QemuProcess
from ..types import ProgressCallback, Sink
from .course import Course
from .flow import restore_progress, run
from .image import OpenImage
from .reports import STREAM, RestoreReport


@contextmanager
def restoring(
    image: str | Path | int,
    options: RestoreOptions,
    stages: Sequence[str],
    progress: ProgressCallback | None,
    cancel: Cancellation,
) -> Iterator[tuple[Course, OpenImage, Codec]]:
    """Around all of a restore in these ``stages``, within the time limit of ``options``: the open image, and its codec.

    Raises:
        What ``OpenImage`` raises; UnsupportedImageError, IncompleteImageError.

    """
    limit_s = options.timeout_s
    with (
        Course("restore", image, stages, progress) as course,
        cancel.limited(limit_s, f"not restored within {limit_s or 0:g} s; allow more time"),
        OpenImage(image) as opened,
    ):
        yield course, opened, opened.codec().allowing(options.max_window)


class Outflow:
    """An image's migration stream on its way out."""

    def __init__(self, image: OpenImage, codec: Codec, sink: Sink, threads: int) -> None:
        self.scanner = StreamScanner()
        self.finished = False
        self._image = image
        self._codec = codec
        self._threads = threads
        self.pipeline = Decompression(
            image.payload,
            sink,
            codec,
            threads=threads,
            observe=self.scanner.feed,
            path=image.path,
            payload_offset=image.info.payload_offset,
            index=image.info.index,
        )

    def run(self, course: Course, cancel: Cancellation) -> None:
        """Until the payload's end, everything written. After an error the endpoints are aborted, and ``join()`` is due."""
        try:
            run(
                self.pipeline,
                lambda elapsed_s: restore_progress(self.pipeline, self._image.info.payload_size, elapsed_s),
                course,
                cancel,
            )
        except BaseException as error:
            self.pipeline.fail(error)
            raise
        self.finished = True

    def join(self) -> None:
        """Wait until no thread is left. Endless if a read from a dead disk is: see to the guest first."""
        self.pipeline.join()

    def check_end(self) -> None:
        """What went out is a whole migration stream; or TruncatedImageError, CorruptImageError."""
        self._image.check_stream(self.scanner.map())

    def check_end_after(self, error: Exception) -> None:
        """The same, if all of the payload went out before ``error``: then the image is the reason for it."""
        if self.finished:
            try:
                self.check_end()
            except ImageError as reason:
                raise reason from error

    def report(
        self, course: Course, *, running: bool, process: QemuProcess | None, warnings: tuple[str, ...]
    ) -> RestoreReport:
        """Of a restore that succeeded."""
        stats, info, stream = self.pipeline.stats, self._image.info, self.scanner.map()
        if not stream.well_formed_end:
            odd = f"QEMU loaded the stream, but it does not end as one does ({stream.problem}): was the image cut?"
            warnings = (odd, *warnings)
        return RestoreReport(
            path=self._image.path,
            format=self._codec.name,
            threads=self._threads,
            parallel=stats.parallel,
            image_size=info.file_size,
            stream_size=stats.bytes_out,
            running=running,
            total_s=course.total_s,
            stage_s=course.stage_s,
            cpu_s=stats.cpu_s,
            stream=stream,
            warnings=warnings,
            process=process,
        )


def restore_stream(
    image: str | Path | int,
    fd: int,
    *,
    threads: int | None = None,
    timeout_s: float | None = None,
    max_window: int = DEFAULT_WINDOW,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> RestoreReport:
    """Write the migration stream of ``image`` to ``fd`` (a socket, a pipe, a file), for callers that drive QMP themselves.

    ``fd`` stays the caller's, open: closing it tells the reader that the stream has ended.

    Raises:
        ImageError: what is wrong with the image; what was written until then is no whole stream.
        DestinationError, SourceError, Aborted, TimeLimitError.

    """
    options = RestoreOptions(threads=threads, timeout_s=timeout_s, max_window=max_window)
    cancel = cancel or Cancellation()
    with restoring(image, options, ("prepare", STREAM), progress, cancel) as (course, opened, codec):
        try:
            sink = DescriptorSink(fd)
        except OSError as error:
            raise DestinationError(f"descriptor {fd} cannot be written: {error}") from error
        with closing(sink):
            outflow = Outflow(opened, codec, sink, options.thread_count)
            course.end("prepare")
            try:
                outflow.run(course, cancel)
            finally:
                outflow.join()
            outflow.check_end()
        course.end(STREAM)
        return outflow.report(course, running=False, process=None, warnings=())
