"""The payload of an image in libvirt's format sparse, as the stream that its guest would have in every other format."""

from __future__ import annotations

from ..endpoints.file import FileSource
from ..errors import ImageError
from ..format.mapped_ram import plain_stream
from .image import OpenImage


class SparsePayload:
    """A ``Source`` of the plain stream in ``image``, whose file it borrows. Raises ``ImageError`` too where it is read."""

    def __init__(self, image: OpenImage) -> None:
        self._image = image
        self._source: FileSource = image.source
        self._parts = plain_stream(image.source.read_at, image.info.payload_offset, image.info.file_size)
        self._part = memoryview(b"")

    def readinto(self, view: memoryview) -> int:
        """See ``Source``."""
        have = 0
        while have < len(view):
            if not self._part:
                try:
                    self._part = memoryview(next(self._parts, b""))
                except ImageError as error:
                    raise self._image.named(error) from error.__cause__
                if not self._part:
                    break
            taken = self._part[: len(view) - have]
            view[have : have + len(taken)] = taken
            have += len(taken)
            self._part = self._part[len(taken) :]
        return have

    def abort(self) -> None:
        """See ``Source``."""
        self._source.abort()

    def close(self) -> None:
        """See ``Source``; the file is the image's."""
