"""Where in a stream a page of the guest is: the first page record of every frame, as packed arrays.

QEMU sends the pages of a stopped guest in order, so the frame of any page is found by a binary search, and only that frame
has to be decoded and walked. Twelve bytes a frame.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from typing import Final

from ..types import Buffer
from .migration import PageRecord

_NONE: Final = 0xFFFFFFFF
_PAGE_BITS: Final = 12
"""Page offsets are multiples of 4096 at least."""
_BLOCK_SHIFT: Final = 48


class FirstRecords:
    """For each frame: where in its chunk the first page record begins, and which page it is of.

    A frame in which none begins repeats the page of the one before, so that ``pages`` never falls while the stream's do not.
    """

    def __init__(self) -> None:
        self._offsets = array("I")
        self._pages = array("Q")

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, chunk_offset: int, record: PageRecord | None) -> None:
        """The next frame's: ``chunk_offset`` is where its chunk begins in the stream."""
        page = record.page_offset >> _PAGE_BITS if record else 0
        if record is None or record.block < 0 or page >> _BLOCK_SHIFT:
            self._offsets.append(_NONE)
            self._pages.append(self._pages[-1] if self._pages else 0)
        else:
            self._offsets.append(record.stream_offset - chunk_offset)
            self._pages.append(record.block << _BLOCK_SHIFT | page)

    def of_frame(self, number: int, chunk_offset: int) -> PageRecord | None:
        """What frame ``number`` got; None: no record begins in it."""
        offset, page = self._offsets[number], self._pages[number]
        if offset == _NONE:
            return None
        return PageRecord(chunk_offset + offset, page >> _BLOCK_SHIFT, (page & (1 << _BLOCK_SHIFT) - 1) << _PAGE_BITS)

    def frame_before(self, block: int, page_offset: int) -> int:
        """The last frame whose first record is of that page or an earlier one; -1: there is none.

        Only if the pages come in order (``StreamMap.pages_in_order``): the page's record begins in that frame, or nowhere.
        """
        number = bisect_right(self._pages, block << _BLOCK_SHIFT | page_offset >> _PAGE_BITS) - 1
        while number >= 0 and self._offsets[number] == _NONE:
            number -= 1
        return number

    def packed(self) -> bytes:
        """u32 each, then u64 each, little-endian."""
        return _little(self._offsets) + _little(self._pages)

    @classmethod
    def unpack(cls, data: Buffer) -> FirstRecords:
        """What ``packed`` made. ValueError: of no whole number of frames."""
        count, rest = divmod(len(data), 12)
        if rest:
            raise ValueError(f"{len(data)} bytes of first page records")
        records = cls()
        records._offsets.frombytes(memoryview(data)[: 4 * count])
        records._pages.frombytes(memoryview(data)[4 * count :])
        if sys.byteorder == "big":
            records._offsets.byteswap()
            records._pages.byteswap()
        return records


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()
