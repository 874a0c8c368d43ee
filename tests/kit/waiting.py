"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(look: Callable[[], Any], *, timeout_s: float = 5.0, what: str = "it") -> float:
    """Wait until ``look()`` is true, and return how long that took."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > timeout_s:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.01)
    return time.monotonic() - began
