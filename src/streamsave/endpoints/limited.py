"""Part of a source: a payload that ends before its file does."""

from __future__ import annotations

from ..types import RandomSource, Source


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


class SourcePart:
    """``size`` bytes of ``source`` from ``start``. A ``RandomSource`` too; borrows the other, whose position stays."""

    def __init__(self, source: RandomSource, start: int, size: int) -> None:
        self._source = source
        self._start = start
        self._size = size
        self._position = 0

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        got = self.readinto_at(view, self._position)
        self._position += got
        return got

    def readinto_at(self, view: memoryview, offset: int) -> int:
        """See ``RandomSource``."""
        return self._source.readinto_at(view[: max(0, self._size - offset)], self._start + offset)

    def abort(self) -> None:
        """See ``Source``."""
        self._source.abort()

    def close(self) -> None:
        """See ``Source``; whoever owns the whole source closes it."""
