"""What all destinations of a new image share: it is written in order, with its header marked partial until the commit.

Three kinds: a new file, which gets its name at the end (``file``); a block device or a file that the caller opened, written
in place (``in_place``); a pipe, which nothing can be taken back from (``piped``).
"""

from __future__ import annotations

import errno
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self, TypeAlias

from ..errors import DestinationError
from ..types import Buffer
from ..units import MiB, format_size
from .direct import DirectWriter
from .gather import write_all
from .writeback import begin_writeback, wait_for_writeback

Kind: TypeAlias = Literal["file", "in place", "piped"]
WRITEBACK_SIZE = 16 * MiB
"""How much may be written before the disk is told to begin with it: 300 MB then take 8 ms to flush instead of 120."""
BACKLOG_SIZE = 64 * MiB
"""How much may wait for the disk where whoever writes wants to feel how fast it is."""


class ImageSink(ABC):
    """A save image that is being written; a ``DurableSink`` for its payload. Owns ``fd``.

    ``commit()`` and ``discard()`` are the two ways to end; leaving it as a context manager discards what was not committed.
    """

    kind: ClassVar[Kind]

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        """Where the image will be; for messages where there is no path."""
        self.size = 0
        """Bytes written so far, head included."""
        self.committed = False
        self.naming = False
        """The image is about to exist: from here on ``abort()`` comes too late."""
        self.left = ""
        """What a disk that takes no change any more has of an image that was discarded; empty: nothing."""
        self.notes: list[str] = []
        """What became of wishes that are no reason to fail."""
        self._fd = fd
        self._lock = threading.Lock()
        self._aborted = False
        self._direct: DirectWriter | None = None
        self._paced = False
        self._writeback_offset = 0
        self._settled_offset = 0

    @abstractmethod
    def commit(self, header: bytes, partial: bytes) -> None:
        """Make the image exist: payload durable, then ``header``, as long as ``partial``, which is there so far.

        Durable when it returns. What fails after the complete header is undone with ``partial``.

        Raises:
            DestinationError: some step failed; no image exists.

        """

    @abstractmethod
    def discard(self) -> None:
        """Take back what was not committed, as far as that is possible, and close. May be called twice."""

    def remove_older(self) -> None:  # noqa: B027 - most change places with nothing
        """After the commit: what this image changed places with goes; ``notes`` tell if it cannot. May be called twice."""

    @property
    def temporary(self) -> Path:
        """What the image is called until it exists."""
        return self.path

    def fileno(self) -> int:
        """The image's descriptor, which stays ours; -1 where nothing can be read back: for the guardian."""
        return self._fd

    def keep_pace(self) -> None:
        """From now on ``write`` takes as long as the disk does, but for ``BACKLOG_SIZE``: memory hides how fast that is."""
        self._paced = True

    def bypass_cache(self) -> None:
        """From now on, and until ``flush``, write past the page cache; a note says where that cannot be."""
        self._direct = DirectWriter(self._fd, self.size, self._check_aborted)

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``. Appends."""
        try:
            if self._direct is not None:
                self._direct.write(parts)
                self.size += sum(len(part) for part in parts)
                self._leave_refused_direct()
            else:
                write_all(self._writev, parts)
                self._write_back()
        except OSError as error:
            raise self._cannot(f"write at offset {self.size}", error) from error

    def flush(self) -> None:
        """See ``DurableSink``."""
        try:
            if self._direct is not None:
                self._direct.finish()
                self._leave_refused_direct()
                self._direct = None
        except OSError as error:
            raise self._cannot(f"write before offset {self.size}", error) from error
        self.sync()

    def sync(self) -> None:
        """Make durable what was written so far; any thread may call. What a writer past the cache gathers is not written.

        Raises:
            DestinationError: the system could not.

        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._cannot("make the image durable", error) from error

    def abort(self) -> None:
        """See ``Sink``. A write to a disk cannot be woken; it is the last one. Nor does a commit come to its end then."""
        with self._lock:
            self._aborted = True

    def close(self) -> None:
        """See ``Sink``."""
        if self._fd >= 0:
            if self._direct is not None:
                with suppress(OSError):  # it is a caller's, perhaps
                    self._direct.stop()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()
        if error is not None and self.left:
            error.add_note(self.left)

    def _writev(self, views: list[memoryview]) -> int:
        self._check_aborted()
        taken = os.writev(self._fd, views)
        self.size += taken
        return taken

    def _leave_refused_direct(self) -> None:
        """Once the system has refused it: write what was gathered, and go on without."""
        direct = self._direct
        if direct is not None and direct.refusal:
            self.notes.append(f"the page cache was not bypassed: {direct.refusal}")
            self._direct = None
            direct.finish()

    def _write_back(self) -> None:
        fresh = self.size - self._writeback_offset
        if fresh < WRITEBACK_SIZE:
            return
        begin_writeback(self._fd, self._writeback_offset, fresh)
        self._writeback_offset = self.size
        if self._paced and (settled := self.size - BACKLOG_SIZE) > self._settled_offset:
            wait_for_writeback(self._fd, self._settled_offset, settled - self._settled_offset)
            self._settled_offset = settled

    def _begin_naming(self) -> None:
        with self._lock:
            self._check_aborted()
            self.naming = True

    def _check_aborted(self) -> None:
        if self._aborted:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def _rewrite(self, header: bytes) -> None:
        if os.pwrite(self._fd, header, 0) != len(header):
            raise OSError(errno.EIO, "short write of the header")

    def _mark_partial(self, partial: bytes) -> bool:
        """After a commit that failed: no complete magic may be left, as far as that depends on us; False: it may be."""
        try:
            self._rewrite(partial)
            os.fsync(self._fd)
        except OSError:
            return False  # a disk that fails like this keeps no promise; the error that brought us here is about to be told
        return True

    def _check_space(self, free: int, least: int) -> None:
        """Refuse what cannot fit."""
        if free < least:
            raise DestinationError(
                f"{self.path}: only {format_size(free)} are free there, and the image needs {format_size(least)} at the very"
                " least; free some space or save elsewhere",
                path=self.path,
            )

    def _cannot(self, what: str, error: OSError) -> DestinationError:
        return DestinationError(f"{self.path}: cannot {what}: {reason(error)}", path=self.path)


def reason(error: OSError) -> str:
    """What the system says, and what to do about it."""
    return f"{error.strerror or error}{_ADVICE.get(error.errno or 0, '')}"


_ADVICE = {
    errno.ENOSPC: "; free some space or save elsewhere",
    errno.EDQUOT: "; free some space or save elsewhere",
    errno.EFBIG: "; raise the limit on the size of files (ulimit -f), or save to a file system that takes larger ones",
    errno.EIO: "; the disk may be failing, save to another one",
    errno.EACCES: "; choose a folder that this user may write",
    errno.EPERM: "; choose a folder that this user may write",
    errno.EROFS: "; choose a folder on a file system that is mounted for writing",
    errno.ENOENT: "; create the folder first",
    errno.ENOTDIR: "; choose a path whose parents are folders",
    errno.ELOOP: "; choose a path without a loop of symbolic links",
    errno.ENAMETOOLONG: "; choose a shorter name",
    errno.EBUSY: "; it is mounted, or somebody else uses it",
    errno.ENXIO: "; start whoever reads it first",
    errno.EPIPE: "; whoever read it has gone",
}
