"""An image's header, metadata and stream into pipes that libvirt opens as one save image, as often as it likes.

libvirt 9.0 opens the image once; 11.3 looks at the header and the metadata first, closes it, and opens it again. What this
daemon does is seen, not known: a pipe of one page cannot take the header, the metadata and two pages of the stream before
somebody has read from the stream. If the reader goes before, it only had a look, and everything is offered again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from ..endpoints.pipe import PAGE_SIZE, PIPE_SIZE, PipeSink
from ..errors import DestinationError
from ..types import Buffer
from .passage import Passage

PROOF_SIZE: Final = 2 * PAGE_SIZE
"""So much of the stream goes with the header and the metadata: some of it has to be read before all of it is written."""


class ImageOffer:
    """A ``Sink`` for the stream. ``head`` goes in front of it: header and metadata, more than two pages."""

    def __init__(self, passage: Passage, head: bytes) -> None:
        self.looks = 0
        """How often the daemon had a look before it read the stream."""
        self._passage = passage
        self._head = head
        self._held = bytearray()
        self._flowing = False
        self._lock = threading.Lock()
        self._aborted = False
        self._offered = passage.next_pipe()
        self._sink: PipeSink | None = None

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``. The first bytes are kept until it is certain that they are read."""
        if self._flowing and self._sink:
            self._sink.write(parts)
            return
        for part in parts:
            self._held += part
        if len(self._held) >= PROOF_SIZE:
            self._begin()

    def finish(self) -> None:
        """The stream is complete: its reader gets the end."""
        if not self._flowing:
            self._begin()
        self.close()

    def abort(self) -> None:
        """See ``Sink``. Also whoever opens the path only now reads to the end at once."""
        with self._lock:
            self._aborted = True
            self._offered.close_writer()
            if self._sink:
                self._sink.abort()

    def wake_opener(self) -> None:
        """See ``Pipe.wake_opener``."""
        self._offered.wake_opener()

    def close(self) -> None:
        """See ``Sink``."""
        self._offered.close()
        if self._sink:
            self._sink.close()

    def _begin(self) -> None:
        """Offer the image until somebody reads from its stream."""
        while not (sink := self._offer()):
            self.looks += 1
        sink.resize(PIPE_SIZE)
        with memoryview(self._held) as held:
            sink.write([held[PROOF_SIZE:]])
        self._held = bytearray()
        self._flowing = True

    def _offer(self) -> PipeSink | None:
        """One opening of the path: where the stream goes on, or None if its reader only had a look."""
        pipe, sink = self._offered, self._next_sink()
        with memoryview(self._head) as head, memoryview(self._held) as held:
            sink.write([head[:PROOF_SIZE]])  # its first page was read then, so the path is open
            self._offered = self._passage.next_pipe()
            pipe.close()
            try:
                sink.write([head[PROOF_SIZE:], held[:PROOF_SIZE]])
            except DestinationError as error:
                if isinstance(error.__cause__, BrokenPipeError):
                    return None
                raise
        return sink

    def _next_sink(self) -> PipeSink:
        with self._lock:
            if self._aborted:
                raise DestinationError("offering the stream to libvirt was aborted")
            if self._sink:
                self._sink.close()
            self._sink = PipeSink(self._offered.take_writer())
            self._sink.resize(PAGE_SIZE)
            return self._sink
