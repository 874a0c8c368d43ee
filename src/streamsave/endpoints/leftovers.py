"""What killed saves leave behind: unfinished files, which the next save to the same path finds and removes.

A save locks its temporary file, and its guardian inherits the lock with the descriptor. So a file that is not locked is
nobody's any more, whatever became of its process and wherever that ran. Nothing else decides: no age, no process id.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from ..format.header import MAGIC_PARTIAL, MAGIC_SIZE, OWN_MAGIC_PARTIAL

TEMPORARY_SUFFIX = ".streamsave-partial"
NAME_LENGTH = 48
"""Of the destination's name in a temporary one: 48 characters have up to 192 bytes, and a name up to 255."""

_logger = logging.getLogger("streamsave.leftovers")


def temporary_name(path: Path) -> Path:
    """A new name beside ``path``, for what is to become ``path``."""
    return path.with_name(f".{path.name[:NAME_LENGTH]}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def try_lock(fd: int) -> bool | None:
    """Lock the file until the last duplicate of ``fd`` is closed; False: somebody else has it. None: it cannot be locked."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno == errno.EWOULDBLOCK else None
    return True


def remove_leftovers(path: Path) -> None:
    """Remove the unfinished images of ``path`` that belong to nobody. Raises nothing: a save does not depend on it.

    An image that is complete but never got its name stays: it may be all that is left of a guest.
    """
    name = re.compile(rf"\.{re.escape(path.name[:NAME_LENGTH])}\.[0-9a-f]{{16}}{re.escape(TEMPORARY_SUFFIX)}")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with suppress(OSError):
                    _remove(path.with_name(entry.name))


def _remove(path: Path) -> None:
    """Remove it if it is an unfinished image of this user's and of no process."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or not try_lock(fd):
            return
        if not os.path.samestat(status, os.lstat(path)):
            return
        magic = os.pread(fd, MAGIC_SIZE, 0)
        if magic and magic not in (MAGIC_PARTIAL, OWN_MAGIC_PARTIAL):
            _logger.warning("%s: an image that never got its name; look at it with streamsave info", path)
            return
        os.unlink(path)
        _logger.info("%s: removed, its save was killed", path)
    finally:
        os.close(fd)
