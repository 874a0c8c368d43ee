"""Restore: an image becomes a running guest again, in a QEMU that waits for it. The image is only ever read.

The mirror image of ``save``. Success is QEMU's word, ``completed``; whether the guest then runs is decided here.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ..cancel import Cancellation
from ..codecs.base import Codec
from ..endpoints.socket import SocketSink
from ..errors import CommandError, DestinationError, IncomingError, MonitorError, MonitorLostError, UsageError
from ..guardian.parent import Guardian
from ..guardian.plan import GuardianPlan
from ..options import RestoreOptions, runs_after
from ..qemu.migration import MigrationSettings, start_incoming, wait_incoming
from ..qemu.monitor import Monitor
from ..qemu.process import QemuProcess, check_command
from ..types import ProgressCallback
from .course import Course
from .image import OpenImage
from .outflow import Outflow, restoring
from .reports import STREAM, RestoreReport

HAND_OVER = "hand-over"
"""The last stage: the guest runs, or not, and QEMU's settings are as they were."""
OUTCOME_TIMEOUT_S = 60.0
"""How long after the last byte of the stream QEMU may take to say that it loaded it."""
PUT_BACK_S = 3.0
"""How long a QEMU that is not ours may take to take a setting back when it did not load the stream."""
LAST_WORDS_S = 2.0
"""How long a QEMU that refuses a stream may take to end; what it said is complete then."""


def restore(
    image: str | Path | int,
    *,
    monitor: str | Path | socket.socket | None = None,
    command: Sequence[str] | None = None,
    options: RestoreOptions | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> RestoreReport:
    """Restore ``image`` into the QEMU behind the QMP socket ``monitor``, which waits with ``-incoming defer``, or a new one.

    ``image`` is a path, or a descriptor of a file or block device, open for reading, that stays the caller's.
    ``command`` is a QEMU command line as it would start the same machine; what is needed to wait for the stream is added.
    That QEMU is the caller's afterwards (``report.process``); on an error it is stopped. The image is left as it is.

    Raises:
        UsageError: neither or both of ``monitor`` and ``command``, or options in ``command`` that fight a restore.
        ImageError: what is wrong with the image, with the frame and the offset.
        IncomingError: QEMU did not load the stream; with QEMU's own message where we started it.
        MonitorError, GuestError, ProcessError, SourceError, Aborted, TimeLimitError.

    """
    if (monitor is None) == (command is None):
        raise UsageError("restore needs either a monitor or a command line of QEMU, and not both")
    options = options or RestoreOptions()
    cancel = cancel or Cancellation()
    with restoring(image, options, ("prepare", STREAM, HAND_OVER), progress, cancel) as (course, opened, codec):
        guest = _GuestRestore(opened, codec, options, course)
        try:
            if monitor is not None:
                with Monitor(monitor, cancel=cancel) as qmp:
                    return guest.run(qmp, cancel)
            check_command(command or ())
            with Guardian(None, -1, GuardianPlan(kind="piped"), cancel=cancel) as guardian:
                process = QemuProcess(command or (), cancel=cancel, on_start=guardian.end_with_us)
                try:
                    with process.open_monitor() as qmp:
                        return guest.run(qmp, cancel, process, guardian)
                except BaseException:
                    process.terminate()
                    raise
        finally:
            guest.join()


class _GuestRestore:
    """A restore from the first change to the incoming QEMU to the last. ``join()`` is due afterwards."""

    def __init__(self, image: OpenImage, codec: Codec, options: RestoreOptions, course: Course) -> None:
        self._image = image
        self._codec = codec
        self._options = options
        self._course = course
        self._process: QemuProcess | None = None
        self._guardian: Guardian | None = None
        self._outflow: Outflow | None = None

    def run(
        self, qmp: Monitor, cancel: Cancellation, process: QemuProcess | None = None, guardian: Guardian | None = None
    ) -> RestoreReport:
        """All of it. ``process`` and ``guardian``: of a QEMU that we started."""
        self._process, self._guardian = process, guardian
        with cancel.waking(qmp.interrupt):
            cancel.check()
            settings = MigrationSettings(qmp)
            try:
                settings.neutralise()
                outflow = self._stream(qmp, cancel)
                running = runs_after(self._options.state, was_running=self._image.info.header.was_running)
                if self._guardian is not None:
                    self._guardian.let_live()  # the guest may run in a moment, and then its QEMU must not end with us
                with qmp.uninterrupted():  # QEMU holds the guest now: nothing may throw it away any more
                    if running:
                        qmp.execute("cont")
            except BaseException:
                if self._process is None:  # ours is about to be ended
                    _put_back(qmp, settings)
                raise
            warnings = _put_back_or_warn(qmp, settings, running=running)
            self._course.end(HAND_OVER)
        return outflow.report(self._course, running=running, process=self._process, warnings=warnings)

    def join(self) -> None:
        """Wait for the threads that still end, and close the socket. Endless if a dead disk is: see to QEMU first."""
        if self._outflow is not None:
            self._outflow.join()
            self._outflow.pipeline.sink.close()

    def _stream(self, qmp: Monitor, cancel: Cancellation) -> Outflow:
        """The whole stream into QEMU; returns only if QEMU says that it loaded it."""
        sink = SocketSink(start_incoming(qmp, self._options.transport))
        try:
            outflow = self._outflow = Outflow(self._image, self._codec, sink, self._options.thread_count)
        except BaseException:
            sink.close()
            raise
        self._course.end("prepare")
        try:
            outflow.run(self._course, cancel)
            sink.close()  # for QEMU: the end of the stream
            wait_incoming(qmp, OUTCOME_TIMEOUT_S)
            cancel.check()
        except (MonitorError, IncomingError, DestinationError) as error:
            self._explain(outflow, error)
        self._course.end(STREAM)
        return outflow

    def _explain(self, outflow: Outflow, error: Exception) -> NoReturn:
        """A broken socket or monitor is what we see of QEMU's trouble: raise what it was, as far as anyone tells."""
        outflow.check_end_after(error)
        said = ""
        if self._process is not None and self._process.wait(LAST_WORDS_S) is not None:
            said = self._process.stderr_tail().strip()
        machine = outflow.scanner.map().machine or "unknown"
        why = (
            f"it says: {said}" if said else f"{error}; was it started with the machine type and devices of the saved guest?"
        )
        raise IncomingError(
            f"QEMU did not load the stream of a machine {machine} from {self._image.path}: {why}", stderr=said
        ) from error


def _put_back(qmp: Monitor, settings: MigrationSettings) -> None:
    """After a failure: a QEMU that is not ours gets its settings back, unless it is gone, or hangs."""
    with qmp.uninterrupted(), suppress(MonitorError):
        for command, arguments in settings.undo_commands():
            qmp.execute(command, arguments, timeout_s=PUT_BACK_S)


def _put_back_or_warn(qmp: Monitor, settings: MigrationSettings, *, running: bool) -> tuple[str, ...]:
    """After a success: a refusal is no reason to throw the guest away. Of a QEMU that hangs up nobody knows."""
    try:
        with qmp.uninterrupted():
            settings.restore()
    except CommandError as error:
        return (f"QEMU's migration settings could not be put back: {error}; set them anew before you migrate the guest",)
    except MonitorLostError as error:
        state = "ran" if running else "was paused"
        error.add_note(f"the guest is restored, and {state} until then; QEMU's migration settings were not put back")
        raise
    return ()
