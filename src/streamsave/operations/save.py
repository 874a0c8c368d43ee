"""Save: the guest's memory becomes an image, and the guest is let go only once the image exists.

Think of every line below as the one where the power fails. Until ``commit()`` returns, whatever happens ends with the guest
as it was and nothing new at the destination; from then on with the image and ``then``. If this process dies, the guardian
takes over, with the same two endings.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from ..cancel import Cancellation
from ..endpoints.image_sink import ImageSink
from ..endpoints.socket import SocketSource
from ..errors import (
    CommandError,
    GuestError,
    MigrationError,
    MonitorError,
    MonitorLostError,
    SourceError,
    StreamsaveError,
)
from ..format.description import encode_description
from ..format.metadata import Metadata
from ..guardian.parent import Guardian
from ..guardian.plan import COMMITTED, MIGRATING, NOT_MIGRATING, STOPPING
from ..options import SaveOptions
from ..qemu.migration import GuestStatus, MigrationSettings, check_savable, start_outgoing, wait_outgoing
from ..qemu.monitor import Monitor
from ..qemu.peer import describe_guest
from ..qemu.recovery import Commander, carry_out, free_guest
from ..types import ProgressCallback
from .commit import Commit
from .course import COMMIT, Course
from .destination import Destination
from .giving_back import surely
from .guarding import guardian_plan, least_size
from .image_writer import ImageWriter, new_image
from .inflow import Inflow
from .limits import StoppedLimit
from .reports import STREAM, SaveReport

OUTCOME_TIMEOUT_S = 30.0
"""How long after the end of the stream QEMU may take to say how the migration ended."""
GIVEN_UP = "it was given up, and everything is as it was; allow more time, or choose a faster format or disk"
POSTMIGRATE = "in QEMU's state postmigrate: send cont before it is to be saved again"


def save(
    monitor: str | Path | socket.socket,
    destination: Destination,
    options: SaveOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> SaveReport:
    """Save the guest behind the QMP socket ``monitor`` to ``destination``, replacing what is there.

    ``destination`` is the path of a file or a block device, or a descriptor that stays the caller's: of either, open for
    reading and writing and written in place, or with ``options.stream`` of a pipe.

    Any thread may call. On any error the guest and the destination are as they were before, and where they are not the
    error's notes say so: the image is complete and only ``options.then`` failed; the guest could not be brought back; or a
    guest that was paused before is paused in QEMU's state postmigrate, which takes ``cont`` before the next save.

    Raises:
        MonitorError, GuestError: the monitor does not answer, or the guest cannot be saved.
        DestinationError: the destination cannot be written, or filled up.
        MigrationError: QEMU gave the migration up.
        TimeLimitError: ``options.timeout_s`` or ``options.max_stopped_s`` is over.
        Aborted: ``cancel`` was used. From the commit on neither has an effect: the image exists.
        CodecError, UnsupportedImageError: the codec failed, or cannot be named in an image.

    """
    options = options or SaveOptions()
    cancel = cancel or Cancellation()
    with (
        Course("save", destination, ("prepare", STREAM, COMMIT, options.then), progress) as course,
        cancel.limited(options.timeout_s, f"not saved within {options.timeout_s or 0:g} s: {GIVEN_UP}"),
        Monitor(monitor, cancel=cancel) as qmp,
        cancel.waking(qmp.interrupt),
    ):
        cancel.check()
        guest = check_savable(qmp)
        description = describe_guest(qmp, with_command=options.save_command)
        metadata = Metadata(encode_description(description))
        limit = StoppedLimit(options.max_stopped_s if guest.was_running else None, description.memory_size)
        limit.check()
        course.watch(limit.look)
        with new_image(
            destination,
            options,
            metadata,
            was_running=guest.was_running,
            least_size=least_size(description.memory_size),
            cancel=cancel,
        ) as image:
            address = None if isinstance(monitor, socket.socket) else monitor
            return _GuestSave(qmp, address, guest, image, options, limit, course).run(cancel)


class _GuestSave:
    """A save from the first change to the guest to the last."""

    def __init__(
        self,
        qmp: Monitor,
        address: str | Path | None,
        guest: GuestStatus,
        image: ImageWriter[ImageSink],
        options: SaveOptions,
        limit: StoppedLimit,
        course: Course,
    ) -> None:
        self._qmp = qmp
        self._address = address
        self._guest = guest
        self._image = image
        self._options = options
        self._limit = limit
        self._course = course
        self._commit = Commit(image.file, image.commit)
        self._settings = MigrationSettings(qmp)
        self._guardian: Guardian | None = None
        self._inflow: Inflow | None = None
        self._stopped = False
        """We stopped the guest, or are about to: it is ours to start again."""
        self._migrating = False
        """The same for the migration."""
        self._warnings: list[str] = []

    def run(self, cancel: Cancellation) -> SaveReport:
        """All of it."""
        try:
            self._prepare(cancel)
            with self._limit.counting(cancel):
                self._stop()
                self._stream(cancel)
                self._commit.run(cancel)
        except BaseException as error:
            if not self._image.file.committed:
                self._undo(error)
            else:
                self._let_go()
            raise
        finally:
            self._commit.join()
        if self._options.then != "resume":
            self._course.guest_is_free()
        self._course.end(COMMIT)
        self._let_go()
        self._course.guest_is_free()
        self._course.end(self._options.then)
        return self._report()

    def _prepare(self, cancel: Cancellation) -> None:
        """Bring QEMU into the state in which its stream is what we want, watched by the guardian."""
        plan = guardian_plan(
            self._image,
            was_running=self._guest.was_running,
            then=self._options.then,
            undo=self._settings.undo_commands(),
        )
        self._guardian = Guardian(self._qmp.fileno(), self._image.file.fileno(), plan, cancel=cancel)
        self._course.say(f"watched by guardian {self._guardian.pid}", guardian_pid=self._guardian.pid)
        self._settings.neutralise()
        cancel.check()

    def _stop(self) -> None:
        """Stop a guest that runs."""
        self._course.end("prepare")
        if self._guest.was_running:
            self._stopped = True
            self._guardian_hears(STOPPING)
            self._course.guest_stops()
            self._qmp.execute("stop")
        state = self._qmp.execute("query-status")["status"]
        if state != ("paused" if self._guest.was_running else self._guest.run_state):
            raise GuestError(
                f"the guest at {self._qmp.address} is in run state {state} all of a sudden: it ended, or somebody else"
                " controls it too; save it when that is over",
                status=state,
            )

    def _stream(self, cancel: Cancellation) -> None:
        """The whole stream into the image; returns only if QEMU says that it was the whole stream."""
        source = SocketSource(self._migrate())
        try:
            self._inflow = Inflow(source, self._image, self._options)
            with self._qmp.minding_loss(self._inflow.pipeline.fail):  # or the guest would wait for the stream's end
                self._inflow.run(self._course, cancel)
            wait_outgoing(self._qmp, OUTCOME_TIMEOUT_S)
        except SourceError as error:
            self._explain(error)
            raise
        finally:
            source.abort()
            if self._inflow is None:
                source.close()
        self._inflow.check_end()
        source.close()
        cancel.check()
        self._course.end(STREAM)

    def _migrate(self) -> socket.socket:
        self._migrating = True
        self._guardian_hears(MIGRATING)
        try:
            return start_outgoing(self._qmp, self._options.transport)
        except CommandError:
            self._migrating = False  # what may be under way is somebody else's
            self._guardian_hears(NOT_MIGRATING)
            raise

    def _explain(self, error: SourceError) -> None:
        """A broken socket is what we see of QEMU's trouble: let QEMU say what it was."""
        try:
            wait_outgoing(self._qmp, OUTCOME_TIMEOUT_S)
        except (MigrationError, MonitorError) as cause:
            raise cause from error

    def _undo(self, error: BaseException) -> None:
        """The guest first, then our threads, then the file (by the caller): back to the state before."""
        if self._inflow:
            self._inflow.pipeline.fail(error)
        try:
            self._surely(lambda qmp: self._free(qmp, error))
        except StreamsaveError as failure:
            goes_on = "; the guardian goes on trying" if self._guardian and self._guardian.alive else ""
            error.add_note(f"the guest could not be brought back to its state before: {failure}{goes_on}")
        finally:
            self._disarm()
            if self._inflow:
                self._inflow.pipeline.join()
                self._inflow.source.close()

    def _free(self, qmp: Commander, error: BaseException) -> None:
        free_guest(qmp, was_running=self._stopped, migrating=self._migrating, undo=self._settings.undo_commands())
        self._course.guest_is_free()
        state = qmp.execute("query-status")["status"]
        if self._migrating and state in ("finish-migrate", "postmigrate"):  # it was paused, so we may not cont
            error.add_note(f"the guest is paused as before, but {POSTMIGRATE}")

    def _let_go(self) -> None:
        """The image exists: do what was asked for with the guest."""
        self._guardian_hears(COMMITTED)
        then = self._options.then
        if self._guardian and not self._guardian.alive:
            self._warnings.append("the guardian ended during the save; nothing came of it")
        try:
            self._surely(self._carry_out)
        except StreamsaveError as error:
            if not (then == "quit" and isinstance(error, MonitorLostError)):  # it is gone already
                error.add_note(f"the image {self._image.file.path} is complete; only --then {then} failed")
                raise
        finally:
            self._disarm()

    def _carry_out(self, qmp: Commander) -> None:
        undo = self._settings.undo_commands()
        if not carry_out(qmp, self._options.then, was_running=self._guest.was_running, undo=undo):
            self._warnings.append("QEMU was told to quit but has not ended yet: it may still hold its disks")

    def _surely(self, act: Callable[[Commander], None]) -> None:
        surely(act, self._qmp, self._address, self._hand_over)

    def _hand_over(self) -> None:
        if self._guardian:
            self._course.say("left to the guardian", guardian_pid=self._guardian.pid)
            self._qmp.close()
            self._guardian.hand_over()

    def _guardian_hears(self, what: bytes) -> None:
        if self._guardian:
            self._guardian.say(what)

    def _disarm(self) -> None:
        if self._guardian:
            self._guardian.disarm()

    def _report(self) -> SaveReport:
        assert self._inflow is not None, "run() got here only through _stream()"
        if self._options.then == "resume" and self._guest.was_running:
            self._warnings.append("the guest runs on: the image fits its disks only as they were at the save")
        elif self._options.then != "quit":
            self._warnings.append(f"the guest is left {POSTMIGRATE}")
        return self._inflow.report(
            self._course,
            was_running=self._guest.was_running,
            then=self._options.then,
            warnings=tuple(self._warnings),
        )
