"""A new image that goes into a pipe: there is no second look at its header, so that is complete from the start.

Whether all of it arrived is for the reader to see, by the end of the migration stream and by the index behind it, and known
to us: an operation that succeeds has written all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import DestinationError
from ..types import Buffer
from .descriptor import DescriptorSink, name_of
from .image_sink import ImageSink


class ImagePipe(ImageSink):
    """Writes a save image to ``fd``, which stays the caller's, in the order in which it will be read.

    Raises:
        DestinationError: ``fd`` is no open descriptor, or cannot be written.

    """

    kind = "piped"

    def __init__(self, fd: int, head: bytes, path: Path | None = None) -> None:
        """``head``: the complete header and the metadata. Goes out with the first write: nobody may be reading yet."""
        super().__init__(path or name_of(fd), -1)
        try:
            self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            self._sink = DescriptorSink(fd)
        except OSError as error:
            raise DestinationError(f"descriptor {fd} cannot be written: {error}") from error
        self._head = head

    def bypass_cache(self) -> None:
        """There is none in front of a pipe."""
        self.notes.append("the page cache was not bypassed: the image goes into a pipe")

    def sync(self) -> None:
        """What was written is with the reader."""

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        head, self._head = self._head, b""
        parts = [head, *parts]
        try:
            self._sink.write(parts)
        except DestinationError as error:
            raise DestinationError(f"{self.path}: {error}; is there still somebody who reads it?", path=self.path) from error
        self.size += sum(len(part) for part in parts)

    def flush(self) -> None:
        """See ``DurableSink``: where it is a file, after all."""
        try:
            if self._is_file:
                os.fsync(self._sink.fileno())
        except OSError as error:
            raise self._cannot("make the image durable", error) from error

    def commit(self, header: bytes, partial: bytes) -> None:  # noqa: ARG002 - all of it is written
        """Everything is on its way; from here on it counts."""
        try:
            self._begin_naming()
        except OSError as error:
            raise self._cannot("finish the image", error) from error
        self.committed = True

    def discard(self) -> None:
        """Close what is ours; what was written is with the reader."""
        self._sink.close()

    def abort(self) -> None:
        """See ``Sink``."""
        super().abort()
        self._sink.abort()

    def close(self) -> None:
        """See ``Sink``."""
        self._sink.close()
