"""The guest's memory inside of a saved stream: which page is where, and what is in it.

QEMU sends the pages of a stopped guest in order, and the index knows the first page of every frame: a page then costs one
frame. Where the pages are in no order, or there is no index, the stream is walked once, and 18 bytes are kept per page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from .._native.scan import PageLog, StreamScanner
from ..errors import CorruptImageError, UnsupportedImageError, UsageError
from ..format.migration import PageContents, PageKind, RamBlock, StreamMap
from ..units import MiB

if TYPE_CHECKING:
    from .image_stream import ImageStream

RECORD_HEAD_MAX: Final = 8 + 1 + 255
"""A page record's word and the name of its block."""
CACHED_LOGS: Final = 4


class GuestRam:
    """The RAM in ``stream``, which stays the caller's and open."""

    def __init__(self, stream: ImageStream) -> None:
        index = stream.info.index
        self._stream = stream
        self._pages: _Pages
        if index and index.stream_map.pages_in_order:
            self.map = index.stream_map
            self._pages = _PagesInOrder(stream, index.stream_map)
        else:
            self._pages = _AllPages(stream)
            self.map = self._pages.map
        """What the stream holds."""

    @property
    def blocks(self) -> tuple[RamBlock, ...]:
        """The blocks of RAM, by QEMU's names and with their sizes in bytes."""
        return self.map.ram_blocks

    @property
    def page_size(self) -> int:
        """In bytes."""
        return self.map.page_size

    def locate(self, block: str, offset: int) -> PageContents:
        """Where in the stream the page at ``offset`` of ``block`` is (the last record of it, should there be several).

        Raises:
            UsageError: there is no such block, or it ends before ``offset``.
            CorruptImageError: the stream has no record of that page.

        """
        page = self._pages.find(self._block(block, offset), offset - offset % self.page_size)
        if page is None:
            raise CorruptImageError(
                f"{self._stream.info.path}: the stream has no page at {offset} of {block}", path=self._stream.info.path
            )
        return page

    def read(self, block: str, offset: int, size: int) -> bytes:
        """``size`` bytes of the guest's memory from ``offset`` of ``block``; less only at the block's end.

        Raises:
            UsageError, CorruptImageError: as ``locate``.
            UnsupportedImageError: the stream has a page as a difference only (xbzrle), or compressed by QEMU.

        """
        data = bytearray()
        end = min(offset + size, self.blocks[self._block(block, offset)].size)
        while (at := offset + len(data)) < end:
            inside = at % self.page_size
            step = min(self.page_size - inside, end - at)
            data += self._contents(self.locate(block, at), inside, step)
        return bytes(data)

    def _block(self, name: str, offset: int) -> int:
        """The number of the block, which has to reach beyond ``offset``."""
        for number, block in enumerate(self.blocks):
            if block.name == name and 0 <= offset < block.size:
                return number
        known = ", ".join(f"{block.name} ({block.size} bytes)" for block in self.blocks)
        raise UsageError(f"the guest has no RAM at {offset} of {name}: its blocks are {known}")

    def _contents(self, page: PageContents, inside: int, size: int) -> bytes:
        if page.kind == PageKind.WHOLE:
            return self._stream.read_at(page.stream_offset + inside, size)
        if page.kind == PageKind.REPEATED:
            return self._stream.read_at(page.stream_offset, 1) * size
        raise UnsupportedImageError(
            f"{self._stream.info.path}: the page at {page.page_offset} is in the stream as {page.kind.name.lower()} only",
            path=self._stream.info.path,
        )


class _Pages(ABC):
    """Finds pages by the number of their block and their offset in it."""

    map: StreamMap

    @abstractmethod
    def find(self, block: int, page_offset: int) -> PageContents | None:
        """The page's record; None: the stream has none."""


class _PagesInOrder(_Pages):
    """Through the index: the frame in which the page has to be, and in it the page."""

    def __init__(self, stream: ImageStream, stream_map: StreamMap) -> None:
        self.map = stream_map
        self._stream = stream
        self._ram_id = int.from_bytes(stream.read_at(stream_map.ram_offset + 1, 4), "big")
        self._logs: OrderedDict[tuple[int, int], PageLog] = OrderedDict()

    def find(self, block: int, page_offset: int) -> PageContents | None:
        index = self._stream.info.index
        assert index, "pages are in order only where an index says so"
        frame = index.first_records.frame_before(block, page_offset)
        if frame < 0:
            return None
        for beyond in (0, RECORD_HEAD_MAX):  # the head of its last record may end in the next frame
            log = self._log(frame, beyond)
            at = bisect_left(log, (block, page_offset))
            if at < len(log) and log[at][:2] == (block, page_offset):
                return log[at]
        return None

    def _log(self, frame: int, beyond: int) -> PageLog:
        log = self._logs.pop((frame, beyond), None)
        if log is None:
            log = self._walk(frame, beyond)
        self._logs[frame, beyond] = log
        if len(self._logs) > CACHED_LOGS:
            self._logs.popitem(last=False)
        return log

    def _walk(self, frame: int, beyond: int) -> PageLog:
        """The page records whose heads begin in ``frame``, and end at most ``beyond`` bytes behind it."""
        index = self._stream.info.index
        assert index, "pages are in order only where an index says so"
        chunk_size = index.frames.chunk_size
        record = index.first_records.of_frame(frame, frame * chunk_size)
        assert record, "frame_before() stops at frames with a record"
        scanner = StreamScanner.resumed(self.map, self._ram_id, record)
        size = (frame + 1) * chunk_size - record.stream_offset + beyond
        return scanner.feed_logging(self._stream.read_at(record.stream_offset, size))


class _AllPages(_Pages):
    """By a walk through the whole stream."""

    def __init__(self, stream: ImageStream) -> None:
        self._pages, self._offsets, self._kinds = array("Q"), array("Q"), array("H")
        scanner = StreamScanner()
        for piece in _pieces(stream):
            for page in scanner.feed_logging(piece):
                if page.block >= 0:
                    self._pages.append(_key(page.block, page.page_offset))
                    self._offsets.append(page.stream_offset)
                    self._kinds.append(page.kind)
        self.map = scanner.map()
        if not self.map.pages_in_order:  # stable, so that the last record of a page is the last
            order = sorted(range(len(self._pages)), key=self._pages.__getitem__)
            for name in ("_pages", "_offsets", "_kinds"):
                numbers: array[int] = getattr(self, name)
                setattr(self, name, array(numbers.typecode, (numbers[each] for each in order)))

    def find(self, block: int, page_offset: int) -> PageContents | None:
        at = bisect_right(self._pages, _key(block, page_offset)) - 1
        if at < 0 or self._pages[at] != _key(block, page_offset):
            return None
        return PageContents(block, page_offset, self._offsets[at], PageKind(self._kinds[at]))


def _key(block: int, page_offset: int) -> int:
    return block << 52 | page_offset >> 12


def _pieces(stream: ImageStream) -> Iterator[bytes]:
    offset = 0
    while piece := stream.read_at(offset, MiB):
        yield piece
        offset += len(piece)
