"""A path under which libvirt's daemon opens pipes of ours, a new one for each time that it opens the path.

libvirt saves to a path and restores from one. What stands there is a pipe, and it can be exchanged between two openings:
so each opening is told apart from the next, and each can be waited for, held up or refused on its own.

Two kinds. ``/proc/PID/fd/N`` leaves nothing behind and needs no folder; the daemon has to live in our PID namespace and be
allowed to look. A FIFO in a private folder under ``/run`` needs neither, but the daemon has to see that folder. Which of
them a daemon can open is found out by letting it read from them (``probe``), before anything depends on it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import termios
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from ..endpoints.pipe import PAGE_SIZE
from ..errors import ResourceError

FOLDER_PREFIX = "pipe-"
GONE_PREFIX = "gone-"


class Pipe:
    """Both ends of a pipe: owned, and closed one by one or at the end."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader = reader
        self.writer = writer

    def fill(self) -> int:
        """Write until nothing more fits, so that whoever writes next has to wait; returns the number of bytes."""
        os.set_blocking(self.writer, False)
        filling = bytes(PAGE_SIZE)
        size = 0
        with suppress(BlockingIOError):
            while True:
                size += os.write(self.writer, filling)
        return size

    def drain(self) -> bytes:
        """Everything that is in it now."""
        os.set_blocking(self.reader, False)
        data = bytearray()
        with suppress(BlockingIOError):
            while more := os.read(self.reader, 1 << 16):
                data += more
        return bytes(data)

    def waiting(self) -> int:
        """How many bytes are in it."""
        count = array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, count)
        return count[0]

    def wake_opener(self) -> None:
        """Let whoever waits in ``open()`` of a FIFO for somebody at its other end go on. One end of ours is open."""
        fd = self.writer if self.writer >= 0 else self.reader
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    def take_reader(self) -> int:
        """The reading end is the caller's from now on."""
        reader, self.reader = self.reader, -1
        return reader

    def take_writer(self) -> int:
        """The writing end is the caller's from now on."""
        writer, self.writer = self.writer, -1
        return writer

    def close_reader(self) -> None:
        """Our own reading end: once no other is left, writers get EPIPE. May be called twice."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def close_writer(self) -> None:
        """Our own writing end: once no other is left, readers get the end. May be called twice."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Both. May be called twice."""
        self.close_reader()
        self.close_writer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Passage(ABC):
    """``path`` leads to the pipe that ``next_pipe`` made last. A context manager, for as long as the daemon may open it."""

    path: str

    @abstractmethod
    def next_pipe(self) -> Pipe:
        """A new pipe, the caller's, for whoever opens the path from now on. The path itself may count as a reader of it."""

    @abstractmethod
    def shut(self) -> None:
        """From now on the path cannot be opened. May be called twice."""

    @abstractmethod
    def close(self) -> None:
        """Give it up, once nobody will open it any more. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class DescriptorPassage(Passage):
    """``/proc/PID/fd/N``: N is a number of ours that one pipe after the other gets, and a socket, which nobody can open."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._fd = os.dup(self._socket.fileno())
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"

    def next_pipe(self) -> Pipe:
        """See ``Passage``."""
        pipe = Pipe(*os.pipe())
        os.dup2(pipe.reader, self._fd, inheritable=False)
        return pipe

    def shut(self) -> None:
        """See ``Passage``. The number stays taken: another file of this process must not get it while it may be opened."""
        os.dup2(self._socket.fileno(), self._fd, inheritable=False)

    def close(self) -> None:
        """See ``Passage``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._socket.close()
            self._fd = -1


class FifoPassage(Passage):
    """A name in a folder of its own in ``runtime_folder``, which one FIFO after the other gets.

    The folder is locked while it is in use, so that the next one finds and removes those that a killed process left.

    Raises:
        ResourceError: the folder cannot be made.
    """

    def __init__(self) -> None:
        base = runtime_folder()
        try:
            base.mkdir(mode=0o700, exist_ok=True)
            with _locked(base):
                remove_stale(base)
                self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
                self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise ResourceError(f"cannot make a folder for a pipe in {base}: {error.strerror}") from error
        self.path = str(self._folder / "stream")

    def next_pipe(self) -> Pipe:
        """See ``Passage``."""
        new = f"{self.path}-next"
        os.mkfifo(new, 0o600)
        reader = os.open(new, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reader, True)
        pipe = Pipe(reader, os.open(new, os.O_WRONLY | os.O_CLOEXEC))
        os.rename(new, self.path)
        return pipe

    def shut(self) -> None:
        """See ``Passage``. The whole folder goes at once: where only the FIFO is gone, libvirt makes a file."""
        with suppress(FileNotFoundError):
            gone = self._folder.with_name(GONE_PREFIX + self._folder.name)
            self._folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def close(self) -> None:
        """See ``Passage``."""
        self.shut()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Inside, no other process is in here: one makes a folder and locks it, one finds those that are not locked."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def runtime_folder() -> Path:
    """Where FIFOs go: a folder of this user's that does not outlive the machine's uptime.

    Raises:
        ResourceError: there is none.

    """
    if os.geteuid() == 0:
        return Path("/run/streamsave")
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder:
        raise ResourceError("no folder for a pipe: XDG_RUNTIME_DIR is not set")
    return Path(folder) / "streamsave"


def remove_stale(base: Path) -> None:
    """Remove the folders in ``base`` that nobody holds: those of processes that were killed."""
    for folder in [*base.glob(FOLDER_PREFIX + "*"), *base.glob(GONE_PREFIX + "*")]:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # somebody else removed it meanwhile
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(fd)
