"""What a file's page cache holds on its way to the disk: begun early, and waited for (``sync_file_range`` of Linux)."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from typing import Any, Final

from . import libc

_WAIT: Final = 1 | 2 | 4
"""SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER of <linux/fs.h>."""
_CANNOT: Final = frozenset({errno.ESPIPE, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What files answer that have no disk behind them, and systems that do not know the call."""


def begin_writeback(fd: int, offset: int, size: int) -> None:
    """Let the system begin to write what is dirty in that range; it is dropped from the cache later on. Never waits."""
    with suppress(OSError):  # advice
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)


def wait_for_writeback(fd: int, offset: int, size: int) -> None:
    """Wait until nothing in that range (never empty) is dirty any more. Not durable: metadata and disk caches come last.

    Raises:
        OSError: writing failed. Nobody else will be told: the system reports such an error once for each open file.

    """
    number = libc.error_of(_sync_file_range(), fd, ctypes.c_int64(offset), ctypes.c_int64(size), _WAIT)
    if number and number not in _CANNOT:
        raise OSError(number, os.strerror(number))


def _sync_file_range() -> Any:
    """In a function of its own, so that another one can stand for it."""
    return libc.function("sync_file_range")
