"""Calls of Linux that Python has no function for: the C library's, if it knows them."""

from __future__ import annotations

import errno
from functools import cache
from typing import Any


@cache
def function(name: str) -> Any:
    """The C library's; None in one that lacks it. What is no ``int`` has to be passed as its type of ``ctypes``."""
    import ctypes

    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


def error_of(call: Any, *arguments: Any) -> int:
    """The error number that ``call`` ends with; 0: none, ENOSYS: it is None."""
    if call is None:
        return errno.ENOSYS
    import ctypes

    return ctypes.get_errno() if call(*arguments) else 0
