"""Files: an image that is read, and a new image that exists completely or not at all.

A new image is written to a file without a name, or under a temporary one beside its destination where the file system has
no such files, with the header marked partial. ``commit()`` gives it the temporary name at the latest, for btrfs before 6.15
makes nothing durable that has none; then it makes the payload durable, then the complete header, then the name; the image
exists from then on. What stood at the destination changes places with it and goes only when that is durable: whatever fails
before, and whenever the power does, it is there.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import DestinationError, SourceError
from .exchange import CANNOT, exchange
from .gather import read_all
from .image_sink import ImageSink, reason
from .leftovers import remove_leftovers, temporary_name, try_lock
from .nameless import give_name, open_nameless

MODE = 0o600


class FileSource:
    """Reads an open file from its start to its end, or any part of it. Owns ``fd``, whose offset it leaves alone."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._position = 0
        self._aborted = False
        with suppress(OSError):  # advice, which not every file system takes
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def fileno(self) -> int:
        """The descriptor, which stays ours."""
        return self._fd

    def read_at(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` in the file, fewer only at its end.

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
        got = self.readinto_at(view, self._position)
        self._position += got
        return got

    def readinto_at(self, view: memoryview, offset: int) -> int:
        """See ``RandomSource``."""

        def give(rest: memoryview) -> int:
            if self._aborted:
                raise SourceError(f"{self._path}: reading was aborted", path=self._path)
            return os.preadv(self._fd, [rest], offset + len(view) - len(rest))

        try:
            return read_all(give, view)
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read: {error.strerror}", path=self._path) from error

    def abort(self) -> None:
        """See ``Source``. A read from a disk cannot be woken; it is the last one."""
        self._aborted = True

    def close(self) -> None:
        """See ``Source``."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class NewImage(ImageSink):
    """A new file, which gets the name ``path`` at the end.

    Raises:
        DestinationError: ``path`` cannot be written: it is a directory, its folder is missing, not writable or full. The
            message says which.

    """

    kind = "file"

    def __init__(self, path: Path, head: bytes, *, least_size: int = 0) -> None:
        """``head``: the partial header and the metadata, written at once. ``least_size``: what has to be free there."""
        super().__init__(resolve(path), -1)
        self._temporary = temporary_name(self.path)
        self._replaced_fd = -1
        self._whole = False
        """The complete header is in the file, or may be."""
        try:
            fsync_folder(self.path.parent)  # where that fails a commit would, with the guest long stopped
        except OSError as error:
            raise self._cannot("make names durable in " + str(self.path.parent), error) from error
        if least_size:
            self._check_space(self._free_size(), least_size)
        remove_leftovers(self.path)
        try:
            self._create()
        except OSError as error:
            raise self._cannot("create a file in " + str(self.path.parent), error) from error
        try:
            self.write([head])
        except BaseException:
            self.discard()
            raise

    def _create(self) -> None:
        """A new file that is locked for as long as we or our guardian live: see ``leftovers``."""
        self._fd = open_nameless(self.path.parent, MODE)
        self._nameless = self._fd >= 0
        if self._nameless:
            try_lock(self._fd)
        else:
            self._create_named()
        self._identity = _identity(os.fstat(self._fd))

    def _create_named(self) -> None:
        while True:
            self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
            self._identity = _identity(os.fstat(self._fd))
            if try_lock(self._fd) is not False and self._is_ours(self._temporary):
                return
            self.close()  # somebody tidied up in that very moment, and took it for a leftover

    @property
    def temporary(self) -> Path:
        """The name that the file has until it gets its own: from the commit on, or all along."""
        return self._temporary

    def commit(self, header: bytes, partial: bytes) -> None:
        """See ``ImageSink``. If the last step fails what stood at the destination is there again."""
        try:
            if self._nameless:
                give_name(self._fd, self._temporary)
            os.fsync(self._fd)
            self._whole = True
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

    def remove_older(self) -> None:
        """See ``ImageSink``."""
        try:
            os.unlink(self.temporary)
        except FileNotFoundError:
            pass  # nothing was there, or it is gone
        except OSError as error:
            why = f"could not be removed ({error.strerror})"
            self.notes.append(f"{self.temporary} is the older image, and {why}")

    def discard(self) -> None:
        """Remove what was not committed, or what a committed image changed places with; and close. May be called twice."""
        if self.committed:
            self.remove_older()
        else:
            self._unlink(self.temporary)
        self.close()

    def close(self) -> None:
        """See ``Sink``."""
        super().close()
        if self._replaced_fd >= 0:
            os.close(self._replaced_fd)
            self._replaced_fd = -1

    def _take_name(self) -> None:
        """Change places with the file that is there; where none is, or the two cannot, take its place.

        That one stays open until ``close()``: to give back many GiB takes a file system its time, for which the guest must
        not stand still.
        """
        with suppress(FileNotFoundError):
            self._replaced_fd = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            if stat.S_ISREG(os.fstat(self._replaced_fd).st_mode) and self._change_places():
                return
        os.rename(self.temporary, self.path)

    def _change_places(self) -> bool:
        """With what is at ``path``; False: this file system cannot do that."""
        try:
            exchange(self.temporary, self.path)
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            return False
        return True

    def _changed_places(self) -> bool:
        """Whether the two have: asked of the disk, for whoever was interrupted in between knows nothing else."""
        return self._is_ours(self.path) and os.path.lexists(self.temporary)

    def _take_back(self, partial: bytes) -> None:
        """Leave no image of ours. A name that it had may survive a power failure, whatever is done about it.

        Where an older image would be missing then, ours stays complete, and good, until that one has its name for certain.
        Else the complete magic goes first.
        """
        try:
            if self._changed_places():
                exchange(self.temporary, self.path)
                fsync_folder(self.path.parent)
            if self._whole:
                self._mark_partial(partial)
        except OSError:
            pass  # a folder that takes no change any more: whichever image is there is a whole one
        finally:
            if self._changed_places():
                self.left = f"{self.path} could not be taken back: it is complete, and {self.temporary} is the older image"
            else:
                self._unlink(self.path)
                if self._is_ours(self.path):
                    self.left = f"{self.path} could not be taken back: it may look complete, and is of no use"

    def _unlink(self, path: Path) -> None:
        """Remove ``path`` if it is still our file."""
        try:
            if self._is_ours(path):
                os.unlink(path)
        except FileNotFoundError:
            pass  # just now
        except OSError as error:  # a folder that takes no change any more
            self.left = f"{path} could not be removed ({error.strerror}): it is of no use, for the guest runs on"

    def _is_ours(self, path: Path) -> bool:
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return False
        return _identity(status) == self._identity

    def _free_size(self) -> int:
        try:
            status = os.statvfs(self.path.parent)
        except OSError as error:
            raise self._cannot("ask for the free space there", error) from error
        return status.f_bavail * status.f_frsize


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable. OSError as it comes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def resolve(path: Path) -> Path:
    """The destination behind symbolic links: nothing yet, or anything but a directory.

    Raises:
        DestinationError: it cannot be looked up, or is a directory, or its folder does not exist.

    """
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
        raise DestinationError(f"{path}: cannot be looked up: {reason(error)}", path=path) from error
    except RuntimeError as error:  # what Python until 3.12 makes of ELOOP
        loop = OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        raise DestinationError(f"{path}: cannot be looked up: {reason(loop)}", path=path) from error
    if stat.S_ISDIR(mode):
        raise DestinationError(f"{path}: is a directory; name a file in it", path=path)
    return path
