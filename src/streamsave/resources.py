"""What the system may refuse this process: threads and descriptors. One error for all of them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ResourceError


def start(thread: threading.Thread, what: str) -> None:
    """Start ``thread``, which is for ``what``, as in "the commit".

    Raises:
        ResourceError: the system gives this process no more threads.

    """
    try:
        thread.start()
    except RuntimeError as error:
        raise ResourceError(
            f"cannot start a thread for {what} ({error}): raise the limit on processes, or use fewer threads"
        ) from error


@contextmanager
def descriptors(what: str) -> Iterator[None]:
    """Inside, descriptors are opened for ``what``.

    Raises:
        ResourceError: there are no more of them. Any other OSError comes as it is.

    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise ResourceError(
            f"no descriptor is left for {what} ({error.strerror}): raise the limit on open files (ulimit -n)"
        ) from error
