"""A bzip2 block that does not decode alone, put together from what follows it; libbz2 says when it is complete."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

from .._native.bits import copy_bits
from ..types import Buffer
from ..units import MiB
from .base import DecodeError

_OUTPUT_SIZE: Final = 1 * MiB


class Joint:
    """One block out of several pieces, or of one that decodes to more than a worker has room for."""

    def __init__(self, head: bytes, checksum: int) -> None:
        from bz2 import BZ2Decompressor

        self.checksum = checksum
        self._has_output = False
        """Then all of the block is here: undoing the transform takes all of it."""
        self._decompressor = BZ2Decompressor()
        self._decompressor.decompress(head)
        self._last = 0
        """The byte that the last bits, ``_filled`` of them, begin."""
        self._filled = 0

    def feed(self, data: Buffer, start: int, count: int) -> Generator[Buffer, None, bool]:
        """Give what the block decodes to, once the next ``count`` bits make it complete, from bit ``start`` of ``data``.

        The result is whether they are none of its bits, because it was over before.

        Raises:
            DecodeError: damaged.

        """
        to_fill = min(-self._filled % 8, count)
        yield from self._decode(data, start, to_fill)
        if self._has_output:
            return True
        yield from self._decode(data, start + to_fill, count - to_fill)
        if self._decompressor.eof:
            raise DecodeError("a bzip2 stream ends inside a block")
        return False

    def _decode(self, data: Buffer, start: int, count: int) -> Iterator[Buffer]:
        """Whole bytes; what is left of the bits has to wait."""
        buffer = bytearray((self._filled + count + 7) // 8 + 1)
        buffer[0] = self._last
        copy_bits(buffer, self._filled, data, start, count)
        whole, self._filled = divmod(self._filled + count, 8)
        self._last = buffer[whole]
        try:
            chunk = self._decompressor.decompress(buffer[:whole], _OUTPUT_SIZE) if whole else b""
            while chunk:
                self._has_output = True
                yield chunk
                # Not by needs_input: it is set when the input is used up, whatever is to come.
                chunk = b"" if self._decompressor.eof else self._decompressor.decompress(b"", _OUTPUT_SIZE)
        except OSError as error:
            raise DecodeError("the bzip2 stream is damaged: its data or a checksum is wrong") from error
