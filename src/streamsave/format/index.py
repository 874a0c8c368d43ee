"""The index of a save image: typed records behind the payload, and the pointer to them in the header.

::

    record  = u16 type, u16 flags, u64 size of the body, body, u32 crc32 of all that
    pointer = "SSIX", u32 version, u64 offset, u64 size, u32 crc32 of those 24 bytes, u32 0      the header's last 32 bytes

Everything is little-endian. ``offset`` counts from the start of the payload (an edit of the metadata may move that), and the
records stand there in the codec's carrier. A record of a type that a reader does not know is skipped, unless its flag
``CRITICAL`` says that the image cannot be read without; several records of one type are one body in several pieces.
docs/image-format.md has the bodies. The last record says how long the index is, so that one without a carrier is found from
behind too.

An index only helps: an image whose index is missing or damaged still restores. One whose checksums hold is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from ..errors import UnsupportedImageError
from ..units import MiB
from .digest import DIGEST_SIZE, LEAF_SIZE, leaf_count, leaves_of, root_of
from .frames import FrameTable
from .levels import LevelUse, decode_levels, encode_levels
from .migration import StreamMap
from .pages import FirstRecords
from .stream_map import decode_stream_map, encode_stream_map

IMAGE_ID_SIZE: Final = 16
MAX_INDEX_SIZE: Final = 256 * MiB
"""Enough for a stream of 8 TiB; no more is read into memory, whatever an image claims."""
MAX_CHUNK_SIZE: Final = 16 * MiB
"""No codec's chunks are larger; a reader's buffers depend on it."""

CRITICAL: Final = 1
STREAM, FRAMES, LEAVES, STREAM_MAP, FIRST_RECORDS, METADATA, LEVELS, END = 1, 2, 3, 4, 5, 6, 7, 0x7FFF
# Reserved: 16 page map, 17 the image's parent (critical).

_RECORD: Final = struct.Struct("<HHQ")
_CRC: Final = struct.Struct("<I")
_STREAM_BODY: Final = struct.Struct(f"<{IMAGE_ID_SIZE}sQII{DIGEST_SIZE}s")
_FRAMES_HEAD: Final = struct.Struct("<Q")
_END_BODY: Final = struct.Struct("<Q8s")
_END_MAGIC: Final = b"SSINDEX1"
END_SIZE: Final = _RECORD.size + _END_BODY.size + _CRC.size
_POINTER: Final = struct.Struct("<4sIQQ")
_POINTER_MAGIC: Final = b"SSIX"
_POINTER_VERSION: Final = 1


class DamagedIndexError(ValueError):
    """The index, or the pointer to it, is not what was written. The text follows "the index is damaged:"."""


@dataclass(frozen=True, slots=True)
class IndexPointer:
    """Where the carrier of an index is. In bytes; ``offset`` from the start of the payload."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Index:
    """What an image knows of its own payload. ``leaves`` are packed, ``DIGEST_SIZE`` bytes each."""

    image_id: bytes
    """Random, 16 bytes: tells one save from another."""
    frames: FrameTable
    leaves: bytes
    stream_map: StreamMap
    first_records: FirstRecords
    metadata_digest: bytes = b""
    """``digest_of`` the XML and the cookie as they were saved; empty: unknown. Both may be edited later."""
    levels: tuple[LevelUse, ...] = ()
    """What was compressed at which level; empty: unknown, or a codec without levels."""

    @property
    def root(self) -> bytes:
        """The digest of the whole stream, 16 bytes."""
        return root_of(self.frames.stream_size, self.leaves)

    def leaves_of_frame(self, number: int) -> bytes:
        """Those of the chunk in frame ``number``."""
        per_frame = self.frames.chunk_size // LEAF_SIZE * DIGEST_SIZE
        return self.leaves[number * per_frame : (number + 1) * per_frame]

    def objection(self, number: int, chunk: memoryview) -> str:
        """Why ``chunk`` is not the one that was saved in frame ``number``; empty if it is."""
        size = self.frames.chunk_size_of(number)
        if len(chunk) != size:
            return f"a chunk of {len(chunk)} bytes instead of the {size} in the index"
        if leaves_of(chunk) != self.leaves_of_frame(number):
            return "it decodes to other bytes than were saved: its digest is not the one in the index"
        return ""


def encode_pointer(pointer: IndexPointer) -> bytes:
    """The 32 bytes for the end of the header."""
    data = _POINTER.pack(_POINTER_MAGIC, _POINTER_VERSION, pointer.offset, pointer.size)
    return data + struct.pack("<II", crc32(data), 0)


