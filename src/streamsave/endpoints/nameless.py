"""Files without a name: whatever dies before they get one, a process or the machine, nothing is left of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

CANNOT: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})
"""What a file system says that has no such files; NFS is one."""


def open_nameless(folder: Path, mode: int) -> int:
    """A new file on the file system of ``folder``, open for both; -1: it has no such files. OSError as it comes."""
    try:
        fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in CANNOT:
            raise
        return -1
    # Without /proc it could never get a name, nor if it is another user's (protected_hardlinks), as on mounts that map them.
    if os.path.lexists(_link(fd)) and os.fstat(fd).st_uid == os.geteuid():
        return fd
    os.close(fd)
    return -1


def give_name(fd: int, path: Path) -> None:
    """From now on it is at ``path``, where nothing may be. OSError as it comes."""
    # With a descriptor Python calls linkat(), and that alone follows the link; the path is absolute, and does not need it.
    os.link(_link(fd), path.absolute(), dst_dir_fd=fd)


def _link(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
