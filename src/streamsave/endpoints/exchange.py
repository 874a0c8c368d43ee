"""Two names that change places at one instant: whoever looks finds one file or the other (renameat2 of Linux)."""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import Any, Final

AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2
CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What file systems answer that cannot do it (NFS, many in user space), and systems that do not know it."""


def exchange(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> None:
    """Let both names change places. OSError as it comes: FileNotFoundError where one is not there, and ``CANNOT``."""
    renameat2 = _renameat2()
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    import ctypes

    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(first), None, os.fspath(second))


@cache
def _renameat2() -> Any:
    """The C library's; None in one that lacks it."""
    import ctypes

    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