def parse_pointer(data: bytes) -> IndexPointer | None:
    """The pointer in the last 32 bytes of a header; None: there is none, or one of a later version.

    Raises:
        DamagedIndexError: it was one.

    """
    magic, version, offset, size = _POINTER.unpack_from(data)
    if magic != _POINTER_MAGIC:
        return None
    if _CRC.unpack_from(data, _POINTER.size)[0] != crc32(data[: _POINTER.size]):
        raise DamagedIndexError("the checksum of the pointer to it is wrong")
    return IndexPointer(offset, size) if version == _POINTER_VERSION else None


def pointer_by_end(tail: bytes, size: int) -> IndexPointer | None:
    """The pointer to an uncarried index that ends with ``tail``, ``END_SIZE`` bytes, at ``size`` in the payload's file."""
    if len(tail) != END_SIZE:
        return None
    index_size, _ = _END_BODY.unpack_from(tail, _RECORD.size)
    if tail != _record(END, _END_BODY.pack(index_size, _END_MAGIC)) or index_size > size:
        return None
    return IndexPointer(size - index_size, index_size)


def encode_index(index: Index) -> bytes:
    """The records of ``index``, ready to be carried."""
    frames = index.frames
    stream = _STREAM_BODY.pack(index.image_id, frames.stream_size, frames.chunk_size, LEAF_SIZE, index.root)
    records = b"".join(
        [
            _record(STREAM, stream),
            _record(FRAMES, _FRAMES_HEAD.pack(frames.payload_start) + frames.packed()),
            _record(LEAVES, index.leaves),
            _record(STREAM_MAP, encode_stream_map(index.stream_map)),
            _record(FIRST_RECORDS, index.first_records.packed()),
            _record(METADATA, index.metadata_digest),
            _record(LEVELS, encode_levels(index.levels)),
        ]
    )
    return records + _record(END, _END_BODY.pack(len(records) + END_SIZE, _END_MAGIC))


def parse_index(data: bytes) -> Index:
    """The index in ``data``, its records checked against one another.

    Raises:
        DamagedIndexError: it is not whole, fails a checksum, or contradicts itself.
        UnsupportedImageError: it has a record that has to be understood, and is not here.

    """
    bodies: dict[int, bytes] = {}
    for kind, body in _records(data):
        bodies[kind] = bodies.get(kind, b"") + body
    try:
        image_id, stream_size, chunk_size, leaf_size, root = _STREAM_BODY.unpack(bodies[STREAM])
        (payload_start,) = _FRAMES_HEAD.unpack_from(bodies[FRAMES])
        sizes = bodies[FRAMES][_FRAMES_HEAD.size :]
        stream_map = decode_stream_map(bodies[STREAM_MAP])
        first_records = FirstRecords.unpack(bodies[FIRST_RECORDS])
        leaves = bodies[LEAVES]
        levels = decode_levels(bodies.get(LEVELS, b""))
    except (KeyError, struct.error, ValueError) as error:
        raise DamagedIndexError(f"a record is missing or of the wrong size ({error})") from error
    if leaf_size != LEAF_SIZE or not 0 < chunk_size <= MAX_CHUNK_SIZE or chunk_size % LEAF_SIZE:
        raise DamagedIndexError(f"chunks of {chunk_size} and leaves of {leaf_size} bytes cannot be")
    count = -(-stream_size // chunk_size)
    if len(sizes) != 4 * count or len(first_records) != count or len(leaves) != DIGEST_SIZE * leaf_count(stream_size):
        raise DamagedIndexError(f"its records are not those of a stream of {stream_size} bytes")
    frames = FrameTable(chunk_size, payload_start=payload_start, stream_size=stream_size, sizes=sizes)
    index = Index(image_id, frames, leaves, stream_map, first_records, bodies.get(METADATA, b""), levels)
    if index.root != root:
        raise DamagedIndexError("the root is not that of the leaves")
    return index


def _record(kind: int, body: bytes) -> bytes:
    record = _RECORD.pack(kind, 0, len(body)) + body
    return record + _CRC.pack(crc32(record))


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each record up to the one that ends the index, which has to be there."""
    known = (STREAM, FRAMES, LEAVES, STREAM_MAP, FIRST_RECORDS, METADATA, LEVELS)
    position = 0
    while position + _RECORD.size + _CRC.size <= len(data):
        kind, flags, size = _RECORD.unpack_from(data, position)
        end = position + _RECORD.size + size
        if size > len(data) - position - _RECORD.size - _CRC.size:
            break
        if _CRC.unpack_from(data, end)[0] != crc32(memoryview(data)[position:end]):
            raise DamagedIndexError(f"the checksum of the record at byte {position} of it is wrong")
        body = data[position + _RECORD.size : end]
        position = end + _CRC.size
        if kind == END:
            if body != _END_BODY.pack(position, _END_MAGIC):
                break
            return
        if kind in known:
            yield kind, body
        elif flags & CRITICAL:
            raise UnsupportedImageError(
                f"the image needs a newer program: nobody may read it who does not know records of type {kind} in its index"
            )
    raise DamagedIndexError(f"it breaks off at byte {position} of {len(data)}")
