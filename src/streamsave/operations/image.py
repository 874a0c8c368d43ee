"""Save images that are read: opened, checked, and found to have an index or not. ``image_writer`` makes them.

Everything in an image is data from outside: sizes are bounded before anything is allocated, nothing in it is carried out.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ..codecs.base import Codec
from ..endpoints.descriptor import name_of
from ..endpoints.file import FileSource
from ..endpoints.limited import SourcePart
from ..errors import (
    CorruptImageError,
    ImageError,
    IncompleteImageError,
    NotAnImageError,
    SourceError,
    TruncatedImageError,
    UnsupportedImageError,
)
from ..format.description import GuestDescription, parse_description
from ..format.header import HEADER_SIZE, Header, parse_header
from ..format.index import Index
from ..format.metadata import Metadata, digest_of, parse_metadata
from ..format.migration import StreamMap
from ..format.save_format import SaveFormat, oldest_libvirt
from ..types import Source
from .image_index import FoundIndex, find_index, payload_codec

OPEN_ADVICE: Final = {
    errno.ENOENT: "; is the path right, and its file system mounted?",
    errno.EACCES: "; run this as a user who may read it",
    errno.EPERM: "; run this as a user who may read it",
    errno.ENOTDIR: "; choose a path whose parents are folders",
    errno.ELOOP: "; choose a path without a loop of symbolic links",
    errno.ENAMETOOLONG: "; is that the path?",
    errno.EMFILE: "; raise the limit on open files (ulimit -n)",
    errno.EIO: "; the disk may be failing, look into the kernel's log",
    errno.ESTALE: "; mount its file system anew",
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image says of itself. Sizes and offsets in bytes."""

    path: Path
    file_size: int
    header: Header
    metadata: Metadata
    format: str
    """libvirt's word for the format, ``unknown (N)``, or in an image of our own the codec's name."""
    payload_offset: int
    payload_size: int
    """Without the index."""
    description: GuestDescription | None
    """What we wrote about a guest that libvirt does not manage; None for the images of libvirt's domains."""
    oldest_libvirt: str
    """The first libvirt release that restores the format; empty: none does."""
    missing_size: int
    """How much of the payload the file lacks: it was cut. 0 where the image does not tell, or all is there."""
    index: Index | None
    """Of the images that streamsave writes."""
    index_problem: str
    """Why an index that should be there is not used, to follow "the index is damaged:"; else empty."""

    @property
    def metadata_as_saved(self) -> bool | None:
        """Whether XML and cookie are those that were saved; None where the image does not tell."""
        if self.index is None or not self.index.metadata_digest:
            return None
        return digest_of(self.metadata) == self.index.metadata_digest

    @property
    def needs_xml(self) -> bool:
        """Whether libvirt needs another XML to restore it: the descriptive one has no devices."""
        return self.description is not None


