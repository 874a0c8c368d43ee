"""A new image that goes into a pipe: there is no second look at its header, so that is complete from the start.

Whether all of it arrived is for the reader to see, by the end of the migration stream and by the index behind it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import DestinationError
from ..types import Buffer
from .descriptor import DescriptorSink


class ImagePipe(DescriptorSink):
    """Writes a save image to ``fd``, which stays the caller's, in the order in which it will be read.

    Raises:
        DestinationError: ``fd`` is no open descriptor, or cannot be written.

    """

    def __init__(self, fd: int, head: bytes) -> None:
        """``head``: the complete header and the metadata. Goes out with the first write: nobody may be reading yet."""
        try:
            super().__init__(fd)
        except OSError as error:
            raise DestinationError(f"descriptor {fd} cannot be written: {error}") from error
        self.path = Path(f"/dev/fd/{fd}")
        self.size = 0
        """Bytes written so far, head included."""
        self._head = head

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        head, self._head = self._head, b""
        parts = [head, *parts]
        super().write(parts)
        self.size += sum(len(part) for part in parts)

    def flush(self) -> None:
        """See ``DurableSink``: where it is a file, after all."""
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fsync(self._fd)
        except OSError as error:
            raise DestinationError(f"{self.path}: cannot make the image durable: {error}", path=self.path) from error

    def commit(self, header: bytes, partial: bytes) -> None:
        """All is written."""

    def discard(self) -> None:
        """Close what is ours; what was written is with the reader."""
        self.close()
