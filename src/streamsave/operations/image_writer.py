"""Save images that are written: begun with a partial header, finished with a complete one. ``image`` reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

from ..cancel import Cancellation
from ..codecs.base import Codec
from ..endpoints.image_sink import ImageSink
from ..format.description import parse_description
from ..format.frames import FrameTable
from ..format.header import MAGIC_SIZE, Header, encode_header, unused_field
from ..format.index import IMAGE_ID_SIZE, Index, IndexPointer, encode_index, encode_pointer
from ..format.levels import LevelUse
from ..format.metadata import Metadata, digest_of, encode_metadata
from ..format.migration import StreamMap
from ..format.pages import FirstRecords
from ..format.save_format import oldest_libvirt
from ..options import CompressOptions
from ..types import ImageFile
from .destination import Destination, adjusted, open_destination

FileT = TypeVar("FileT", bound=ImageFile)


class ImageWriter(Generic[FileT]):
    """A new image: begun with a partial header, finished with a complete one. A context manager that discards otherwise."""

    def __init__(
        self,
        create: Callable[[bytes], FileT],
        codec: Codec,
        metadata: Metadata,
        *,
        was_running: bool,
        at_once: bool = False,
    ) -> None:
        """``create`` makes the file with its head. ``at_once``: that is the only time at which the header can be written.

        Raises:
            DestinationError: nothing is left behind then.

        """
        self._codec = codec
        self._metadata = metadata
        self._at_once = at_once
        self._pointer: IndexPointer | None = None
        self.oldest_libvirt = "" if codec.number is None else oldest_libvirt(codec.number)
        self.needs_xml = parse_description(metadata.xml) is not None
        data, cookie_offset = encode_metadata(metadata)
        self._partial = Header(
            complete=False,
            data_size=len(data),
            was_running=was_running,
            format=codec.number or 0,
            cookie_offset=cookie_offset,
            own=codec.number is None,
            unused=unused_field(own_name=codec.name if codec.number is None else ""),
        )
        self.magics = encode_header(self._partial)[:MAGIC_SIZE], encode_header(self._complete())[:MAGIC_SIZE]
        """Of the partial and of the complete image."""
        self.file = create(encode_header(replace(self._partial, complete=at_once)) + data)

    def index(
        self,
        frames: FrameTable,
        leaves: bytes,
        stream_map: StreamMap,
        first_records: FirstRecords,
        levels: tuple[LevelUse, ...],
    ) -> bytes:
        """The index, in the codec's carrier: to be written behind the payload of ``frames``. ``commit`` will point to it.

        Nothing, where the header cannot point to it and the payload does not tell its own end.
        """
        if self._at_once and not self._codec.tells_its_end:
            return b""
        data = encode_index(
            Index(os.urandom(IMAGE_ID_SIZE), frames, leaves, stream_map, first_records, digest_of(self._metadata), levels)
        )
        carrier = self._codec.carry(data, frames)
        self._pointer = IndexPointer(frames.payload_end + len(self._codec.epilogue), len(carrier))
        return carrier

    def commit(self) -> None:
        """Finish: from here on the image exists, durable and complete.

        Raises:
            DestinationError: it does not, and nothing of it is left.

        """
        self.file.commit(encode_header(self._complete()), encode_header(self._partial))

    def _complete(self) -> Header:
        own_name = self._partial.codec_name
        unused = (
            unused_field(own_name=own_name, pointer=encode_pointer(self._pointer)) if self._pointer else self._partial.unused
        )
        return replace(self._partial, complete=True, unused=unused)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.__exit__(kind, error, traceback)


def new_image(
    destination: Destination,
    options: CompressOptions,
    metadata: Metadata,
    *,
    was_running: bool,
    least_size: int = 0,
    cancel: Cancellation | None = None,
) -> ImageWriter[ImageSink]:
    """A new image at ``destination``. Raises what ``open_destination`` does; no new file is left behind then."""

    def create(head: bytes) -> ImageSink:
        sink = open_destination(
            destination,
            head,
            options.codec,
            stream=options.stream,
            least_size=least_size,
            cancel=cancel or Cancellation(),
        )
        return adjusted(sink, options)

    return ImageWriter(create, options.codec, metadata, was_running=was_running, at_once=options.stream)
