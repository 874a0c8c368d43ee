"""One end of a pipe as a source and as a sink, ours alone."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Sequence
from contextlib import suppress

from ..errors import DestinationError, SourceError
from ..types import Buffer
from ..units import MiB
from .gather import read_all, write_all

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
"""The least that a pipe holds."""
PIPE_SIZE = 1 * MiB
"""What a user may have without privileges; libvirt's helper moves as much at a time."""


class _PipeEnd:
    """Owns ``fd``. ``abort()`` puts another file behind it, so that it also wakes whoever is blocked at the other end."""

    def __init__(self, fd: int, event: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(fd, event)
        os.set_blocking(fd, False)
        self.resize(PIPE_SIZE)

    def resize(self, size: int) -> None:
        """Let the pipe hold ``size`` bytes, if the system agrees; a page at the least."""
        with suppress(OSError):  # what this user's pipes may take of the memory is used up
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, size)

    def _wait(self) -> None:
        """Until the pipe is ready; InterruptedError after ``abort()``."""
        if any(fd == self._wake for fd, _ in self._poll.poll()):
            raise InterruptedError("aborted")

    def abort(self) -> None:
        """Wake whoever waits for the pipe, on both sides of it, now and later: this end of it is gone."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._wake, 1)
                os.dup2(self._null, self._fd, inheritable=False)

    def close(self) -> None:
        """Close the pipe's end. May be called twice."""
        with self._lock:
            if self._fd >= 0:
                for fd in (self._fd, self._null, self._wake):
                    os.close(fd)
                self._fd = -1


class PipeSource(_PipeEnd):
    """Reads until no writer is left. A pipe that nobody has opened for writing yet has to have a writer of ours."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, select.POLLIN)

    def readinto(self, view: memoryview) -> int:
        """See ``Source``. After ``abort()`` the input is at its end, as with a socket that was shut down."""
        try:
            return read_all(self._give, view)
        except OSError as error:
            raise SourceError(f"reading the pipe failed: {error}") from error

    def _give(self, view: memoryview) -> int:
        while True:
            try:
                self._wait()
                return os.readv(self._fd, [view])
            except BlockingIOError:
                pass
            except InterruptedError:
                return 0


class PipeSink(_PipeEnd):
    """Writes; ``close()`` is the end of the stream for the other side."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, select.POLLOUT)

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``; the ``OSError`` is the cause, BrokenPipeError once nobody reads any more."""
        try:
            write_all(self._take, parts)
        except OSError as error:
            raise DestinationError(f"writing the pipe failed: {error}") from error

    def _take(self, views: list[memoryview]) -> int:
        self._wait()
        try:
            return os.writev(self._fd, views)
        except BlockingIOError:
            return 0
