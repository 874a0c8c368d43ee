"""The first part of a source: a payload that ends before its file does."""

from __future__ import annotations

from ..types import Source


class LimitedSource:
    """``size`` bytes of ``source`` at most, from where it stands. Borrows it."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._left = size

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        got = self._source.readinto(view[: self._left])
        self._left -= got
        return got

    def abort(self) -> None:
        """See ``Source``."""
        self._source.abort()

    def close(self) -> None:
        """See ``Source``; whoever owns the whole source closes it."""
