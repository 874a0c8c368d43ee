"""A new image that takes the place of one that is there: with its owner, its mode and its attributes, and only if nobody
changed that one meanwhile. libvirt has to be able to read a managed save afterwards as it was before.

The two change places at one instant. So a managed save that libvirt has used up meanwhile, and removed, does not come back.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from ..errors import DestinationError, with_notes_of
from ..units import MiB
from .file import NewImage

OF_THE_CONTENTS: Final = frozenset({"security.ima", "security.evm"})
"""Attributes that sign a file's contents: the new file's are the kernel's business."""

COPY_SIZE: Final = 64 * MiB
CANNOT_COPY: Final = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP})
SECTOR_SIZE: Final = 512
"""What a disk writes as a whole or not at all, whenever the power fails."""


class Replacement(NewImage):
    """A new image at ``path`` instead of the file that is open as ``fd`` and was as ``status`` tells when it was opened.

    Raises:
        DestinationError: also if that is no regular file, or not at ``path``.

    """

    def __init__(self, path: Path, head: bytes, fd: int, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise DestinationError(f"{path}: is not a regular file, so no new one can take its place", path=path)
        self._old_fd = fd
        self._kernel_copies = True
        self._old_status = status
        super().__init__(path, head)

    def copy_old(self, offset: int) -> None:
        """Append what stands in the old file from ``offset`` on; shared with it where the file system can do that.

        Raises:
            DestinationError: it cannot be read or written, or ``abort()`` was called.

        """
        end = os.lseek(self._old_fd, 0, os.SEEK_END)
        try:
            while offset < end:
                self._check_aborted()
                copied = self._copy_piece(offset, min(COPY_SIZE, end - offset))
                if not copied:
                    break  # it became shorter: that will not go unseen
                offset += copied
        except OSError as error:
            raise self._cannot(f"copy the payload to offset {self.size}", error) from error

    def _copy_piece(self, offset: int, size: int) -> int:
        if self._kernel_copies:
            try:
                copied = os.copy_file_range(self._old_fd, self._fd, size, offset, self.size)
            except OSError as error:
                if error.errno not in CANNOT_COPY:
                    raise
                self._kernel_copies = False
                os.lseek(self._fd, self.size, os.SEEK_SET)
            else:
                self.size += copied
                return copied
        data = os.pread(self._old_fd, min(size, MiB), offset)
        self.write([data])
        return len(data)

    def commit(self, header: bytes, partial: bytes) -> None:
        """See ``NewImage``.

        Raises:
            DestinationError: also if the old file changed, or the new one cannot be given what it has to keep of it.

        """
        try:
            self._keep_attributes()
        except OSError as error:
            raise DestinationError(
                f"{self.path}: cannot give a new file the owner, mode and attributes of the old one: {error.strerror};"
                " do this as the user who owns it, or as root",
                path=self.path,
            ) from error
        check_unchanged(self.path, self._old_status)
        super().commit(header, partial)

    def _take_name(self) -> None:
        """Change places with the old file; where the file system cannot do that, take its place at the last moment."""
        check_unchanged(self.path, self._old_status)
        try:
            changed_places = self._change_places()
        except FileNotFoundError:
            check_unchanged(self.path, self._old_status)
            raise
        if changed_places:
            check_unchanged(self.temporary, self._old_status, name=self.path)
        else:
            os.rename(self.temporary, self.path)

    def _keep_attributes(self) -> None:
        old, new = self._old_status, os.fstat(self._fd)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.fchown(self._fd, old.st_uid, old.st_gid)
        for name in os.listxattr(self._old_fd):
            if name not in OF_THE_CONTENTS:
                self._keep_attribute(name, os.getxattr(self._old_fd, name))
        os.fchmod(self._fd, stat.S_IMODE(old.st_mode))

    def _keep_attribute(self, name: str, value: bytes) -> None:
        try:
            os.setxattr(self._fd, name, value)
        except OSError:
            if name not in os.listxattr(self._fd) or os.getxattr(self._fd, name) != value:
                raise


def overwrite(path: Path, fd: int, status: os.stat_result, data: bytes, offset: int) -> None:
    """Write ``data``, all of it in one sector, to the file that is open for reading as ``fd``; durable when this returns.

    Raises:
        DestinationError: the file at ``path`` is not as it was at ``status``, or cannot be written.
        ValueError: more than a sector: a power failure could leave half of it.

    """
    if offset // SECTOR_SIZE != (offset + len(data) - 1) // SECTOR_SIZE:
        raise ValueError(f"{len(data)} bytes at offset {offset} are not in one sector")
    check_unchanged(path, status)
    try:
        before = os.pread(fd, len(data), offset)
        writing_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write_through(writing_fd, data, offset)
        except OSError as error:
            try:
                _write_through(writing_fd, before, offset)
            except OSError:
                error.add_note(f"{path} could not be changed back: after a power failure it may be as asked for, or not")
            raise
        finally:
            os.close(writing_fd)
    except OSError as error:
        failure = DestinationError(f"{path}: cannot be written at offset {offset}: {error.strerror}", path=path)
        raise with_notes_of(error, failure) from error


def _write_through(fd: int, data: bytes, offset: int) -> None:
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.EIO, "short write")
    os.fsync(fd)


def check_unchanged(path: Path, status: os.stat_result, *, name: Path | None = None) -> None:
    """The file at ``path`` is the one that ``status`` is of, and was not written since; or DestinationError, of ``name``."""
    name = name or path
    try:
        now = os.stat(path)
    except OSError as error:
        raise DestinationError(f"{name}: is gone ({error.strerror}): nothing was written", path=name) from error
    if _identity(now) != _identity(status):
        raise DestinationError(
            f"{name}: somebody else changed the image meanwhile: nothing was written; look at it, and try again", path=name
        )


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
