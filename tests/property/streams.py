"""Migration streams that never were: built record by record, together with what a scanner has to find in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from hypothesis import strategies as st

from streamsave.format.migration import RamBlock, StreamMap

RAM_ID = 2


def be(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def named(name: str | bytes) -> bytes:
    """A name with its length in front."""
    data = name.encode() if isinstance(name, str) else name
    return be(len(data), 1) + data


class StreamBuilder:
    """Writes a stream in the order of its methods. ``footers``: whether its machine type writes them."""

    def __init__(self, *, footers: bool = True) -> None:
        self.data = bytearray(b"QEVM\0\0\0\3")
        self.footers = footers
        self.machine = ""
        self.page_size = 4096
        self.blocks: list[RamBlock] = []
        self.ram_offset = self.ram_end = self.device_offset = self.end_offset = self.description_offset = -1
        self.page_count = self.zero_page_count = 0
        self.pages_in_order = True
        self._last_page = (-1, 0)
        self._block = -1

    def configuration(
        self, machine: str, *, capabilities: Iterable[str] = (), page_bits: int | None = None, uuid: bytes | None = None
    ) -> Self:
        self.machine = machine
        self.data += b"\7" + be(len(machine.encode()), 4) + machine.encode()
        capabilities = list(capabilities)
        if capabilities:
            self._subsection("capabilities", be(len(capabilities), 4) + b"".join(map(named, capabilities)))
        if page_bits is not None:
            self.page_size = 1 << page_bits
            self._subsection("target-page-bits", be(page_bits, 4))
        if uuid is not None:
            self._subsection("uuid", uuid)
        return self

    def command(self, number: int, data: bytes) -> Self:
        self.data += b"\x08" + be(number, 2) + be(len(data), 2) + data
        return self

    def ram_start(self, blocks: dict[str, int]) -> Self:
        self.ram_offset = len(self.data)
        self.data += b"\1" + be(RAM_ID, 4) + named("ram") + be(0, 4) + be(4, 4)
        self.data += be(sum(blocks.values()) | 0x04, 8)
        for name, size in blocks.items():
            self.data += named(name) + be(size, 8)
            self.blocks.append(RamBlock(name, size))
        return self._end_of_section()

    def ram_part(self, *records: bytes, last: bool = False) -> Self:
        self.data += (b"\3" if last else b"\2") + be(RAM_ID, 4) + b"".join(records)
        if last:
            self.ram_end = len(self.data) + 8
        return self._end_of_section()

    def page(self, contents: bytes, *, block: str | None = None, offset: int = 0) -> bytes:
        self.page_count += 1
        return self._record(0x08, block, offset) + contents

    def zero_page(self, *, block: str | None = None, offset: int = 0, fill: int = 0) -> bytes:
        self.zero_page_count += 1
        return self._record(0x02, block, offset) + be(fill, 1)

    def xbzrle_page(self, delta: bytes, *, block: str | None = None, offset: int = 0) -> bytes:
        self.page_count += 1
        return self._record(0x40, block, offset) + b"\1" + be(len(delta), 2) + delta

    def compressed_page(self, contents: bytes, *, block: str | None = None, offset: int = 0) -> bytes:
        self.page_count += 1
        return self._record(0x100, block, offset) + be(len(contents), 4) + contents

    @staticmethod
    def flush() -> bytes:
        return be(0x200, 8)

    def device(self, number: int, name: str, body: bytes) -> Self:
        if self.device_offset < 0:
            self.device_offset = len(self.data)
        self.data += b"\4" + be(number, 4) + named(name) + be(0, 4) + be(1, 4) + body
        return self._footer(number)

    def end(self, description: bytes | None = None) -> Self:
        self.data += b"\0"
        self.end_offset = len(self.data)
        if description is not None:
            self.data += b"\6" + be(len(description), 4)
            self.description_offset = len(self.data)
            self.data += description
        return self

    def map(self) -> StreamMap:
        """What a scanner has to find in all of it."""
        ended = self.end_offset >= 0
        return StreamMap(
            size=len(self.data),
            machine=self.machine,
            page_size=self.page_size,
            ram_blocks=tuple(self.blocks),
            ram_offset=self.ram_offset,
            ram_end=self.ram_end,
            device_offset=self.device_offset,
            page_count=self.page_count,
            zero_page_count=self.zero_page_count,
            pages_in_order=self.pages_in_order,
            description_offset=self.description_offset,
            well_formed_end=ended,
            problem="" if ended else "it ends before the state of the devices",
        )

    def _subsection(self, name: str, body: bytes) -> None:
        self.data += b"\5" + named(f"configuration/{name}") + be(1, 4) + body

    def _record(self, flags: int, block: str | None, offset: int) -> bytes:
        word = be(offset | flags | (0x20 if block is None else 0), 8)
        if block is not None:
            names = [known.name for known in self.blocks]
            self._block = names.index(block) if block in names else -1
        page = (self._block, offset)
        self.pages_in_order &= self._block >= 0 and page > self._last_page and flags in (0x08, 0x02)
        self._last_page = page
        return word if block is None else word + named(block)

    def _end_of_section(self) -> Self:
        self.data += be(0x10, 8)
        return self._footer(RAM_ID)

    def _footer(self, number: int) -> Self:
        if self.footers:
            self.data += b"\x7e" + be(number, 4)
        return self


names = st.text(st.characters(codec="utf-8", exclude_characters="~"), min_size=1, max_size=20)
"""A name that ends with a tilde, and the zeros behind it, would look like the end of a stream."""
bodies = st.binary(max_size=60).filter(lambda body: b"\x7e\0\0" not in body and b"\0\6" not in body)
"""Device state without what looks like the end of a stream."""


@st.composite
def built_streams(draw: st.DrawFn, footers: st.SearchStrategy[bool] = st.booleans()) -> StreamBuilder:  # noqa: B008
    """A whole stream, of any shape that QEMU writes and we walk."""
    builder = StreamBuilder(footers=draw(footers))
    if draw(st.booleans()):
        builder.configuration(
            draw(names),
            capabilities=draw(st.lists(names, max_size=3)),
            page_bits=draw(st.sampled_from([None, 12, 13])),
            uuid=draw(st.none() | st.binary(min_size=16, max_size=16)),
        )
    blocks = draw(
        st.dictionaries(names, st.integers(1, 1 << 20).map(lambda pages: pages * builder.page_size), min_size=1, max_size=4)
    )
    builder.ram_start(blocks)
    for number in range(parts := draw(st.integers(1, 3))):
        records = draw(st.lists(st.sampled_from(["page", "zero", "xbzrle", "compressed", "flush"]), max_size=5))
        builder.ram_part(*(_record(draw, builder, record, blocks) for record in records), last=number == parts - 1)
        if draw(st.booleans()):
            builder.command(draw(st.integers(0, 9)), draw(st.binary(max_size=5)))
    for number in range(draw(st.integers(1, 3))):
        builder.device(number + 3, draw(names), draw(bodies))
    text = st.text(st.characters(min_codepoint=32, max_codepoint=125), max_size=60)
    return builder.end(draw(st.none() | text.map(lambda inside: f"{{{inside}}}".encode())))


def _record(draw: st.DrawFn, builder: StreamBuilder, kind: str, blocks: dict[str, int]) -> bytes:
    where: Any = {"block": draw(st.none() | st.sampled_from(sorted(blocks))), "offset": draw(st.integers(0, 1 << 40)) << 12}
    if kind == "page":
        return builder.page(draw(st.binary(min_size=1, max_size=1)) * builder.page_size, **where)
    if kind == "zero":
        return builder.zero_page(fill=draw(st.integers(0, 255)), **where)
    if kind == "xbzrle":
        return builder.xbzrle_page(draw(st.binary(max_size=20)), **where)
    if kind == "compressed":
        return builder.compressed_page(draw(st.binary(max_size=20)), **where)
    return builder.flush()


def _pieces() -> st.SearchStrategy[bytes]:
    few = st.integers(0, 3)
    bits = st.integers(10, 26).map(lambda bits: be(1, 4) + be(bits, 4))
    blocks = st.lists(st.tuples(st.sampled_from(["", "a", "bc"]), few), max_size=3).map(
        lambda found: (
            be(4096 * sum(size for _, size in found) | 4, 8) + b"".join(named(n) + be(4096 * s, 8) for n, s in found)
        )
    )
    flags = st.sampled_from([0x02, 0x04, 0x08, 0x10, 0x20, 0x22, 0x28, 0x30, 0x60, 0x80, 0x120, 0x200, 0x1001])
    return st.one_of(
        st.just(b"\7" + be(4, 4) + b"test"),
        bits.map(lambda bits: b"\5" + named("configuration/target-page-bits") + bits),
        st.just(b"\5" + named("configuration/uuid") + be(1, 4) + bytes(16)),
        st.just(b"\5" + named("configuration/capabilities") + be(1, 4) + be(2, 4) + named("a") + named("")),
        st.tuples(few, st.sampled_from(["ram", "slirp"])).map(
            lambda found: b"\1" + be(found[0], 4) + named(found[1]) + be(0, 4) + be(4, 4)
        ),
        blocks,
        flags.map(lambda flags: be(flags, 8)),
        st.tuples(st.sampled_from([2, 3, 0x7E]), few).map(lambda found: be(found[0], 1) + be(found[1], 4)),
        st.sampled_from([be(1, 3) + b"x", bytes(4096), b"\0", b"\4", b"\x08" + be(1, 2) + be(1, 2) + b"c"]),
        st.sampled_from([b"\6" + be(2, 4) + b"{}", b"\0\6" + be(2, 4) + b"{}", b"\x7e" + be(3, 4) + b"\0"]),
    )


jumbled_streams = st.lists(_pieces(), max_size=12).map(lambda pieces: b"QEVM\0\0\0\3" + b"".join(pieces))
"""Right pieces, in an order that no QEMU writes."""


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at ``places``."""
    ends = [*sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
