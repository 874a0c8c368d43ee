"""A descriptor that somebody else opened (a pipe, a socket, a file) as a source and as a sink.

The caller's descriptor is duplicated; it stays the caller's, its flags stay as they are, and ``abort()`` wakes us without
touching it: we never block in ``read`` or ``write`` but in ``poll``, together with a wake-up descriptor.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from ..errors import DestinationError, SourceError
from ..types import Buffer
from .gather import read_all, write_all

STANDARD_STREAMS: Final = {0: "standard input", 1: "standard output"}


def name_of(fd: int) -> Path:
    """What to call what is behind ``fd`` in messages: a file by its path, a pipe or a socket by its descriptor."""
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # not open: whoever uses it says so
        link = ""
    return Path(link if link.startswith("/") else STANDARD_STREAMS.get(fd, f"descriptor {fd}"))


class _Descriptor:
    """Our own duplicate of ``fd`` that never blocks, and what wakes us.

    A pipe is opened once more, so that the non-blocking flag is ours alone; a socket takes the flag with each call; files
    never block in this sense. It is the duplicate that is polled: a pipe that was opened after its last writer went away
    never tells of that end.
    """

    def __init__(self, fd: int, flags: int, event: int) -> None:
        mode = os.fstat(fd).st_mode
        self._sock: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = False
        with ExitStack() as owned:
            polled = self._fd = os.dup(fd)
            owned.callback(os.close, polled)
            if stat.S_ISFIFO(mode):
                self._fd = self._open_again(fd, flags)
                owned.callback(os.close, self._fd)
            elif stat.S_ISSOCK(mode):
                self._sock = owned.enter_context(socket.socket(fileno=os.dup(fd)))
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            owned.callback(os.close, self._wake)
            self._owned = owned.pop_all()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._wait_ms: int | None = 0
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            self._poll.register(polled, event)
            self._wait_ms = None

    def _open_again(self, fd: int, flags: int) -> int:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC)

    def _wait(self) -> None:
        """Until the descriptor is ready; InterruptedError after ``abort()``."""
        if any(fd == self._wake for fd, _ in self._poll.poll(self._wait_ms)):
            raise InterruptedError("aborted")

    def fileno(self) -> int:
        """Our own descriptor."""
        return self._fd

    def abort(self) -> None:
        """Wake whoever waits, now and later."""
        with self._lock:
            if not self._closed:  # the number may be another file's by now
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close what is ours; the caller's descriptor stays open. May be called twice."""
        with self._lock:
            self._closed = True
            self._owned.close()


class DescriptorSource(_Descriptor):
    """Reads ``fd`` until its end. OSError when it is no open descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, os.O_RDONLY, select.POLLIN)

    def _open_again(self, fd: int, flags: int) -> int:
        try:
            return super()._open_again(fd, flags)
        except PermissionError:  # a pipe that another user made: reading what poll saw does not block either
            return os.dup(fd)

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        try:
            return read_all(self._give, view)
        except OSError as error:
            raise SourceError(f"reading the given descriptor failed: {error}") from error

    def _give(self, view: memoryview) -> int:
        while True:
            self._wait()
            try:
                return os.readv(self._fd, [view])
            except BlockingIOError:
                pass  # ready a moment ago, but another reader was quicker: wait again


class DescriptorSink(_Descriptor):
    """Writes to ``fd``. OSError when it is no open descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, os.O_WRONLY, select.POLLOUT)

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        try:
            write_all(self._take, parts)
        except OSError as error:
            raise DestinationError(f"writing the given descriptor failed: {error}") from error

    def _take(self, views: list[memoryview]) -> int:
        self._wait()
        try:
            if self._sock is not None:
                return self._sock.sendmsg(views, (), socket.MSG_DONTWAIT)
            return os.writev(self._fd, views)
        except BlockingIOError:
            return 0  # ready a moment ago: wait again
