"""A save image that arrives through a descriptor, once and in order: from a pipe, a socket, standard input.

The header's pointer says where the payload ends, and the index behind it comes too late to help with the decoding. It is
read in the end, for what was decoded to be held against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from ..cancel import Cancellation
from ..codecs.base import Codec
from ..endpoints.descriptor import DescriptorSource, name_of
from ..endpoints.limited import LimitedSource
from ..errors import ImageError, SourceError
from ..format.index import DamagedIndexError, IndexPointer, parse_pointer
from ..types import Source
from .image import ImageReader, take
from .image_index import FoundIndex, index_at


class PipedImage(ImageReader):
    """An image that is read from ``fd``, which stays the caller's. Sizes that only its end will tell are 0."""

    def __init__(self, fd: int, cancel: Cancellation) -> None:
        """Raises what ``read_info`` does, and what ``cancel`` was ended with."""
        self.path = name_of(fd)
        try:
            self._source = DescriptorSource(fd)
        except OSError as error:
            raise SourceError(f"descriptor {fd} cannot be read: {error}") from error
        try:
            with self._waking(cancel):
                header, metadata = self._read_head(self._source)
        except ImageError as error:
            self._source.close()
            self.named(error)
            raise
        except BaseException:
            self._source.close()
            raise
        self._pointer: IndexPointer | None = None
        problem = ""
        try:
            self._pointer = parse_pointer(header.pointer)
        except DamagedIndexError as error:
            problem = str(error)
        payload_size = self._pointer.offset if self._pointer else 0
        self.info = self._describe(header, metadata, FoundIndex(payload_size, problem=problem), file_size=0)
        self.payload: Source = LimitedSource(self._source, payload_size) if self._pointer else self._source

    def read_index(self, codec: Codec, cancel: Cancellation) -> FoundIndex:
        """The index, once all of the payload was read."""
        pointer = self._pointer
        if pointer is None:
            return FoundIndex(0, problem=self.info.index_problem)
        with self._waking(cancel):
            return index_at(pointer, codec, lambda: take(self._source, pointer.size))

    @contextmanager
    def _waking(self, cancel: Cancellation) -> Iterator[None]:
        """Whatever is read inside ends with ``cancel``."""
        with cancel.waking(lambda _error: self._source.abort()):
            try:
                yield
            except SourceError:
                cancel.check()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.close()
