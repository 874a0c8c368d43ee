"""The metadata between header and payload: the domain XML, libvirt's cookie, and room to edit.

XML + NUL, cookie + NUL, zeros. libvirt leaves 64 KiB of zeros, so that ``virsh save-image-edit`` can grow the XML in place;
we leave at least that, rounded so that the payload starts at a multiple of 4096. (libvirt: ``src/qemu/qemu_saveimage.c``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xxhash import xxh3_128_digest

from ..errors import CorruptImageError, UsageError
from ..types import Buffer
from ..units import KiB
from .header import HEADER_SIZE, MAX_DATA_SIZE

PADDING: Final = 64 * KiB
ALIGNMENT: Final = 4096


@dataclass(frozen=True, slots=True)
class Metadata:
    """What libvirt stores about a domain: its XML, and a cookie of its own (None: an image without one)."""

    xml: str
    cookie: str | None = None


def encode_metadata(metadata: Metadata) -> tuple[bytes, int]:
    """The data section of ``metadata``, and the offset of the cookie in it (0: there is none).

    Raises:
        UsageError: a text that holds NUL or what is no character, or more text than a reader accepts.

    """
    data, cookie_offset = encode_texts(metadata)
    payload_offset = HEADER_SIZE + len(data) + PADDING
    payload_offset += -payload_offset % ALIGNMENT
    if payload_offset - HEADER_SIZE > MAX_DATA_SIZE:
        raise UsageError(f"the domain XML and cookie have {len(data)} bytes, more than an image's metadata may have")
    return data.ljust(payload_offset - HEADER_SIZE, b"\0"), cookie_offset


def encode_texts(metadata: Metadata) -> tuple[bytes, int]:
    """The same without the padding.

    Raises:
        UsageError: a text that holds NUL or what is no character.

    """
    data = _text(metadata.xml)
    if metadata.cookie is None:
        return data, 0
    return data + _text(metadata.cookie), len(data)


def digest_of(metadata: Metadata) -> bytes:
    """XXH3-128 of both texts as they stand in an image, each with the NUL that ends it."""
    return xxh3_128_digest(encode_texts(metadata)[0])


def parse_metadata(data: Buffer, cookie_offset: int) -> Metadata:
    """The texts in a data section. Bytes that are no UTF-8 are kept as surrogates.

    Raises:
        CorruptImageError: a text without an end, or a cookie inside the XML. Its ``offset`` is that of the text in the file.

    """
    data = bytes(data)
    xml_end = data.find(b"\0", 0, cookie_offset or len(data))
    if xml_end < 0:
        raise CorruptImageError(
            "failed to read domain XML: it has no end; the header or the metadata is damaged", offset=HEADER_SIZE
        )
    xml = data[:xml_end].decode("utf-8", "surrogateescape")
    if not cookie_offset:
        return Metadata(xml)
    cookie_end = data.find(b"\0", cookie_offset)
    if cookie_end < 0:
        raise CorruptImageError(
            "failed to read cookie: it has no end; the header or the metadata is damaged", offset=HEADER_SIZE + cookie_offset
        )
    return Metadata(xml, data[cookie_offset:cookie_end].decode("utf-8", "surrogateescape"))


def _text(text: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"a text for the metadata cannot be written as UTF-8: {error}") from error
    if b"\0" in data:
        raise UsageError("a text for the metadata holds a NUL character, which would end it")
    return data + b"\0"
