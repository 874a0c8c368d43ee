"""Every error that streamsave raises, and the exit status of each.

The type says who is to blame, the message says what happened, where, and what to do about it, the attributes carry the
data, and the ``OSError`` or QMP error beneath is ``__cause__``::

    StreamsaveError                     1   (never raised itself)
    +-- UsageError (also ValueError)    2   the caller asked for something that cannot be
    |   +-- FormatError                 3   an unknown or not yet supported format
    |   +-- ConfigError                 4   a qemu.conf that cannot be followed
    +-- ImageError                     10   the image is to blame (never raised itself)
    |   +-- NotAnImageError            11   not a save image at all
    |   +-- IncompleteImageError       12   marked partial: its save never finished
    |   +-- TruncatedImageError        13   the file ends too early
    |   +-- CorruptImageError          14   contents contradict themselves or fail a checksum
    |   +-- UnsupportedImageError      15   a version or format that we do not read
    +-- CodecError                     20   a codec failed on good input
    +-- MonitorError                   30   the QMP conversation is to blame
    |   +-- MonitorConnectError        31   nothing, or nothing that speaks QMP, at the socket
    |   +-- MonitorBusyError           32   another client holds the monitor
    |   +-- MonitorLostError           33   the connection broke (QEMU died?)
    |   +-- CommandError               34   QEMU refused a command
    +-- GuestError                     35   the guest's state does not allow it
    +-- MigrationError                 36   QEMU gave the migration up
    +-- IncomingError                  37   the incoming QEMU did not load the stream
    +-- ProcessError                   38   a QEMU, or the guardian, does not start
    +-- LibvirtError                   39   libvirt cannot do it, or refuses
    +-- EndpointError                  40   our own input or output failed (never raised itself)
    |   +-- SourceError                41   reading
    |   +-- DestinationError           42   writing
    +-- ResourceError                  50   the system gives this process no more threads, descriptors or memory
    +-- TimeLimitError                 60   not done within the time that the caller gave it
    +-- Aborted                       130   cancelled by the caller or by a signal (128 + its number)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .types import Progress


class StreamsaveError(Exception):
    """The root: ``except StreamsaveError`` catches everything that streamsave raises on purpose.

    ``exit_status`` is what the command line exits with. ``progress`` says how far the operation came that this error ended,
    and where the time went; None where none had begun.
    """

    exit_status: ClassVar[int] = 1
    progress: Progress | None = None


class UsageError(StreamsaveError, ValueError):
    """The caller asked for something that cannot be: a bad option, a bad level, a command that fights us."""

    exit_status = 2


class FormatError(UsageError):
    """``name`` is not a format that can be written here. ``known`` are the ones that can."""

    exit_status = 3

    def __init__(self, message: str, *, name: str = "", known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.known = known


class ConfigError(UsageError):
    """A ``qemu.conf`` cannot be followed. ``path`` and ``line`` (from 1, 0 where there is none) say where."""

    exit_status = 4

    def __init__(self, message: str, *, path: Path, line: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class ImageError(StreamsaveError):
    """The image is to blame. ``path`` is the file where known, ``offset`` the byte in it, or -1.

    ``frame`` is the number of the payload's frame, or -1, and ``good_size`` how many bytes of the stream before it are good.
    """

    exit_status = 10

    def __init__(
        self, message: str, *, path: Path | None = None, offset: int = -1, frame: int = -1, good_size: int = -1
    ) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.frame = frame
        self.good_size = good_size


class NotAnImageError(ImageError):
    """The file does not begin with a save image's magic."""

    exit_status = 11


class IncompleteImageError(ImageError):
    """The image is marked partial: the save that wrote it never finished."""

    exit_status = 12


class TruncatedImageError(ImageError):
    """The file ends before what its header, metadata or frames promise."""

    exit_status = 13


class CorruptImageError(ImageError):
    """Contents contradict themselves, fail a checksum, or do not decode."""

    exit_status = 14


class UnsupportedImageError(ImageError):
    """A header version or format number that this release does not read."""

    exit_status = 15


class CodecError(StreamsaveError):
    """A codec failed although its input was good."""

    exit_status = 20


class MonitorError(StreamsaveError):
    """The QMP conversation is to blame. ``address`` is the monitor's socket, as given."""

    exit_status = 30

    def __init__(self, message: str, *, address: str = "") -> None:
        super().__init__(message)
        self.address = address


class MonitorConnectError(MonitorError):
    """Nothing answers at the socket, or what answers does not speak QMP."""

    exit_status = 31


class MonitorBusyError(MonitorError):
    """The socket connects but never greets: another client holds the monitor."""

    exit_status = 32


class MonitorLostError(MonitorError):
    """The connection broke while it was in use, most often because QEMU ended."""

    exit_status = 33


class CommandError(MonitorError):
    """QEMU answered ``command`` with an error of class ``error_class`` and text ``description``."""

    exit_status = 34

    def __init__(
        self, message: str, *, address: str = "", command: str, error_class: str = "GenericError", description: str = ""
    ) -> None:
        super().__init__(message, address=address)
        self.command = command
        self.error_class = error_class
        self.description = description


class GuestError(StreamsaveError):
    """The guest's state does not allow it. ``status`` is QEMU's run state, ``reasons`` what blocks it."""

    exit_status = 35

    def __init__(self, message: str, *, status: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.reasons = reasons


class MigrationError(StreamsaveError):
    """QEMU gave the outgoing migration up, or ended its stream too early."""

    exit_status = 36


class IncomingError(StreamsaveError):
    """The incoming QEMU did not load the stream. ``stderr`` is what it printed, where that is ours to read."""

    exit_status = 37

    def __init__(self, message: str, *, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr


class ProcessError(StreamsaveError):
    """A process that we start does not come up: QEMU (``stderr`` is what it printed), or the guardian."""

    exit_status = 38

    def __init__(self, message: str, *, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr


class LibvirtError(StreamsaveError):
    """libvirt cannot do it, or refuses. ``code`` is libvirt's number of the error (``VIR_ERR_...``), or 0."""

    exit_status = 39

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class EndpointError(StreamsaveError):
    """Our own input or output failed; the ``OSError`` is the cause. ``path`` is the file where there is one."""

    exit_status = 40

    def __init__(self, message: str, *, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class SourceError(EndpointError):
    """Reading an image, a stream or a configuration file failed."""

    exit_status = 41


class DestinationError(EndpointError):
    """The destination cannot be written: missing, not allowed, full, not a file."""

    exit_status = 42


class ResourceError(StreamsaveError):
    """The system gives this process no more of what it needs: threads, descriptors or memory."""

    exit_status = 50


class TimeLimitError(StreamsaveError):
    """The operation was given up because it would take longer than the caller allows: ``limit_s`` seconds."""

    exit_status = 60

    def __init__(self, message: str, *, limit_s: float) -> None:
        super().__init__(message)
        self.limit_s = limit_s


class Aborted(StreamsaveError):
    """The caller cancelled the operation. ``signum`` is the signal that asked for it, or 0."""

    exit_status = 130

    def __init__(self, message: str, *, signum: int = 0) -> None:
        super().__init__(message)
        self.signum = signum


def with_notes_of(error: BaseException, failure: StreamsaveError) -> StreamsaveError:
    """``failure``, which tells of ``error`` in other words: it has its notes too."""
    for note in getattr(error, "__notes__", ()):
        failure.add_note(note)
    return failure
