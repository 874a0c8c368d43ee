"""gzip: a chunk is one member (RFC 1952), and says in its header how large it is.

::

    frame = 1f 8b 08 04, time 0 | extra field "SS": u32 size of the frame, u32 size of the chunk | deflate data | crc32, size

gzip skips the extra field (section 2.3.1.1), so members back to back are what ``gzip -dc`` always decoded, and the next one
is found without decoding. A carrier is members of nothing, whose extra fields "SX" hold the data. Numbers are little-endian.

Two libraries do the work, each where it is the fastest: ISA-L and libdeflate (``_DEFLATERS``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, cast

from ..format.frames import FrameTable
from ..types import Buffer
from ..units import KiB
from .base import Codec, DecodeError, ReadBytes, TruncatedError
from .members import MemberDecoder, MemberReader
from .sized import SizedHeader, SizedSplitter

_DEFLATERS: Final[dict[int, tuple[Literal["isal", "libdeflate"], int]]] = {
    1: ("isal", 2),
    2: ("isal", 3),
    3: ("libdeflate", 1),
    4: ("libdeflate", 2),
    5: ("libdeflate", 3),
    6: ("libdeflate", 4),
    7: ("libdeflate", 5),
    8: ("libdeflate", 6),
    9: ("libdeflate", 9),
}
"""What does the work at gzip's levels: the fastest whose output is at most 4 % larger than gzip's, and smaller than that of
the level below. Measured on 1 MiB chunks of programs and libraries (MiB/s on one core, ratio; gzip itself in brackets):

1: 421, 2.582 (73, 2.599)   2: 263, 2.610 (66, 2.656)   3: 200, 2.658 (51, 2.715)
4: 151, 2.793 (51, 2.786)   5: 138, 2.818 (36, 2.842)   6: 127, 2.831 (22, 2.870)
7: 109, 2.890 (17, 2.877)   8:  88, 2.909 (10, 2.888)   9:  27, 2.931  (7, 2.890)

pigz -1: 92, 2.617. ISA-L ends a deflate block where a buffer for what it found is full. A small one, for blocks that follow
the data more closely, makes 1.2 % less of them than its usual one and takes 6 % longer. Its level 1 with it (434, 2.545) is
left out: 1.4 % larger than its level 2, and 4 % faster.
"""

# ID1 ID2, method deflate, flags FEXTRA, time 0, extra flags 0, system unknown; 12 bytes of extra fields; ours of 8 bytes.
_PREFIX: Final = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H2sH", 12, b"SS", 8)
_TRAILER: Final = struct.Struct("<II")
_CARRIER_PREFIX: Final = _PREFIX[:10]
_CARRIER_HEADER_SIZE: Final = len(_CARRIER_PREFIX) + 6
_NOTHING: Final = b"\x03\x00" + bytes(8)
"""No data, deflated, with their checksum and size."""
_FIELD_MAX: Final = 65531
"""Extra fields have 65,535 bytes in all, and each takes 4 for its name and length."""
_HEADER: Final = SizedHeader("gzip", _PREFIX, smallest=len(_PREFIX) + 8 + 2 + _TRAILER.size)
_WORST_BLOCK: Final = 512
_HEADERS_BOUND: Final = 128 * KiB
"""Any gzip header that makes sense: 64 KiB of extra fields, a name, a comment."""


class Gzip(Codec):
    """libvirt's ``gzip``."""

    name = "gzip"
    number = 1
    summary = "understood everywhere, by every libvirt"
    magic = b"\x1f\x8b"
    levels = range(1, 10)
    default_level = 1
    tool_level = 6
    tool = ("gzip", "-c")
    needs_zeros = True

    def encoder(self, level: int) -> GzipEncoder:
        return GzipEncoder(level)

    def decoder(self) -> GzipDecoder:
        return GzipDecoder()

    def splitter(self) -> SizedSplitter:
        return SizedSplitter(_HEADER, chunk_size=self.chunk_size, frame_bound=self.bound(self.chunk_size))

    def stream_reader(self, read: ReadBytes) -> GzipReader:
        return GzipReader(read)

    def bound(self, size: int) -> int:
        """Both libraries store what does not compress: 5 bytes per block, and no block of theirs is under 4 KiB."""
        return size + size // _WORST_BLOCK + _HEADER.smallest + 16

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        """Members of nothing, with the data in extra fields."""
        return b"".join(
            _CARRIER_PREFIX + struct.pack("<H2sH", len(piece) + 4, b"SX", len(piece)) + piece + _NOTHING
            for piece in _pieces(data, _FIELD_MAX)
        )

    def uncarry(self, carrier: bytes) -> bytes:
        position, data = 0, []
        while position < len(carrier):
            head, field = carrier[position : position + _CARRIER_HEADER_SIZE], position + _CARRIER_HEADER_SIZE
            size = int.from_bytes(head[-2:], "little")
            if size > _FIELD_MAX or head != _CARRIER_PREFIX + struct.pack("<H2sH", size + 4, b"SX", size):
                raise DecodeError(f"no carrier of ours at byte {position} of it")
            position = field + size + len(_NOTHING)
            if carrier[field + size : position] != _NOTHING:
                raise DecodeError(f"a carrier of ours does not end at byte {position} of it")
            data.append(carrier[field : field + size])
        return b"".join(data)