class ImageReader:
    """An image that is read: checked header and metadata, and the payload as a ``Source``. Subclasses know from what."""

    path: Path
    """For messages and reports."""
    info: ImageInfo
    payload: Source

    def check_complete(self) -> None:
        """The save came to its end; or IncompleteImageError."""
        if not self.info.header.complete:
            raise IncompleteImageError(
                f"{self.path}: the image is incomplete: the save that wrote it never finished; it cannot be restored",
                path=self.path,
            )

    def codec(self) -> Codec:
        """The codec that decodes the payload.

        Raises:
            IncompleteImageError: the image is marked partial.
            UnsupportedImageError: we have no codec for its format.

        """
        self.check_complete()
        try:
            return payload_codec(self.info.header)
        except UnsupportedImageError as error:
            raise UnsupportedImageError(f"{self.path}: {error}", path=self.path) from error

    def check_stream(self, stream: StreamMap) -> None:
        """What was decoded is a whole migration stream, by its structure.

        Raises:
            TruncatedImageError: it does not end as one does.
            CorruptImageError: its page records are no such: pieces are missing, or in another order,
                which no codec's checksum shows. Where there is an index that is the word on it.

        """
        if not stream.well_formed_end:
            raise TruncatedImageError(
                f"{self.path}: the payload's {stream.size} bytes of migration stream are not all: {stream.problem}",
                path=self.path,
                offset=self.info.file_size,
            )
        if stream.lost_in_ram and self.info.index is None:
            raise CorruptImageError(
                f"{self.path}: the payload decodes, but the stream in it is damaged: pieces of it are missing or in the"
                f" wrong place, for behind {stream.page_count + stream.zero_page_count} page records comes something else",
                path=self.path,
            )

    def _read_head(self, source: Source) -> tuple[Header, Metadata]:
        """What stands before the payload."""
        head = take(source, HEADER_SIZE)
        if not head:
            raise NotAnImageError("the file is empty: not a save image", offset=0)
        header = parse_header(head)
        data = take(source, header.data_size)
        end = HEADER_SIZE + len(data)
        if end < header.payload_offset:
            raise TruncatedImageError(
                f"the file ends at offset {end}, inside the metadata, which reaches to {header.payload_offset};"
                " copy it again",
                offset=end,
            )
        return header, parse_metadata(data, header.cookie_offset)

    def _describe(self, header: Header, metadata: Metadata, found: FoundIndex, file_size: int) -> ImageInfo:
        return ImageInfo(
            path=self.path,
            file_size=file_size,
            header=header,
            metadata=metadata,
            format=header.codec_name if header.own else format_word(header.payload_format),
            payload_offset=header.payload_offset,
            payload_size=found.payload_size,
            description=parse_description(metadata.xml),
            oldest_libvirt="" if header.own else oldest_libvirt(header.payload_format),
            missing_size=found.missing_size,
            index=found.index,
            index_problem=found.problem,
        )

    def named(self, error: ImageError) -> ImageError:
        """``error``, which now says which image it is about."""
        if error.path is None:
            error.path = self.path
            error.args = (f"{self.path}: {error}",)
        return error


class OpenImage(ImageReader):
    """An image in a file. A context manager; closes it."""

    def __init__(self, image: str | Path | int) -> None:
        """Raises what ``read_info`` does, and nothing else."""
        fd, self.path = _open(image)
        self.status = os.fstat(fd)
        """As it was when it was opened."""
        self.source = FileSource(fd, self.path)
        """The whole file."""
        try:
            file_size = os.lseek(fd, 0, os.SEEK_END)  # fstat knows no size of a block device
            os.lseek(fd, 0, os.SEEK_SET)
            self.info = self._read_info(file_size)
        except ImageError as error:
            self.source.close()
            self.named(error)
            raise
        except BaseException:
            self.source.close()
            raise
        self.payload = SourcePart(self.source, self.info.payload_offset, self.info.payload_size)

    def _read_info(self, file_size: int) -> ImageInfo:
        header, metadata = self._read_head(self.source)
        found = find_index(
            header,
            file_size - header.payload_offset,
            lambda size, offset: self.source.read_at(size, header.payload_offset + offset),
        )
        return self._describe(header, metadata, found, file_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.source.close()


def read_info(image: str | Path | int) -> ImageInfo:
    """What ``image`` says of itself; the payload is not read. Partial images too.

    Raises:
        NotAnImageError, TruncatedImageError, CorruptImageError, UnsupportedImageError: what is wrong with the file.
        SourceError: it cannot be read.

    """
    with OpenImage(image) as opened:
        return opened.info


def format_word(number: int) -> str:
    """Libvirt's word for a format number."""
    try:
        return SaveFormat(number).word
    except ValueError:
        return f"unknown ({number})"


def take(source: Source, size: int) -> bytes:
    """The next ``size`` bytes; fewer only at the end."""
    data = bytearray(size)
    got = source.readinto(memoryview(data))
    return bytes(memoryview(data)[:got])


def _open(image: str | Path | int) -> tuple[int, Path]:
    """Open for reading, or duplicate the caller's descriptor; and what to call it.

    A FIFO or device would block or never end, so only regular files and block devices.
    """
    path = name_of(image) if isinstance(image, int) else Path(image)
    try:
        fd = os.dup(image) if isinstance(image, int) else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        advice = OPEN_ADVICE.get(error.errno or 0, "")
        raise SourceError(f"{path}: cannot be opened: {error.strerror}{advice}", path=path) from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return fd, path
    os.close(fd)
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise SourceError(f"{path}: is {kind}; name a save image", path=path)
