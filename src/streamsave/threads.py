"""Threads that are refused: one error for all of them."""

from __future__ import annotations

import threading

from .errors import ResourceError


def start(thread: threading.Thread, what: str) -> None:
    """Start ``thread``, which is ``what``, as in "the commit".

    Raises:
        ResourceError: the system gives this process no more threads.

    """
    try:
        thread.start()
    except RuntimeError as error:
        raise ResourceError(f"cannot start a thread for {what} ({error}): raise the limit on processes") from error
