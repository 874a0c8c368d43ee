"""A domain into an image: libvirt saves it into a pipe, and is let go on only once the image exists.

libvirt opens its path twice. Into the first opening go its header, the domain's XML, its cookie and QEMU's stream; that pipe
ends with the stream. The second opening is for libvirt's last word, the complete header, after which it ends the domain. So
by then something else stands at the path: a full pipe, the **gate**. (Until it does, the first pipe holds no more than a
page, so that libvirt is not through with its 64 KiB of metadata.) libvirt waits in front of the gate until the image is
complete and durable. Until then we can still say no by closing the gate, and libvirt lets the domain run on; so it does
when this process dies. (libvirt: ``qemuSaveImageCreate``; tried with 9.0 and 11.3.)
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from ..cancel import Cancellation
from ..endpoints.image_sink import ImageSink
from ..endpoints.pipe import PAGE_SIZE, PIPE_SIZE, PipeSource
from ..errors import GuestError, ImageError, LibvirtError, MigrationError, SourceError, UsageError
from ..format.header import HEADER_SIZE, Header, parse_header
from ..format.metadata import Metadata, parse_metadata
from ..format.save_format import SaveFormat
from ..guardian.parent import Guardian
from ..guardian.plan import COMMITTED
from ..operations.commit import Commit
from ..operations.course import COMMIT, Course
from ..operations.destination import Destination
from ..operations.guarding import check_managed, guardian_plan, least_size
from ..operations.image import format_word
from ..operations.image_writer import ImageWriter, new_image
from ..operations.inflow import Inflow
from ..operations.limits import StoppedLimit
from ..operations.reports import STREAM, SaveReport
from ..options import SaveOptions
from ..types import ProgressCallback
from .call import END_S, Call, ask
from .connection import Connection, Domain
from .job import JobWatch
from .passage import Passage, Pipe
from .probe import open_passage

SAVABLE = ("running", "paused", "blocked", "suspended")
GIVEN_UP = "it was given up, and everything is as it was; allow more time, or choose a faster format or disk"


def save_domain(
    name: str,
    destination: Destination,
    options: SaveOptions | None = None,
    *,
    connect: str | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> SaveReport:
    """Save libvirt's domain ``name`` (or its UUID) to the file ``destination``, replacing what is there; libvirt ends it.

    ``connect`` is libvirt's URI, of this host. The image keeps libvirt's own XML and cookie, so that ``virsh restore``
    takes it. Of the options those that are about QEMU (``then``, ``transport``, ``save_command``) have no meaning. Any
    thread may call. On any error the domain and the destination are as they were before, unless a note on the error says
    that the image is complete, or that libvirt has not brought the domain back.

    Raises:
        UsageError: a URI of another host; the Python binding is missing; another ``then`` than ``quit``.
        LibvirtError: libvirt does not know the domain or does not save it, or its daemon cannot open a pipe of ours.
        GuestError: the domain is not active.
        DestinationError: the destination cannot be written, or filled up.
        MigrationError: the stream is not whole.
        TimeLimitError: ``options.timeout_s`` or ``options.max_stopped_s`` is over.
        Aborted: ``cancel`` was used. From the commit on neither has an effect: the image exists.
        CodecError, ResourceError.

    """
    options = replace(options or SaveOptions(), stream=False)  # libvirt needs an answer, and a pipe has none
    if options.then != "quit":
        raise UsageError(
            f"libvirt itself ends a domain that it saves: then={options.then!r} is for guests behind a QMP socket"
        )
    cancel = cancel or Cancellation()
    if not isinstance(destination, int):
        check_managed(Path(destination), options.codec)
    with (
        Course("save", destination, ("prepare", STREAM, COMMIT, "quit"), progress) as course,
        cancel.limited(options.timeout_s, f"not saved within {options.timeout_s or 0:g} s: {GIVEN_UP}"),
        ask(lambda: _find(connect, name), cancel, late=_Found.close) as found,
    ):
        limit = StoppedLimit(options.max_stopped_s if found.state == "running" else None, found.memory_size)
        limit.check()
        course.watch(limit.look)
        with new_image(
            destination,
            options,
            Metadata(found.xml),
            was_running=False,
            least_size=least_size(found.memory_size),
            cancel=cancel,
        ):
            pass  # it can be written
        with open_passage(found.connection, found.xml) as passage:
            cancel.check()
            report = _DomainSave(found, passage, destination, options, limit, course).run(cancel)
        warning = _too_old(found.connection.version, report)
        return replace(report, warnings=(*report.warnings, warning)) if warning else report


@dataclass(frozen=True, slots=True)
class _Found:
    """An active domain, and what libvirt says of it. A context manager; closes the connection."""

    connection: Connection
    domain: Domain
    state: str
    xml: str
    memory_size: int

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _find(connect: str | None, name: str) -> _Found:
    connection = Connection(connect)
    try:
        domain = connection.find_domain(name)
        state = domain.state()
        if state not in SAVABLE:
            raise GuestError(f"the domain {domain.name} is {state}: only an active domain can be saved", status=state)
        return _Found(connection, domain, state, domain.xml(), domain.memory_size())
    except BaseException:
        connection.close()
        raise


def _too_old(version: tuple[int, int], report: SaveReport) -> str:
    """What to say of a libvirt that restores no image of this format although later ones do; empty: nothing."""
    oldest = tuple(map(int, report.oldest_libvirt.split(".")[:2])) if report.oldest_libvirt else version
    if version >= oldest:
        return ""
    return (
        f"this libvirt ({version[0]}.{version[1]}) does not restore {report.format} images, {report.oldest_libvirt} and"
        " later do; here streamsave restore --connect does"
    )


class _DomainSave:
    """A save from libvirt's first step to its last."""

    def __init__(
        self,
        found: _Found,
        passage: Passage,
        destination: Destination,
        options: SaveOptions,
        limit: StoppedLimit,
        course: Course,
    ) -> None:
        self._domain = domain = found.domain
        self._passage = passage
        self._destination = destination
        self._options = options
        self._limit = limit
        self._course = course
        self._before = found.state
        self._stream = passage.next_pipe()
        self._source = PipeSource(self._stream.take_reader())
        self._source.resize(PAGE_SIZE)
        self._gate: Pipe | None = None
        self._guardian: Guardian | None = None
        self._inflow: Inflow | None = None
        course.end("prepare")
        if self._before == "running":
            course.guest_stops()
        self._call = Call(lambda: domain.save(passage.path), on_failure=self._source.abort)

    def run(self, cancel: Cancellation) -> SaveReport:
        """All of it."""
        image: ImageWriter[ImageSink] | None = None
        with ExitStack() as owned:
            owned.callback(self._close)
            try:
                with self._limit.counting(cancel), cancel.waking(lambda _error: self._source.abort()):
                    header, metadata = self._receive_head()
                    image = owned.enter_context(
                        new_image(self._destination, self._options, metadata, was_running=header.was_running)
                    )
                    guardian = Guardian(None, image.file.fileno(), guardian_plan(image), cancel=cancel)
                    self._guardian = owned.enter_context(guardian)
                    owned.enter_context(JobWatch(self._domain, self._course))
                    self._receive_stream(image, cancel)
                    commit = Commit(image.file, image.commit)
                    owned.callback(commit.join)
                    commit.run(cancel)
            except BaseException as error:
                if image is None or not image.file.committed:
                    self._undo(error, cancel)
                else:
                    self._let_go(image)
                raise
            self._course.guest_is_free()
            self._course.end(COMMIT)
            warnings = self._let_go(image)
            self._course.end("quit")
            assert self._inflow is not None, "there is a committed image"
            return self._inflow.report(self._course, was_running=header.was_running, then="quit", warnings=warnings)

    def _receive_head(self) -> tuple[Header, Metadata]:
        """Libvirt's own header and metadata; behind them the stream follows."""
        header = parse_header(self._read(HEADER_SIZE))
        self._stream.close_writer()  # libvirt has it open: its end will be the stream's
        self._gate = self._passage.next_pipe()
        self._gate.fill()
        self._source.resize(PIPE_SIZE)
        if header.payload_format != SaveFormat.RAW:
            word = format_word(header.payload_format)
            raise LibvirtError(
                f"this libvirt compresses with {word} itself, as its qemu.conf says, and before 11.2 cannot be asked for"
                ' anything else: set save_image_format = "raw" there and restart the daemon'
            )
        return header, parse_metadata(self._read(header.data_size), header.cookie_offset)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        got = self._source.readinto(memoryview(data))
        if got < size:
            raise SourceError(f"libvirt ended its save after {got} of the {size} bytes of its header or metadata")
        return bytes(data)

    def _receive_stream(self, image: ImageWriter[ImageSink], cancel: Cancellation) -> None:
        """The whole stream into the image. Its end mark is all that tells of success: libvirt's word comes after ours."""
        # What is on disk before the end need not be waited for at the gate, where libvirt holds the domain locked.
        self._inflow = Inflow(self._source, image, self._options, before_end=image.file.sync)
        self._inflow.run(self._course, cancel)
        self._inflow.check_end()
        cancel.check()
        self._call.check()
        self._course.end(STREAM)

    def _let_go(self, image: ImageWriter[ImageSink]) -> tuple[str, ...]:
        """The image exists: open the gate, and libvirt ends the domain."""
        assert self._gate is not None, "there is a committed image"
        assert self._guardian is not None, "there is a committed image"
        self._guardian.say(COMMITTED)
        passed = self._gate.drain()
        self._call.wait()
        passed += self._gate.drain()
        try:
            self._call.check()
        except LibvirtError as error:
            error.add_note(f"the image {image.file.path} is complete; libvirt only did not end the domain for it")
            raise
        try:
            if parse_header(passed[-HEADER_SIZE:]).complete:
                return ()
        except ImageError:
            pass
        return ("libvirt ended the domain without completing its own header: an unknown release of it?",)

    def _undo(self, error: BaseException, cancel: Cancellation) -> None:
        """Say no: libvirt fails to write and brings the domain back. Then our own threads; the file is the caller's."""
        self._source.abort()
        self._passage.shut()
        if self._gate:
            self._gate.close_reader()
        if self._inflow:
            self._inflow.pipeline.fail(error)
        try:
            self._await_domain(error)
        finally:
            if self._inflow:
                self._inflow.pipeline.join()
        if isinstance(error, (SourceError, MigrationError)):  # what we saw of libvirt's trouble: let libvirt say what it was
            cancel.check()
            if self._call.error is not None:
                raise self._call.error from error

    def _await_domain(self, error: BaseException) -> None:
        if not self._call.wait_waking((self._gate or self._stream).wake_opener):
            error.add_note(f"libvirt has not brought the domain {self._domain.name} back yet: look with virsh domstate")
            return
        states: list[str] = []
        asked = Call(lambda: states.append(self._domain.state()))
        if not asked.wait(END_S) or asked.error:
            error.add_note(f"the domain may not be back in its state before: {asked.error or 'libvirt does not tell'}")
            return
        self._course.guest_is_free()
        if states != [self._before]:
            error.add_note(f"the domain {self._domain.name} was {self._before} and is {states[0]} now")

    def _close(self) -> None:
        self._source.close()
        self._stream.close()
        if self._gate:
            self._gate.close()