class GzipEncoder:
    """Keeps nothing from chunk to chunk: both libraries' contexts live in their calls."""

    def __init__(self, level: int) -> None:
        import deflate
        from isal import igzip_lib, isal_zlib

        library, library_level = _DEFLATERS[level]
        # Both release the GIL, and so does this crc32. deflate's, as fast, holds it: 45 us for each MiB.
        self._crc32: Callable[[Buffer], int] = isal_zlib.crc32
        self._deflate: Callable[[Buffer], Buffer]
        if library == "isal":
            raw, small = igzip_lib.COMP_DEFLATE, igzip_lib.MEM_LEVEL_SMALL
            self._deflate = lambda chunk: igzip_lib.compress(chunk, library_level, raw, small)
        else:
            self._deflate = lambda chunk: deflate.deflate_compress(chunk, library_level)

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:  # noqa: ARG002
        """Header, deflate data in new memory, trailer."""
        data = self._deflate(chunk)
        header = _HEADER.pack(_HEADER.size + len(data) + _TRAILER.size, len(chunk))
        return [header, data, _TRAILER.pack(self._crc32(chunk), len(chunk))]


class GzipDecoder:
    """Decodes our own members in one call."""

    def __init__(self) -> None:
        import deflate
        from isal import isal_zlib

        self._decompress: Callable[[Buffer, int], bytearray] = deflate.gzip_decompress
        self._crc32: Callable[[Buffer], int] = isal_zlib.crc32
        self._error: type[Exception] = deflate.DeflateError

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk, in new memory; see ``Decoder``.

        libdeflate checks the trailer that follows the deflate data, wherever these end; that the same trailer ends the frame
        is checked here, so that no accident leaves anything between or behind.
        """
        chunk_size = _HEADER.check(frame, len(room))
        try:
            # A size of 0 would make the library believe the one in the trailer.
            chunk = self._decompress(frame, chunk_size or 1)
        except self._error as error:
            raise DecodeError("the gzip member is damaged: its data or its checksum is wrong") from error
        if frame[-_TRAILER.size :] != _TRAILER.pack(self._crc32(chunk), chunk_size):
            raise DecodeError("the gzip member does not end where its data do")
        return chunk


class GzipReader(MemberReader):
    """Any gzip payload. Zeros may follow the last member (a tape's, or a block device's), as for ``gzip -dc``.

    They may also be all there is, so that a reader can go on where a splitter stopped.
    """

    def __init__(self, read: ReadBytes) -> None:
        from isal import igzip_lib

        def new_decoder() -> MemberDecoder:
            member: MemberDecoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            return member

        errors = (cast("type[Exception]", igzip_lib.IsalError),)  # the stub takes the class for an instance
        super().__init__(read, new_decoder, errors)

    def _next_starts(self) -> bool:
        # The whole header: ISA-L's binding (1.9.1) goes wrong where a name or comment is cut in two.
        head = self._peek(_HEADERS_BOUND)[:2]
        if head == Gzip.magic:
            return True
        if head[:1] == b"\0":
            self._skip_zeros()
        elif head == Gzip.magic[: len(head)] and (head or not self._started):
            raise TruncatedError("the payload ends before a gzip member does")
        elif head:
            raise DecodeError(f"a gzip member starts with 1f 8b, not with {head.hex(' ')}")
        return False

    def _skip_zeros(self) -> None:
        self._started = True  # or reading on at the end would miss a member
        while piece := self._take():
            if bytes(piece).strip(b"\0"):
                raise DecodeError("bytes other than zeros follow the last gzip member")


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


CODEC: Final = Gzip()
