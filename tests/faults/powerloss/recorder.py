"""Records what this process does to the files of one folder, and perhaps to a block device; and lets some of it fail.

Every call of ``os`` by which streamsave changes a file is wrapped; one that could, and is not, is refused. That nothing went
by unseen is for the test to check: what was recorded, done again, has to make the very files that are there afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from streamsave.endpoints import exchange
from streamsave.endpoints.in_place import BLKZEROOUT

from .events import DEVICE, FOLDER, Created, Disk, Event, Named, Recording, Resized, Synced, Written

REFUSED: Final = ("write", "pwritev", "truncate", "fdatasync", "posix_fallocate", "sendfile", "splice")
"""That change an open file or make it durable, and that no writer of images uses."""
Key: TypeAlias = tuple[int, int]
Fault: TypeAlias = Callable[[str], OSError | None]
"""Asked before each ``create``, ``write``, ``sync`` and ``name``: the error that it ends with instead."""


def no_fault(_kind: str) -> None:
    return None


def nth_fails(kind: str, number: int, *, for_good: bool) -> Fault:
    """The ``number``-th call of that kind, from 1, fails with EIO; ``for_good``: and all later ones of any, with EROFS."""
    count = 0

    def fault(asked: str) -> OSError | None:
        nonlocal count
        if count >= number and for_good:
            return OSError(errno.EROFS, os.strerror(errno.EROFS))
        count += asked == kind
        return OSError(errno.EIO, os.strerror(errno.EIO)) if count == number and asked == kind else None

    return fault


class Recorder:
    """What happens to the files in ``folder``, and to ``device``, from its construction on."""

    def __init__(
        self, folder: Path, device: Path | None = None, *, fault: Fault = no_fault, known: Disk | None = None
    ) -> None:
        """``known``: what is there and what its files are called, where that is known; else all files are new numbers."""
        self.events: list[Event] = []
        self._folder = folder
        self._fault = fault
        self._lock = threading.RLock()
        self._numbers: dict[Key, int] = {_key(os.stat(folder)): FOLDER}
        self._device = None
        if known is None:
            known = disk_of(folder, device)
        if device:
            self._device = known.names[DEVICE]
        self.before = known
        self._next = max(known.files, default=-1) + 1
        for name, number in known.names.items():
            self._numbers[_key(os.stat(device if device and number == self._device else folder / name))] = number

    def recording(self) -> Recording:
        return Recording(self.before, tuple(self.events), self._device)

    def add(self, fd: int, number: int | None = None) -> int:
        """A file that has no name, or got it just now; ``number``: where that is known. Returns it."""
        if number is None:
            number = self._next
            self._next += 1
        self._numbers[_key(os.fstat(fd))] = number  # an older file may have had the same inode
        return number

    def _number(self, fd: int) -> int | None:
        """Of the file behind ``fd``; None: it is none of ours."""
        return self._numbers.get(_key(os.fstat(fd)))

    def _name(self, path: Any) -> str | None:
        path = os.path.abspath(os.fsdecode(path))
        return os.path.basename(path) if os.path.dirname(path) == str(self._folder) else None

    def _ask(self, kind: str) -> None:
        if error := self._fault(kind):
            raise error

    # What is wrapped: each gets the call itself first

    def open(self, call: Any, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE and os.path.abspath(path) == str(self._folder):
            with self._lock:
                self._ask("create")
                fd = int(call(path, flags, *rest, **options))
                self.events.append(Created(self.add(fd)))
                return fd
        name = self._name(path) if flags & os.O_CREAT else None
        if name is None:
            return int(call(path, flags, *rest, **options))
        assert flags & os.O_EXCL, f"{path} is created, or is not: that is not recorded"
        with self._lock:
            self._ask("create")
            fd = int(call(path, flags, *rest, **options))
            self.events.append(Named(((name, self.add(fd)),)))
            return fd

    def writev(self, call: Any, fd: int, views: Any) -> int:
        if (file := self._number(fd)) is None:
            return int(call(fd, views))
        with self._lock:
            self._ask("write")
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            taken = int(call(fd, views))
            assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND, "where that went is not recorded"
            self.events.append(Written(file, offset, b"".join(views)[:taken]))
            return taken

    def pwrite(self, call: Any, fd: int, data: Any, offset: int) -> int:
        if (file := self._number(fd)) is None:
            return int(call(fd, data, offset))
        with self._lock:
            self._ask("write")
            taken = int(call(fd, data, offset))
            self.events.append(Written(file, offset, bytes(data[:taken])))
            return taken

    def copy_file_range(
        self, call: Any, src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None
    ) -> int:
        if (file := self._number(dst)) is None:
            return int(call(src, dst, count, offset_src, offset_dst))
        assert offset_src is not None
        assert offset_dst is not None
        with self._lock:
            self._ask("write")
            taken = int(call(src, dst, count, offset_src, offset_dst))
            self.events.append(Written(file, offset_dst, os.pread(src, taken, offset_src)))
            return taken

    def ioctl(self, call: Any, fd: int, request: int, *rest: Any) -> Any:
        if request != BLKZEROOUT or (file := self._number(fd)) is None:
            return call(fd, request, *rest)
        with self._lock:
            self._ask("write")
            result = call(fd, request, *rest)
            offset, size = struct.unpack("=QQ", rest[0])
            self.events.append(Written(file, offset, bytes(size)))
            return result

    def ftruncate(self, call: Any, fd: int, size: int) -> None:
        if (file := self._number(fd)) is None:
            call(fd, size)
            return
        with self._lock:
            self._ask("write")
            call(fd, size)
            self.events.append(Resized(file, size))

    def fsync(self, call: Any, fd: int) -> None:
        if (file := self._number(fd)) is None:
            call(fd)
            return
        with self._lock:
            try:
                self._ask("sync")
            except OSError:
                self.events.append(Synced(file, well=False))
                raise
            call(fd)
            self.events.append(Synced(file))

    def rename(self, call: Any, old: Any, new: Any) -> None:
        if (names := (self._name(old), self._name(new))) == (None, None):
            call(old, new)
            return
        assert None not in names, "a file leaves or enters the folder: that is not recorded"
        with self._lock:
            self._ask("name")
            file = self._numbers[_key(os.lstat(old))]
            call(old, new)
            self.events.append(Named(((str(names[0]), None), (str(names[1]), file))))

    def renameat2(self, call: Any, first_fd: int, first: Any, second_fd: int, second: Any, flags: int) -> int:
        """The C library's function: it returns -1 and leaves an error number."""
        import ctypes

        names = self._name(first), self._name(second)
        if names == (None, None):
            return int(call(first_fd, first, second_fd, second, flags))
        assert flags == exchange.RENAME_EXCHANGE
        with self._lock:
            if error := self._fault("name"):
                ctypes.set_errno(error.errno or 0)
                return -1
            result = int(call(first_fd, first, second_fd, second, flags))
            if result == 0:  # they have changed places already
                now = [(name, self._numbers[_key(os.lstat(self._folder / str(name)))]) for name in names]
                self.events.append(Named(tuple((str(name), number) for name, number in now)))
            return result

    def unlink(self, call: Any, path: Any, **options: Any) -> None:
        if (name := self._name(path)) is None:
            call(path, **options)
            return
        with self._lock:
            self._ask("name")
            call(path, **options)
            self.events.append(Named(((name, None),)))

    def link(self, call: Any, old: Any, new: Any, **options: Any) -> None:
        if (name := self._name(new)) is None:
            self.refuse_link(call, old, new, **options)
            return
        with self._lock:
            self._ask("name")
            file = self._numbers[_key(os.stat(old))]
            call(old, new, **options)
            self.events.append(Named(((name, file),)))

    def refuse_link(self, call: Any, *paths: Any, **options: Any) -> Any:
        assert not any(self._name(path) for path in paths[:2]), "that is not recorded"
        return call(*paths, **options)

    def refuse(self, call: Any, fd: Any, *rest: Any, **options: Any) -> Any:
        watched = self._number(fd) is not None if isinstance(fd, int) else self._name(fd) is not None
        assert not watched, "a call that changes a file, and is not recorded"
        return call(fd, *rest, **options)


