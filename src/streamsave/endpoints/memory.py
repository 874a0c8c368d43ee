"""Memory as a source and a sink: for tests, benchmarks and callers that have the bytes already."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DestinationError, SourceError
from ..types import Buffer


class MemorySource:
    """Reads a buffer, which is borrowed until ``close()``."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data).cast("B")
        self._offset = 0
        self._aborted = False

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        size = self.readinto_at(view, self._offset)
        self._offset += size
        return size

    def readinto_at(self, view: memoryview, offset: int) -> int:
        """See ``RandomSource``."""
        if self._aborted:
            raise SourceError("reading memory was aborted")
        with self._view[offset : offset + len(view)] as part:
            view[: len(part)] = part
            return len(part)

    def abort(self) -> None:
        """See ``Source``."""
        self._aborted = True

    def close(self) -> None:
        """See ``Source``."""
        self._view.release()


class MemorySink:
    """Collects what is written. ``data`` is the result, the caller's."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._aborted = False

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        if self._aborted:
            raise DestinationError("writing memory was aborted")
        for part in parts:
            self.data += part

    def flush(self) -> None:
        """See ``DurableSink``."""

    def abort(self) -> None:
        """See ``Sink``."""
        self._aborted = True

    def close(self) -> None:
        """See ``Sink``."""


class DiscardSink(MemorySink):
    """Counts what is written and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        if self._aborted:
            raise DestinationError("writing was aborted")
        self.size += sum(len(part) for part in parts)
