"""An image into a domain: libvirt restores it from pipes of ours, as a raw save image. The image is only ever read.

The mirror image of ``save``. Success is libvirt's word; a restore that fails leaves no domain behind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from ..cancel import Cancellation
from ..codecs.base import Codec
from ..errors import Aborted, DestinationError, LibvirtError, TimeLimitError, UsageError
from ..format.header import Header, encode_header
from ..format.metadata import Metadata, encode_metadata
from ..format.save_format import SaveFormat
from ..operations.course import Course
from ..operations.image import OpenImage
from ..operations.outflow import Outflow, restoring
from ..operations.reports import STREAM, RestoreReport
from ..operations.restore import HAND_OVER
from ..options import RestoreOptions, runs_after
from ..types import ProgressCallback
from .call import Call, ask
from .connection import Connection
from .offer import ImageOffer
from .passage import Passage
from .probe import open_passage


def restore_domain(
    image: str | Path | int,
    options: RestoreOptions | None = None,
    *,
    connect: str | None = None,
    xml: str | None = None,
    reset_nvram: bool = False,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> RestoreReport:
    """Restore ``image`` into a domain of libvirt's, defined or not, whose XML the image carries.

    ``connect`` is libvirt's URI, of this host. ``xml`` is used instead of the image's own (libvirt checks that the guest
    sees no difference, but for guests that it did not know); ``reset_nvram``: the firmware's variables begin anew.
    ``options.transport`` means nothing here. Any format that streamsave reads will do, whatever this libvirt has.

    Raises:
        UsageError: the image needs an ``xml``; a URI of another host; the Python binding is missing.
        ImageError: what is wrong with the image.
        LibvirtError: libvirt did not restore it, or its daemon cannot open a pipe of ours.
        SourceError, Aborted, TimeLimitError, ResourceError.

    """
    options = options or RestoreOptions()
    cancel = cancel or Cancellation()
    with restoring(image, options, ("prepare", STREAM, HAND_OVER), progress, cancel) as (course, opened, codec):
        if opened.info.needs_xml and xml is None:
            raise UsageError(
                f"{opened.path} was saved from a QEMU that libvirt did not know, and only describes it: give the XML of a"
                " domain with the same machine, memory and devices (--xml)"
            )
        connecting = ask(lambda: Connection(connect), cancel, late=Connection.close)
        with connecting as connection, open_passage(connection, opened.info.metadata.xml) as passage:
            cancel.check()
            metadata = opened.info.metadata
            if xml is not None and opened.info.needs_xml:
                metadata, xml = Metadata(xml), None  # libvirt would compare it with the descriptive one, and refuse
            restore = partial(connection.restore, passage.path, xml=xml, state=options.state, reset_nvram=reset_nvram)
            head = _raw_head(metadata, was_running=opened.info.header.was_running)
            return _DomainRestore(opened, codec, options, course).run(restore, passage, head, cancel)


class _DomainRestore:
    """A restore from libvirt's first step to its last."""

    def __init__(self, image: OpenImage, codec: Codec, options: RestoreOptions, course: Course) -> None:
        self._image = image
        self._codec = codec
        self._options = options
        self._course = course

    def run(self, restore: Callable[[], None], passage: Passage, head: bytes, cancel: Cancellation) -> RestoreReport:
        """All of it; ``restore`` lets libvirt restore from the passage's path, where it finds ``head`` and the stream."""
        with closing(ImageOffer(passage, head)) as sink:
            outflow = Outflow(self._image, self._codec, sink, self._options.thread_count)
            self._course.end("prepare")
            call = Call(restore, on_failure=sink.abort)
            try:
                outflow.run(self._course, cancel)
                sink.finish()
                self._course.end(STREAM)
                call.wait()
                call.check()
            except BaseException as error:
                passage.shut()
                sink.abort()  # again, perhaps: no thread of ours offers anything any more
                if not call.wait_waking(sink.wake_opener):
                    error.add_note("libvirt has not given up yet: look with virsh list")
                elif call.error is None and isinstance(error, (Aborted, TimeLimitError)):
                    return self._report(outflow)  # too late: libvirt had the whole stream already
                elif call.error is None:
                    error.add_note("the domain is restored all the same: libvirt had the whole stream already")
                self._explain(error, outflow, call, cancel)
                raise
            finally:
                outflow.join()
        return self._report(outflow)

    def _report(self, outflow: Outflow) -> RestoreReport:
        running = runs_after(self._options.state, was_running=self._image.info.header.was_running)
        self._course.end(HAND_OVER)
        return outflow.report(self._course, running=running, process=None, warnings=())

    def _explain(self, error: BaseException, outflow: Outflow, call: Call, cancel: Cancellation) -> None:
        """A broken pipe or libvirt's failure is what we see: raise the reason, if it is another one."""
        if isinstance(error, (DestinationError, LibvirtError)):
            cancel.check()
            outflow.check_end_after(error)
            if call.error is not None and call.error is not error:
                raise call.error from error


def _raw_head(metadata: Metadata, *, was_running: bool) -> bytes:
    """The header and ``metadata`` in front of an uncompressed stream."""
    data, cookie_offset = encode_metadata(metadata)
    header = Header(
        complete=True,
        data_size=len(data),
        was_running=was_running,
        format=SaveFormat.RAW,
        cookie_offset=cookie_offset,
    )
    return encode_header(header) + data
