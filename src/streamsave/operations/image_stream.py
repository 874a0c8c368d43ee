"""An image's migration stream as a file: seekable, decompressed where it is read and nowhere else.

Through the index a read decodes the one or two frames that it touches, held against their digests. An image without an index
is decoded from its start, and again from there when somebody seeks back, which costs time, never memory. A raw one is read.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..errors import UsageError
from .image import ImageInfo, OpenImage
from .stream_chunks import chunks_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from .guest_ram import GuestRam

CACHED_CHUNKS = 4
"""How many decoded chunks a stream keeps: reads near one another decode a frame once."""


def open_stream(image: str | Path) -> ImageStream:
    """The decompressed migration stream of ``image``, to be read at any place; close it, or use it in a ``with``.

    Raises:
        IncompleteImageError, UnsupportedImageError, NotAnImageError, TruncatedImageError, SourceError: it cannot be read.

    """
    opened = OpenImage(image)
    try:
        return ImageStream(opened)
    except BaseException:
        opened.source.close()
        raise


class ImageStream(io.RawIOBase):
    """A readable, seekable binary file of the stream's bytes. Any thread may call; calls wait for one another.

    ``read`` and ``readinto`` give all that is asked for, less only at the end. They raise ``CorruptImageError`` and
    ``TruncatedImageError`` with frame and offset where the image is damaged, and ``SourceError`` where it cannot be read.
    Without an index damage may show only later: a codec's checksum stands behind what it covers. ``verify`` reads it all.
    Memory: ``CACHED_CHUNKS`` chunks and as many frames, whatever the size of the guest.
    """

    def __init__(self, image: OpenImage) -> None:
        """Owns ``image``."""
        super().__init__()
        codec = image.codec()
        self._image = image
        self._chunks = chunks_of(image, codec)
        self._cache: OrderedDict[int, memoryview] = OrderedDict()
        self._lock = threading.RLock()
        self._position = 0
        self._ram: GuestRam | None = None

    @property
    def info(self) -> ImageInfo:
        """What the image says of itself."""
        return self._image.info

    @property
    def size(self) -> int:
        """Of the stream, in bytes. Without an index all of it is decoded to tell."""
        with self._lock:
            return self._chunks.stream_size()

    @property
    def ram(self) -> GuestRam:
        """The guest's memory in the stream: any page, by its block and offset."""
        from .guest_ram import GuestRam

        with self._lock:
            if self._ram is None:
                self._ram = GuestRam(self)
            return self._ram

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` of the stream, less only at its end. The file's position stays."""
        data = bytearray(size)
        with memoryview(data) as view:
            return bytes(view[: self._fill(view, offset)])

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` from the file's position; the number of bytes, short only at the end."""
        with memoryview(buffer).cast("B") as view, self._lock:
            size = self._fill(view, self._position)
            self._position += size
            return size

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes, or all that are left."""
        return self.readall() if size is None or size < 0 else super().read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to ``offset`` from the start, the position or the end; the new position."""
        with self._lock:
            if whence == os.SEEK_CUR:
                offset += self._position
            elif whence == os.SEEK_END:
                offset += self.size
            if offset < 0:
                raise UsageError(f"cannot seek to {offset}, before the start of the stream")
            self._position = offset
            return self._position

    def tell(self) -> int:
        """The file's position."""
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Close the image. May be called twice."""
        self._image.source.close()
        self._cache.clear()
        super().close()

    def _fill(self, view: memoryview, offset: int) -> int:
        if self.closed:
            raise ValueError("the stream is closed")
        have, chunk_size = 0, self._chunks.chunk_size
        with self._lock:
            while have < len(view):
                number, start = divmod(offset + have, chunk_size)
                piece = self._chunk(number)[start : start + len(view) - have]
                if not piece:
                    break
                view[have : have + len(piece)] = piece
                have += len(piece)
        return have

    def _chunk(self, number: int) -> memoryview:
        chunk = self._cache.pop(number, None)
        if chunk is None:
            chunk = self._chunks.decode(number)
        self._cache[number] = chunk
        if len(self._cache) > CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return chunk

    def __enter__(self) -> Self:
        return self
