"""The frames of a payload: how large each is and which part of the stream it holds, as one packed array.

A guest of 1 TiB has a million frames, so there is no object per frame: four bytes each, and offsets by adding up.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from ..types import Buffer


class FrameTable:
    """Frames back to back, each of one chunk of ``chunk_size`` bytes but for the last, which may be shorter.

    ``sizes`` are those of the compressed frames in bytes (below 4 GiB each). Whoever writes appends to ``sizes`` and says in
    the end how large the stream was.
    """

    def __init__(self, chunk_size: int, *, payload_start: int = 0, stream_size: int = 0, sizes: Buffer = b"") -> None:
        """``payload_start``: where the first frame starts in the payload. ``sizes``: packed u32, little-endian."""
        self.chunk_size = chunk_size
        self.payload_start = payload_start
        self.stream_size = stream_size
        self.sizes = array("I")
        self.sizes.frombytes(sizes)
        if sys.byteorder == "big":
            self.sizes.byteswap()
        self._offsets: array[int] | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def payload_end(self) -> int:
        """Where the last frame ends in the payload."""
        return self.payload_start + sum(self.sizes)

    def chunk_size_of(self, number: int) -> int:
        """How many bytes of the stream frame ``number`` holds."""
        return min(self.chunk_size, self.stream_size - number * self.chunk_size)

    def frame_at(self, stream_offset: int) -> int:
        """The number of the frame that holds ``stream_offset``."""
        return stream_offset // self.chunk_size

    def frame_offset(self, number: int) -> int:
        """Where frame ``number`` starts in the payload. The first call adds up all sizes, 8 bytes of memory a frame."""
        return self._starts()[number]

    def frame_of_payload(self, payload_offset: int) -> int:
        """The number of the frame that ``payload_offset`` is in."""
        return bisect_right(self._starts(), payload_offset) - 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The size of each frame and of its chunk, in order."""
        return ((size, self.chunk_size_of(number)) for number, size in enumerate(self.sizes))

    def packed(self) -> bytes:
        """The sizes as u32, little-endian."""
        sizes = self.sizes
        if sys.byteorder == "big":
            sizes = sizes[:]
            sizes.byteswap()
        return sizes.tobytes()

    def _starts(self) -> array[int]:
        if self._offsets is None or len(self._offsets) != len(self.sizes) + 1:
            self._offsets = array("Q", accumulate(self.sizes, initial=self.payload_start))
        return self._offsets
