"""Endpoints that fail at a chosen moment, or are slow, for tests.

They are shipped, so that whoever builds on the pipeline can use them too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic

from ..errors import DestinationError, SourceError
from ..types import Buffer, DurableSink, RandomSource, Sink, Source


class FailingSource:
    """Passes ``source`` on until ``fail_after`` bytes were read, then raises ``SourceError``."""

    def __init__(self, source: Source, fail_after: int) -> None:
        self._source = source
        self._left = fail_after

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        if self._left < len(view):
            raise SourceError("injected: the source broke")
        self._left -= len(view)
        return self._source.readinto(view)

    def abort(self) -> None:
        """See ``Source``."""
        self._source.abort()

    def close(self) -> None:
        """See ``Source``."""
        self._source.close()


class FailingRandomSource(FailingSource):
    """The same for ``source``, any part of which can be had: what begins before ``fail_after`` is there, and no more."""

    def __init__(self, source: RandomSource, fail_after: int) -> None:
        super().__init__(source, fail_after)
        self._random = source
        self._fail_after = fail_after

    def readinto_at(self, view: memoryview, offset: int) -> int:
        """See ``RandomSource``."""
        if offset >= self._fail_after:
            raise SourceError("injected: the source broke")
        return self._random.readinto_at(view, offset)


class FailingSink:
    """Passes on to ``sink`` until ``fail_after`` bytes were written, then raises ``DestinationError``: a full disk."""

    def __init__(self, sink: Sink, fail_after: int) -> None:
        self._sink = sink
        self._left = fail_after

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        self._left -= sum(len(part) for part in parts)
        if self._left < 0:
            raise DestinationError("injected: the disk is full")
        self._sink.write(parts)

    def flush(self) -> None:
        """See ``DurableSink``."""

    def abort(self) -> None:
        """See ``Sink``."""
        self._sink.abort()

    def close(self) -> None:
        """See ``Sink``."""
        self._sink.close()


class StalledSink:
    """Blocks in ``write`` until ``release()`` or ``abort()``, as a slow disk or a peer that does not read."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._go = threading.Event()
        self.entered = threading.Event()
        self._aborted = False

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        self.entered.set()
        self._go.wait()
        if self._aborted:
            raise DestinationError("injected: writing was aborted")
        self._sink.write(parts)

    def flush(self) -> None:
        """See ``DurableSink``."""

    def release(self) -> None:
        """Let the writes go on."""
        self._go.set()

    def abort(self) -> None:
        """See ``Sink``."""
        self._aborted = True
        self._go.set()

    def close(self) -> None:
        """See ``Sink``."""
        self._sink.close()


class _Throttle:
    """Lets ``rate`` bytes pass in a second; ``rate`` may be changed at any time."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._ready_s = 0.0
        self._aborted = threading.Event()

    def _pass(self, size: int) -> bool:
        """Wait until ``size`` bytes may have passed; False after ``abort()``."""
        self._ready_s = max(self._ready_s, monotonic()) + size / self.rate
        return not self._aborted.wait(max(0.0, self._ready_s - monotonic()))


class ThrottledSource(_Throttle):
    """Passes ``source`` on, ``rate`` bytes a second: a guest that is slow to send."""

    def __init__(self, source: Source, rate: float) -> None:
        super().__init__(rate)
        self._source = source

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        got = self._source.readinto(view)
        if not self._pass(got):
            raise SourceError("injected: reading was aborted")
        return got

    def abort(self) -> None:
        """See ``Source``."""
        self._aborted.set()
        self._source.abort()

    def close(self) -> None:
        """See ``Source``."""
        self._source.close()


class ThrottledSink(_Throttle):
    """Passes on to ``sink``, ``rate`` bytes a second: a slow disk."""

    def __init__(self, sink: DurableSink, rate: float) -> None:
        super().__init__(rate)
        self._sink = sink

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        if not self._pass(sum(len(part) for part in parts)):
            raise DestinationError("injected: writing was aborted")
        self._sink.write(parts)

    def flush(self) -> None:
        """See ``DurableSink``."""
        self._sink.flush()

    def abort(self) -> None:
        """See ``Sink``."""
        self._aborted.set()
        self._sink.abort()

    def close(self) -> None:
        """See ``Sink``."""
        self._sink.close()
