"""The header of a save image: libvirt's 92 bytes, in the byte order of the host that wrote them.

Source: libvirt ``src/qemu/qemu_saveimage.h`` (``struct _virQEMUSaveHeader``). Offsets: magic 0 (16 bytes, no NUL),
version 16, data size 20, was running 24, format 28, cookie offset 32, fourteen unused words 36.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import CorruptImageError, NotAnImageError, TruncatedImageError, UnsupportedImageError
from ..types import Buffer
from ..units import MiB
from .save_format import SaveFormat

ByteOrder: TypeAlias = Literal["little", "big"]

HEADER_SIZE: Final = 92
VERSION: Final = 2
UNUSED_SIZE: Final = 56
MAGIC_SIZE: Final = 16
NAME_SIZE: Final = 24
"""Of a codec's name in the unused bytes of our own images."""
POINTER_SIZE: Final = UNUSED_SIZE - NAME_SIZE
"""Of the pointer to the index: at the end, because a later libvirt would claim unused bytes from the front."""
MAX_DATA_SIZE: Final = 16 * MiB
"""No domain XML comes near it; libvirt itself has no limit, and would allocate 4 GiB."""

MAGIC_COMPLETE: Final = b"LibvirtQemudSave"
MAGIC_PARTIAL: Final = b"LibvirtQemudPart"
OWN_MAGIC_COMPLETE: Final = b"StreamsaveImage1"
OWN_MAGIC_PARTIAL: Final = b"StreamsavePart_1"
"""For formats that libvirt does not have: never dressed up as libvirt's."""

_MAGICS: Final = {
    MAGIC_COMPLETE: (True, False),
    MAGIC_PARTIAL: (False, False),
    OWN_MAGIC_COMPLETE: (True, True),
    OWN_MAGIC_PARTIAL: (False, True),
}
_STRUCTS: Final[dict[ByteOrder, struct.Struct]] = {
    "little": struct.Struct(f"<16s5I{UNUSED_SIZE}s"),
    "big": struct.Struct(f">16s5I{UNUSED_SIZE}s"),
}
_VERSION: Final = slice(16, 20)


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a header, whichever way round they were stored."""

    complete: bool
    """Whether the save came to its end: the magic says it."""
    data_size: int
    """Bytes of metadata between the header and the payload."""
    was_running: bool
    format: int
    """The payload's format: libvirt's number, or ours in an ``own`` image."""
    cookie_offset: int = 0
    """Of the cookie in the metadata; 0: there is none."""
    version: int = VERSION
    unused: bytes = bytes(UNUSED_SIZE)
    byte_order: ByteOrder = sys.byteorder
    own: bool = False
    """Whether the magic is streamsave's own: libvirt does not know the format."""

    @property
    def payload_offset(self) -> int:
        """Where the payload starts in the file."""
        return HEADER_SIZE + self.data_size

    @property
    def payload_format(self) -> int:
        """The format that counts: before version 2 libvirt never decompresses, whatever ``format`` says."""
        return self.format if self.version == VERSION else SaveFormat.RAW

    @property
    def codec_name(self) -> str:
        """The codec of an ``own`` image, which has it at the start of ``unused``; empty in libvirt's images."""
        return self.unused[:NAME_SIZE].rstrip(b"\0").decode("ascii", "replace") if self.own else ""

    @property
    def pointer(self) -> bytes:
        """Where the pointer to the index is, if there is one."""
        return self.unused[NAME_SIZE:]


def unused_field(*, own_name: str = "", pointer: bytes = bytes(POINTER_SIZE)) -> bytes:
    """``unused`` with the codec's name of an ``own`` image in front, and the pointer to the index (``format.index``) last.

    Raises:
        ValueError: the name is longer than 24 ASCII characters.
    """
    name = own_name.encode("ascii")
    if len(name) > NAME_SIZE:
        raise ValueError(f"the codec name {own_name!r} is longer than {NAME_SIZE} characters")
    return name.ljust(NAME_SIZE, b"\0") + pointer


def encode_header(header: Header) -> bytes:
    """The 92 bytes of ``header``.

    Raises:
        ValueError: ``unused`` is not of 56 bytes, or a number does not fit 32 bits.

    """
    if len(header.unused) != UNUSED_SIZE:
        raise ValueError(f"the unused part of a header has {UNUSED_SIZE} bytes, not {len(header.unused)}")
    if not all(0 <= number < 1 << 32 for number in (header.data_size, header.format, header.cookie_offset, header.version)):
        raise ValueError(f"a number in {header} does not fit 32 bits")
    magic = next(magic for magic, flags in _MAGICS.items() if flags == (header.complete, header.own))
    return _STRUCTS[header.byte_order].pack(
        magic,
        header.version,
        header.data_size,
        header.was_running,
        header.format,
        header.cookie_offset,
        header.unused,
    )


def parse_header(data: Buffer) -> Header:
    """The header in the first 92 bytes of ``data``, partial ones too.

    Raises:
        NotAnImageError: another magic. TruncatedImageError: fewer than 92 bytes, if they begin as a header.
        UnsupportedImageError: a version after 2.
        CorruptImageError: a size that cannot be.
    """
    data = bytes(data[:HEADER_SIZE])
    flags = _MAGICS.get(data[:16])
    if flags is None:
        if data and any(magic.startswith(data) for magic in _MAGICS):
            raise _truncated(data)
        raise NotAnImageError(
            "image magic is incorrect: this is not a save image (of libvirt or streamsave); is it the right file?", offset=0
        )
    if len(data) < HEADER_SIZE:
        raise _truncated(data)
    byte_order = _byte_order(data)
    _, version, data_size, was_running, format_number, cookie_offset, unused = _STRUCTS[byte_order].unpack(data)
    if version > VERSION:
        raise UnsupportedImageError(
            f"image version is not supported ({version} > {VERSION}): it needs a newer program", offset=16
        )
    if not 0 < data_size <= MAX_DATA_SIZE:
        raise CorruptImageError(
            f"invalid header data length: {data_size} (1 to {MAX_DATA_SIZE} bytes can be): the header is damaged", offset=20
        )
    if cookie_offset >= data_size:
        raise CorruptImageError(
            f"the cookie is said to be at {cookie_offset}, beyond the {data_size} bytes of metadata: the header is damaged",
            offset=32,
        )
    complete, own = flags
    return Header(
        complete=complete,
        data_size=data_size,
        was_running=bool(was_running),
        format=format_number,
        cookie_offset=cookie_offset,
        version=version,
        unused=unused,
        byte_order=byte_order,
        own=own,
    )


def _byte_order(data: bytes) -> ByteOrder:
    """As libvirt: a version that makes no sense is read the other way round."""
    other: ByteOrder = "big" if sys.byteorder == "little" else "little"
    if int.from_bytes(data[_VERSION], sys.byteorder) > VERSION >= int.from_bytes(data[_VERSION], other):
        return other
    return sys.byteorder


def _truncated(data: bytes) -> TruncatedImageError:
    return TruncatedImageError(
        f"failed to read qemu header: the file ends after {len(data)} of {HEADER_SIZE} bytes; copy it again",
        offset=len(data),
    )
