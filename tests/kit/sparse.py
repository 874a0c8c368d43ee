"""Files in QEMU's mapped-ram layout, without a QEMU; and what streams their guests have."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from streamsave.format.header import Header, encode_header
from streamsave.format.metadata import encode_metadata
from streamsave.format.save_format import SaveFormat
from streamsave.units import KiB, MiB

from ..property.streams import StreamBuilder, be, named
from .images import METADATA

Pages = dict[int, bytes]
"""The pages of a block that are not zero, by number."""


@dataclass
class SparseGuest:
    """A guest whose blocks have the given sizes and pages."""

    sizes: dict[str, int]
    pages: dict[str, Pages]
    device: bytes = b"registers"
    description: bytes = b"{}"
    capabilities: tuple[str, ...] = ("mapped-ram",)
    flushes: int = 0
    """Words of a multifd migration in each RAM section."""
    blocks_at: dict[str, int] = field(default_factory=dict)
    """Where the header of each block is in the last file that was made."""

    def file(self, start: int) -> bytes:
        """The file, its stream from ``start`` on; what is before is zero."""
        head = StreamBuilder().configuration("pc-made-up", capabilities=self.capabilities, uuid=bytes(16))
        data = bytearray(bytes(start) + head.data + b"\1" + be(2, 4) + named("ram") + be(0, 4) + be(4, 4))
        data += be(sum(self.sizes.values()) | 4, 8)
        for name, size in self.sizes.items():
            data += named(name) + be(size, 8)
            self.blocks_at[name] = len(data)
            bitmap_offset, words = len(data) + 28, -(-size // 4096 // 64)
            pages_offset = -(-(bitmap_offset + 8 * words) // MiB) * MiB
            data += be(1, 4) + be(4096, 8) + be(bitmap_offset, 8) + be(pages_offset, 8)
            present = sum(1 << number for number in self.pages.get(name, {}))
            data += present.to_bytes(8 * words, "little")
            data += bytes(pages_offset - len(data))
            contents = bytearray(size)
            for number, page in self.pages.get(name, {}).items():
                contents[number * 4096 : (number + 1) * 4096] = page
            data += contents
        end = be(0x200, 8) * self.flushes + be(0x10, 8) + b"\x7e" + be(2, 4)
        data += end + b"\2" + be(2, 4) + end + b"\x08" + be(11, 2) + be(0, 2) + b"\3" + be(2, 4) + end
        return bytes(data) + self._devices()

    def stream(self) -> bytes:
        """The plain stream of the same guest."""
        builder = StreamBuilder().configuration("pc-made-up", uuid=bytes(16)).ram_start(self.sizes)
        builder.ram_part().command(11, b"")
        records = []
        for name, size in self.sizes.items():
            for number in range(size // 4096):
                block = None if number else name
                page = self.pages.get(name, {}).get(number)
                if page is None:
                    records.append(builder.zero_page(block=block, offset=number * 4096))
                else:
                    records.append(builder.page(page, block=block, offset=number * 4096))
        return bytes(builder.ram_part(*records, last=True).data) + self._devices()

    def _devices(self) -> bytes:
        builder = StreamBuilder()
        before = len(builder.data)
        return bytes(builder.device(3, "cpu", self.device).end(self.description).data)[before:]


def sparse_guest(**changes: object) -> SparseGuest:
    """One with every pattern of pages: none, all, single ones, runs that cross what is looked at at a time."""
    random = Random(1)
    sizes = {"pc.ram": 3 * MiB + 20 * KiB, "rom": 64 * KiB, "empty": 4 * KiB}
    numbers = [*range(1, 60, 3), *range(250, 530), *range(700, 705), 772]
    pages = {
        "pc.ram": {number: random.randbytes(4096) for number in numbers},
        "rom": {number: bytes([number]) * 4096 for number in range(16)},
    }
    guest = SparseGuest(sizes, pages)
    for name, value in changes.items():
        setattr(guest, name, value)
    return guest


def write_sparse(path: Path, guest: SparseGuest) -> None:
    """An image as libvirt writes one in its format sparse."""
    data, cookie_offset = encode_metadata(METADATA)
    header = Header(True, len(data), was_running=True, format=SaveFormat.SPARSE, cookie_offset=cookie_offset)
    path.write_bytes((encode_header(header) + data) + guest.file(header.payload_offset)[header.payload_offset :])
