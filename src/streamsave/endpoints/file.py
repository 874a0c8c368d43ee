"""Files: an image that is read, and a new image that exists completely or not at all.

A new image is written under a temporary name beside its destination, with the header marked partial. ``commit()`` makes the
payload durable, then the complete header, then the name; the image exists from the rename on. Whatever happens before leaves
the destination as it was.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..errors import DestinationError, SourceError
from ..types import Buffer
from ..units import MiB
from .gather import write_all

TEMPORARY_SUFFIX = ".streamsave-partial"
MODE = 0o600
WRITEBACK_SIZE = 16 * MiB
"""How much may be written before the disk is told to begin with it: 300 MB then take 8 ms to flush instead of 120."""


class FileSource:
    """Reads an open file from its current offset to its end. Owns ``fd``."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._aborted = False
        with suppress(OSError):  # advice, which not every file system takes
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def fileno(self) -> int:
        """The descriptor, which stays ours."""
        return self._fd

    def read_at(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` in the file, fewer only at its end. The current offset stays.

        Raises:
            SourceError: the read failed.

        """
        data = bytearray()
        try:
            while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read: {error.strerror}", path=self._path) from error
        return bytes(data)

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        have = 0
        while have < len(view):
            if self._aborted:
                raise SourceError(f"{self._path}: reading was aborted", path=self._path)
            try:
                got = os.readv(self._fd, [view[have:]])
            except OSError as error:
                raise SourceError(f"{self._path}: cannot be read: {error.strerror}", path=self._path) from error
            if not got:
                break
            have += got
        return have

    def abort(self) -> None:
        """See ``Source``. A read from a disk cannot be woken; it is the last one."""
        self._aborted = True

    def close(self) -> None:
        """See ``Source``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class NewImage:
    """A save image that is being written; a ``DurableSink`` for its payload.

    ``commit()`` and ``discard()`` are the two ways to end; leaving it as a context manager discards what was not committed.

    Raises:
        DestinationError: ``path`` cannot be written: it is a directory or a device, its folder is missing, not writable
            or full. The message says which.

    """

    def __init__(self, path: Path, head: bytes) -> None:
        """``head``: the partial header and the metadata, written at once."""
        self.path = _resolve(path)
        # 48 characters have up to 192 bytes, and a name up to 255
        self.temporary = self.path.with_name(f".{self.path.name[:48]}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        self.committed = False
        self.naming = False
        """The image is getting its name: from here on ``abort()`` comes too late."""
        self._lock = threading.Lock()
        self._aborted = False
        self._head_size = len(head)
        self.size = 0
        """Bytes written so far, head included."""
        self._writeback_offset = 0
        try:
            fsync_folder(self.path.parent)  # where that fails a commit would, with the guest long stopped
        except OSError as error:
            raise self._cannot("make names durable in " + str(self.path.parent), error) from error
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self.temporary, flags, MODE)
        except OSError as error:
            raise self._cannot("create a file in " + str(self.path.parent), error) from error
        try:
            status = os.fstat(self._fd)
            self.device, self.inode = status.st_dev, status.st_ino
            self.write([head])
        except BaseException:
            self.discard()
            raise

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``. Appends to the file."""
        try:
            write_all(self._writev, parts)
        except OSError as error:
            raise self._cannot(f"write at offset {self.size}", error) from error
        fresh = self.size - self._writeback_offset
        if fresh >= WRITEBACK_SIZE:
            with suppress(OSError):  # advice: Linux starts to write what is dirty, and does not wait for it
                os.posix_fadvise(self._fd, self._writeback_offset, fresh, os.POSIX_FADV_DONTNEED)
            self._writeback_offset = self.size

    def flush(self) -> None:
        """See ``DurableSink``."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._cannot("make the image durable", error) from error

    def _writev(self, views: list[memoryview]) -> int:
        self._check_aborted()
        taken = os.writev(self._fd, views)
        self.size += taken
        return taken

    def commit(self, header: bytes, partial: bytes) -> None:
        """Make the image exist: payload durable, then ``header`` (as long as the partial one, complete), then the name.

        Durable when it returns. If the last step fails the file is marked with ``partial`` again and removed.

        Raises:
            DestinationError: some step failed; no image exists under the name.

        """
        try:
            os.fsync(self._fd)
            self._rewrite(header)
            os.fsync(self._fd)
            self._begin_naming()
            self._take_name()
            fsync_folder(self.path.parent)
        except BaseException as error:  # a KeyboardInterrupt too: it may come right after the rename
            self._take_back(partial)
            if isinstance(error, FileNotFoundError):
                raise DestinationError(
                    f"{self.path}: somebody removed the unfinished image {self.temporary.name}, or its folder; save again",
                    path=self.path,
                ) from error
            if isinstance(error, OSError):
                raise self._cannot("make the image durable", error) from error
            raise
        self.committed = True

    def _begin_naming(self) -> None:
        with self._lock:
            self._check_aborted()
            self.naming = True

    def _take_name(self) -> None:
        os.rename(self.temporary, self.path)

    def _check_aborted(self) -> None:
        if self._aborted:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    def _rewrite(self, header: bytes) -> None:
        if os.pwrite(self._fd, header, 0) != len(header):
            raise OSError(errno.EIO, "short write of the header")

    def _take_back(self, partial: bytes) -> None:
        """If the image has its name: that may or may not survive a power failure, so no complete magic may be behind it."""
        if not self._is_ours(self.path):
            return
        try:
            self._rewrite(partial)
            os.fsync(self._fd)
        except OSError:
            pass  # a disk that fails like this keeps no promise; the error that brought us here is about to be told
        finally:
            self._unlink(self.path)

    def discard(self) -> None:
        """Remove what was not committed, and close. May be called twice."""
        if not self.committed:
            self._unlink(self.temporary)
        self.close()

    def _unlink(self, path: Path) -> None:
        """Remove ``path`` if it is still our file."""
        try:
            if self._is_ours(path):
                os.unlink(path)
        except OSError:
            pass  # gone already, or a folder that takes no change any more: the partial magic says what it is

    def _is_ours(self, path: Path) -> bool:
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def abort(self) -> None:
        """See ``Sink``. A write to a disk cannot be woken; it is the last one. Nor does a commit come to the name then."""
        with self._lock:
            self._aborted = True

    def close(self) -> None:
        """See ``Sink``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def _cannot(self, what: str, error: OSError) -> DestinationError:
        return DestinationError(f"{self.path}: cannot {what}: {_reason(error)}", path=self.path)


def _reason(error: OSError) -> str:
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
}


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable. OSError as it comes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _resolve(path: Path) -> Path:
    """The destination behind symbolic links, checked to be a regular file or nothing yet."""
    if not path.name:
        raise DestinationError(f"{path}: is a directory; name a file in it", path=path)
    try:
        path = path.resolve()
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.exists():
            raise DestinationError(f"{path}: the folder {path.parent} does not exist; create it first", path=path) from None
        return path
    except OSError as error:
        raise DestinationError(f"{path}: cannot be looked up: {_reason(error)}", path=path) from error
    except RuntimeError as error:  # what Python until 3.12 makes of ELOOP
        loop = OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        raise DestinationError(f"{path}: cannot be looked up: {_reason(loop)}", path=path) from error
    if stat.S_ISDIR(mode):
        raise DestinationError(f"{path}: is a directory; name a file in it", path=path)
    if not stat.S_ISREG(mode):
        raise DestinationError(f"{path}: is not a regular file; streamsave writes images to regular files", path=path)
    return path
