"""Two names that change places at one instant: whoever looks finds one file or the other (renameat2 of Linux)."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from . import libc

AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2
CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What file systems answer that cannot do it (NFS, many in user space), and systems that do not know it."""


def exchange(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> None:
    """Let both names change places. OSError as it comes: FileNotFoundError where one is not there, and ``CANNOT``."""
    if number := libc.error_of(_renameat2(), AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        raise OSError(number, os.strerror(number), os.fspath(first), None, os.fspath(second))


def _renameat2() -> Any:
    """In a function of its own, so that another one can stand for it."""
    return libc.function("renameat2")