def _key(status: os.stat_result) -> Key:
    return (-1, status.st_rdev) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def files_of(folder: Path, device: Path | None) -> dict[str, bytes]:
    """What is there now."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return files | {DEVICE: device.read_bytes()} if device else files


def disk_of(folder: Path, device: Path | None) -> Disk:
    """The same, with numbers."""
    files = files_of(folder, device)
    names = {name: number for number, name in enumerate(files)}
    return Disk({names[name]: bytearray(data) for name, data in files.items()}, names)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Everything below goes through ``recorder``."""

    def through(method: Any, call: Any) -> Any:
        return lambda *arguments, **options: method(call, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "writev", "pwrite", "copy_file_range", "ftruncate", "fsync", "link", "rename", "unlink"):
            patch.setattr(os, name, through(getattr(recorder, name), getattr(os, name)))
        for name in REFUSED:
            patch.setattr(os, name, through(recorder.refuse, getattr(os, name)))
        for name in ("replace", "symlink"):
            patch.setattr(os, name, through(recorder.refuse_link, getattr(os, name)))
        patch.setattr(os, "remove", os.unlink)
        patch.setattr(fcntl, "ioctl", through(recorder.ioctl, fcntl.ioctl))
        renameat2 = exchange._renameat2()
        if renameat2 is not None:
            patch.setattr(exchange, "_renameat2", lambda: through(recorder.renameat2, renameat2))
        yield
