"""A small disk for the length of a ``with``: a file system of its own, which can be made to fail as disks do."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from streamsave.units import MiB

from .missing import missing, require_tools

SHUTDOWN: Final = 0x8004587D
"""``EXT4_IOC_SHUTDOWN``: whatever reads or writes fails with EIO from then on, as if the device were gone."""
NO_FLUSH: Final = 2
TOOLS: Final = ("mkfs.ext4", "fsfreeze", "mount", "umount")


class CannotMount(Exception):
    """There is no way to have a disk here; the message says why."""


class Disk:
    """An ext4 in the file ``backing``, or with None a tmpfs, mounted at ``folder``, which is made; ``close()`` ends it."""

    def __init__(self, folder: Path, backing: Path | None, size: int = 64 * MiB) -> None:
        if os.geteuid() != 0:
            raise CannotMount("mounting a disk takes root")
        self.folder = folder
        self._backing = backing
        self._frozen = False
        folder.mkdir()
        if backing is not None:
            with backing.open("wb") as file:
                file.truncate(size)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", backing], check=True)
        try:
            self._mount(["-t", "tmpfs", "-o", f"size={size}", "none"] if backing is None else ["-o", "loop", str(backing)])
        except CannotMount:
            folder.rmdir()
            raise

    def _mount(self, what: list[str]) -> None:
        mount = subprocess.run(["mount", *what, self.folder], capture_output=True, text=True, check=False)
        if mount.returncode:
            raise CannotMount(f"no disk can be mounted here: {mount.stderr.strip()}")

    def sync(self) -> None:
        """What was made so far is durable."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def freeze(self) -> None:
        """Whoever writes hangs, and cannot even be killed, until ``thaw()``."""
        subprocess.run(["fsfreeze", "--freeze", self.folder], check=True)
        self._frozen = True

    def thaw(self) -> None:
        """Let it go on. May be called twice."""
        if self._frozen:
            subprocess.run(["fsfreeze", "--unfreeze", self.folder], check=True)
            self._frozen = False

    def make_read_only(self) -> None:
        """At once, also for files that are open for writing: as the kernel does when a disk fails."""
        self._mount(["-o", "remount,abort"])

    def die(self) -> None:
        """Every read and write fails from now on; names can still be looked up."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(fd)

    def fill(self, leave: int = 0) -> None:
        """Leave no more than ``leave`` bytes."""
        status = os.statvfs(self.folder)
        size = max(0, status.f_bavail * status.f_frsize - leave)
        with (self.folder / "filler").open("ab") as file:
            if size:
                with suppress(OSError):  # what one file takes on top for its own sake
                    os.posix_fallocate(file.fileno(), file.tell(), size)
            if not leave:
                _write_until_full(file.fileno())

    def mend(self) -> None:
        """As after a repair: mounted anew, what was durable is there, and it can be written."""
        self.thaw()
        if self._backing is not None:
            subprocess.run(["umount", self.folder], check=True)
            self._mount(["-o", "loop", str(self._backing)])
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount, however it is. May be called twice."""
        with suppress(subprocess.CalledProcessError):
            self.thaw()
        if self.folder.exists():
            subprocess.run(["umount", "--lazy", self.folder], check=True)
            self.folder.rmdir()


def _write_until_full(fd: int) -> None:
    for size in (65536, 512):
        while True:
            try:
                os.pwrite(fd, bytes(size), os.lseek(fd, 0, os.SEEK_END))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break


@contextmanager
def mounted_disk(home: Path) -> Iterator[Disk]:
    """A disk in ``home``, for a test: where none can be had, the test says so and is skipped."""
    require_tools(*TOOLS)
    try:
        disk = Disk(home / "mounted", home / "disk")
    except CannotMount as error:
        missing(str(error))
    try:
        yield disk
    finally:
        disk.close()
