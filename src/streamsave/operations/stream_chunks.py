"""The chunks of an image's migration stream, one by one and in any order: the three ways to come to them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..codecs.base import Codec, DecodeError
from ..errors import TruncatedImageError
from ..format.index import Index
from ..pipeline.decompress import damage_of
from ..units import KiB
from .image import OpenImage


class Chunks(ABC):
    """The chunks of a stream by their numbers; one behind the end is empty."""

    chunk_size: int

    @abstractmethod
    def decode(self, number: int) -> memoryview:
        """Chunk ``number``, in memory of its own."""

    @abstractmethod
    def stream_size(self) -> int:
        """Bytes in all chunks."""


class _IndexedChunks(Chunks):
    def __init__(self, image: OpenImage, codec: Codec, index: Index) -> None:
        self._image = image
        self._codec = codec
        self._index = index
        self._decoder = codec.decoder()
        self.chunk_size = index.frames.chunk_size

    def decode(self, number: int) -> memoryview:
        frames, info = self._index.frames, self._image.info
        if not 0 <= number < len(frames):
            return memoryview(b"")
        size, offset = frames.sizes[number], info.payload_offset + frames.frame_offset(number)
        frame = self._image.source.read_at(size, offset)
        where = f"{info.path}: the {self._codec.name} payload {{}} in frame {number} at offset {offset}"
        if len(frame) < size:
            raise TruncatedImageError(
                f"{where.format('ends')}: the file ends inside it", path=info.path, offset=offset, frame=number
            )
        try:
            chunk = memoryview(self._decoder.decode(memoryview(frame), memoryview(bytearray(self.chunk_size))))
            if objection := self._index.objection(number, chunk):
                raise DecodeError(objection)
        except DecodeError as error:
            kind, what = damage_of(error)
            raise kind(f"{where.format(what)}: {error}", path=info.path, offset=offset, frame=number) from error
        return chunk

    def stream_size(self) -> int:
        return self._index.frames.stream_size


class _VerbatimChunks(Chunks):
    """Of a payload that is the stream."""

    chunk_size = 64 * KiB

    def __init__(self, image: OpenImage) -> None:
        self._image = image

    def decode(self, number: int) -> memoryview:
        chunk = _read_payload(self._image, self.chunk_size, number * self.chunk_size)
        if len(chunk) < self.chunk_size:
            _check_nothing_is_missing(self._image)
        return memoryview(chunk)

    def stream_size(self) -> int:
        _check_nothing_is_missing(self._image)
        return self._image.info.payload_size


class _Payload:
    """The payload, from its start, for one sequential reader.

    It knows nothing of who holds that reader: python-zstandard's takes no part in garbage collection, and would keep its
    holder, and so itself, for ever.
    """

    def __init__(self, image: OpenImage) -> None:
        self._image = image
        self.position = 0

    def read(self, size: int) -> bytes:
        data = _read_payload(self._image, size, self.position)
        self.position += len(data)
        if size and not data:
            _check_nothing_is_missing(self._image)
        return data


def _read_payload(image: OpenImage, size: int, offset: int) -> bytes:
    """``size`` bytes of the payload, fewer at the end of what is there of it."""
    left = max(0, image.info.payload_size - offset)
    return image.source.read_at(min(size, left), image.info.payload_offset + offset)


def _check_nothing_is_missing(image: OpenImage) -> None:
    """The file was not cut before its payload ends, as far as it tells; or TruncatedImageError."""
    info = image.info
    if info.missing_size:
        raise TruncatedImageError(
            f"{info.path}: the file ends at offset {info.file_size}, {info.missing_size} bytes before the payload does;"
            " copy it again",
            path=info.path,
            offset=info.file_size,
        )


class _SequentialChunks(Chunks):
    """Decodes forwards, and from the start again for what lies behind."""

    def __init__(self, image: OpenImage, codec: Codec) -> None:
        self._image = image
        self._codec = codec
        self.chunk_size = codec.chunk_size
        self._size: int | None = None
        self._rewind()

    def _rewind(self) -> None:
        self._next = 0
        self._payload = _Payload(self._image)
        self._reader = self._codec.stream_reader(self._payload.read)

    def decode(self, number: int) -> memoryview:
        if number < self._next:
            self._rewind()
        chunk = memoryview(b"")
        while self._next <= number and (self._size is None or self._next * self.chunk_size < self._size):
            chunk = self._decode_next()
        return chunk if self._next == number + 1 else memoryview(b"")

    def _decode_next(self) -> memoryview:
        room = memoryview(bytearray(self.chunk_size))
        info = self._image.info
        try:
            size = self._reader.readinto(room)
        except DecodeError as error:
            offset, good_size = info.payload_offset + self._payload.position, self._next * self.chunk_size
            self._rewind()
            kind, what = damage_of(error)
            message = f"{info.path}: the {self._codec.name} payload {what} near offset {offset}: {error}"
            raise kind(message, path=info.path, offset=offset, good_size=good_size) from error
        except BaseException:
            self._rewind()  # a reader that failed in the middle has lost its place
            raise
        if size < self.chunk_size:
            self._size = self._next * self.chunk_size + size
        self._next += 1
        return room[:size]

    def stream_size(self) -> int:
        while self._size is None:
            self._decode_next()
        return self._size


def chunks_of(image: OpenImage, codec: Codec) -> Chunks:
    """The best that the image allows; ``image`` stays the caller's."""
    if image.info.index:
        return _IndexedChunks(image, codec, image.info.index)
    return _VerbatimChunks(image) if codec.verbatim else _SequentialChunks(image, codec)
