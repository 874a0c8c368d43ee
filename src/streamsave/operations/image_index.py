"""The index of an image that is read: found, bounded, and believed or not.

It says where the payload ends and what is in it; an image whose index is not to be believed restores without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..codecs.base import Codec, DecodeError
from ..codecs.registry import codec_by_number, find_codec
from ..errors import FormatError, UnsupportedImageError
from ..format.header import Header
from ..format.index import (
    END_SIZE,
    MAX_INDEX_SIZE,
    DamagedIndexError,
    Index,
    IndexPointer,
    parse_index,
    parse_pointer,
    pointer_by_end,
)


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """What became of the search. Sizes in bytes."""

    payload_size: int
    """Up to the index, or to the end of the file."""
    index: Index | None = None
    missing_size: int = 0
    """How much of the payload the file lacks, by what the header says of the index."""
    problem: str = ""
    """Why there should be an index and is none to be believed; else empty."""


def find_index(header: Header, size: int, read_at: Callable[[int, int], bytes]) -> FoundIndex:
    """The index of an image with ``size`` bytes behind its metadata. ``read_at(size, offset)`` reads those.

    Raises:
        UnsupportedImageError: the index has a record that has to be understood, and is not here.
        What ``read_at`` raises.

    """
    pointer, problem = None, ""
    codec = _codec_if_any(header)
    try:
        pointer = parse_pointer(header.pointer)
    except DamagedIndexError as error:
        problem = str(error)
    if pointer is None and codec:
        pointer = _find_by_end(codec, read_at(END_SIZE, max(0, size - END_SIZE)), size)
    if pointer is None:
        return FoundIndex(size, problem=problem)
    payload_size = min(pointer.offset, size)
    if pointer.offset + pointer.size > size:
        return FoundIndex(
            payload_size,
            missing_size=pointer.offset - payload_size,
            problem=f"it is said to be {pointer.size} bytes at {pointer.offset} of {size}",
        )
    if codec is None:
        return FoundIndex(payload_size)
    return index_at(pointer, codec, lambda: read_at(pointer.size, pointer.offset))


def index_at(pointer: IndexPointer, codec: Codec, read: Callable[[], bytes]) -> FoundIndex:
    """The index that ``pointer`` leads to. ``read`` gives its carrier, which may be cut; it is bounded before.

    Raises:
        UnsupportedImageError: the index has a record that has to be understood, and is not here.
        What ``read`` raises.

    """
    try:
        if pointer.size > MAX_INDEX_SIZE:
            raise DamagedIndexError(f"it is said to have {pointer.size} bytes")
        carrier = read()
        if len(carrier) < pointer.size:
            raise DamagedIndexError(f"it breaks off after {len(carrier)} of {pointer.size} bytes")
        index = parse_index(codec.uncarry(carrier))
        _check_place(index, codec, pointer)
    except (DamagedIndexError, DecodeError) as error:
        return FoundIndex(pointer.offset, problem=str(error))
    return FoundIndex(pointer.offset, index)


def payload_codec(header: Header) -> Codec:
    """The codec that decodes the payload.

    Raises:
        UnsupportedImageError: there is none here.

    """
    if not header.own:
        return codec_by_number(header.payload_format)
    try:
        return find_codec(header.codec_name)
    except FormatError as error:
        raise UnsupportedImageError(
            f"the image has format {header.codec_name!r}, which a package added to the streamsave that wrote it:"
            " install that package here too"
        ) from error


def _codec_if_any(header: Header) -> Codec | None:
    try:
        return payload_codec(header)
    except UnsupportedImageError:
        return None


def _find_by_end(codec: Codec, tail: bytes, size: int) -> IndexPointer | None:
    """Without a pointer: by the last record, where the codec carries data as they are."""
    try:
        return pointer_by_end(tail, size) if codec.uncarry(tail) == tail else None
    except DecodeError:
        return None


def _check_place(index: Index, codec: Codec, pointer: IndexPointer) -> None:
    """The frames are those between the codec's prologue and epilogue, and none is larger than it can be."""
    frames = index.frames
    if frames.payload_start != len(codec.prologue) or frames.payload_end + len(codec.epilogue) != pointer.offset:
        raise DamagedIndexError(f"its frames do not fill the payload of {pointer.offset} bytes")
    if max(frames.sizes, default=0) > codec.bound(frames.chunk_size):
        raise DamagedIndexError(f"a frame of {max(frames.sizes)} bytes cannot be")
