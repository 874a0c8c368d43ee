"""QEMU's migration stream: its structure, found while it passes by.

The stream is a configuration, the guest's RAM as page records, the state of the devices, an end mark and (usually) a
description in JSON. Everything up to the end of RAM can be walked. Device sections carry no length, so from the first of
them on only the end can be recognised: a section footer followed by the end mark, alone or with a description that reaches
exactly to the last byte. (QEMU: migration/savevm.c, migration/ram.c; tried with 7.2 and 10.0.)

``StreamScanner`` here is the reference; ``streamsave._native`` has the same in C, for use. Both are push parsers: fed in
pieces of any size, they never look back further than a few bytes, and their memory is bounded whatever they are fed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ..types import Buffer

MAGIC: Final = b"QEVM\0\0\0\3"
MAX_BLOCKS: Final = 512
"""RAM blocks that are remembered; a stream with more is walked no further."""
MAX_NAME: Final = 255

SECTION_END, SECTION_START, SECTION_PART, SECTION_LAST, SECTION_FULL = 0, 1, 2, 3, 4
SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND, FOOTER = 5, 6, 7, 8, 0x7E

FLAG_ZERO, FLAG_MEM_SIZE, FLAG_PAGE, FLAG_EOS, FLAG_CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
FLAG_XBZRLE, FLAG_COMPRESSED, FLAG_FLUSH = 0x40, 0x100, 0x200
FLAGS: Final = 0xFFF
"""The bits of a record's word that are flags: offsets are multiples of 4096 at least."""

SUBSECTIONS: Final = {
    b"configuration/capabilities": "capabilities",
    b"configuration/target-page-bits": "page bits",
    b"configuration/uuid": "uuid",
}


class Phase(IntEnum):
    """Where a scanner stands. The numbers are those of ``native/scan.h``."""

    MAGIC = 0
    STRUCTURE = 1
    """Between two sections, or inside one that can be walked."""
    OPAQUE = 2
    """In what cannot be walked: device state, or a section that we do not know."""
    ENDED = 3
    """The end mark was read, with nothing after it yet."""
    DESCRIPTION = 4
    """In the JSON after the end mark."""
    COMPLETE = 5
    """After the last byte of the JSON."""
    FOREIGN = 6
    """Not a migration stream, or bytes after its end."""


PROBLEMS: Final = {
    Phase.MAGIC: "it ends before the first section",
    Phase.STRUCTURE: "it ends inside the guest's memory",
    Phase.OPAQUE: "it ends without QEMU's end mark",
    Phase.DESCRIPTION: "it ends inside the description at its end",
}


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One block of guest RAM: QEMU's name, and the size in bytes that is in use."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class StreamMap:
    """What a scanner found. Offsets and sizes in bytes from the start of the stream; -1: not found (yet)."""

    size: int
    """Bytes scanned."""
    machine: str
    page_size: int
    ram_blocks: tuple[RamBlock, ...]
    ram_offset: int
    """The section that starts the RAM."""
    ram_end: int
    """Behind the last page record."""
    device_offset: int
    """The first section of a device."""
    page_count: int
    """Records of whole pages."""
    zero_page_count: int
    """Records of pages that repeat one byte, nearly always zero."""
    description_offset: int
    """The JSON."""
    well_formed_end: bool
    """Whether what was scanned ends as a whole stream does."""
    problem: str
    """If not: why, to follow "the stream is not all of one:"; else empty."""


@dataclass(slots=True)
class ScanState:
    """The plain values of a scanner, as both implementations hold them."""

    size: int = 0
    phase: int = Phase.MAGIC
    machine: bytes = b""
    page_size: int = 4096
    blocks: tuple[tuple[bytes, int], ...] = ()
    ram_offset: int = -1
    ram_end: int = -1
    device_offset: int = -1
    page_count: int = 0
    zero_page_count: int = 0
    description_offset: int = -1
    candidate_end: int = -1
    """Where the description that began last in the opaque part would end."""
    footer_and_end: bool = False
    """Whether the opaque part ends, so far, with a section footer and the end mark."""


def map_of(state: ScanState) -> StreamMap:
    """The result of a scan."""
    opaque = state.phase == Phase.OPAQUE
    described = opaque and state.candidate_end == state.size
    ended = state.phase in (Phase.ENDED, Phase.COMPLETE) or described or (opaque and state.footer_and_end)
    problem = "" if ended else PROBLEMS.get(Phase(state.phase), "it does not begin as one, or goes on after its end")
    return StreamMap(
        size=state.size,
        machine=state.machine.decode(errors="replace"),
        page_size=state.page_size,
        ram_blocks=tuple(RamBlock(name.decode(errors="replace"), size) for name, size in state.blocks),
        ram_offset=state.ram_offset,
        ram_end=state.ram_end,
        device_offset=state.device_offset,
        page_count=state.page_count,
        zero_page_count=state.zero_page_count,
        description_offset=state.description_offset if described or not opaque else -1,
        well_formed_end=ended,
        problem=problem,
    )


_MARK: Final = re.compile(rb"(?s)(?=\x7e\0\0..\0\x06(....))")
"""Footer (section numbers are small), end mark, description, its length. A look-ahead: matches may overlap."""
_MARK_SIZE: Final = 11


class StreamScanner:
    """The reference implementation. ``feed`` it the stream, in order; ``map()`` at any time."""

    def __init__(self) -> None:
        self._state = ScanState()
        self._held = bytearray()
        self._need = len(MAGIC)
        self._skip = 0
        self._next: Callable[[bytes], None] = self._magic
        self._tail = b""
        self._section_start = 0
        self._ram_id = -1
        self._last_section = False
        self._record = 0
        self._ram_left = 0
        self._capabilities_left = 0
        self._block_name = b""

    @property
    def ram_size(self) -> int:
        """Guest RAM in bytes, as far as the stream has announced it."""
        return sum(size for _, size in self._state.blocks)

    @property
    def pages_seen(self) -> int:
        """Page records so far, zero pages included."""
        return self._state.page_count + self._state.zero_page_count

    @property
    def page_size(self) -> int:
        """Of the guest, in bytes."""
        return self._state.page_size

    def map(self) -> StreamMap:
        """What was found so far."""
        return map_of(self._state)

    def feed(self, data: Buffer) -> None:
        """The next bytes of the stream; borrowed for the call."""
        state = self._state
        with memoryview(data).cast("B") as view:
            at = 0
            while at < len(view):
                if state.phase == Phase.OPAQUE:
                    self._search(bytes(view[at:]), state.size)
                    state.size += len(view) - at
                    return
                if state.phase in (Phase.COMPLETE, Phase.FOREIGN):
                    state.phase = Phase.FOREIGN
                    state.size += len(view) - at
                    return
                if self._skip:
                    taken = min(self._skip, len(view) - at)
                    self._skip -= taken
                else:
                    taken = min(self._need - len(self._held), len(view) - at)
                    self._held += view[at : at + taken]
                at += taken
                state.size += taken
                if state.phase == Phase.DESCRIPTION and not self._skip and self._next == self._top:
                    state.phase = Phase.COMPLETE
                elif len(self._held) == self._need:
                    held, self._held = bytes(self._held), bytearray()
                    self._next(held)

    # Each of these is given the bytes that the one before asked for.

    def _ask(self, need: int, then: Callable[[bytes], None]) -> None:
        self._need, self._next = need, then
        if not need:
            then(b"")

    def _give_up(self) -> None:
        """What follows cannot be walked."""
        self._state.phase = Phase.OPAQUE

    def _magic(self, data: bytes) -> None:
        self._state.phase = Phase.STRUCTURE if data == MAGIC else Phase.FOREIGN
        self._ask(1, self._top)

    def _top(self, data: bytes) -> None:
        """The type byte of a section."""
        kind = data[0]
        state = self._state
        if state.phase == Phase.ENDED:
            if kind == DESCRIPTION:
                state.phase = Phase.DESCRIPTION
                self._ask(4, self._description_size)
            else:
                state.phase = Phase.FOREIGN
            return
        self._section_start = state.size - 1
        if kind == SECTION_END:
            state.phase = Phase.ENDED
            self._ask(1, self._top)
        elif kind == CONFIGURATION and state.size == len(MAGIC) + 1:
            self._ask(4, self._machine_size)
        elif kind == SUBSECTION and state.ram_offset < 0:
            self._ask(1, self._subsection_name_size)
        elif kind == SECTION_START and state.ram_offset < 0:
            self._ask(5, self._section_name_size)
        elif kind in (SECTION_PART, SECTION_LAST) and self._ram_id >= 0:
            self._last_section = kind == SECTION_LAST
            self._ask(4, self._part)
        elif kind == FOOTER and self._ram_id >= 0:
            self._ask(4, self._footer)
        elif kind == COMMAND:
            self._ask(4, self._command)
        else:
            if kind == SECTION_FULL:
                state.device_offset = self._section_start
            self._give_up()

    def _description_size(self, data: bytes) -> None:
        self._state.description_offset = self._state.size
        self._skip = int.from_bytes(data, "big")
        self._ask(1, self._top)
        if not self._skip:
            self._state.phase = Phase.COMPLETE

    def _machine_size(self, data: bytes) -> None:
        size = int.from_bytes(data, "big")
        if size > MAX_NAME:
            self._give_up()
        else:
            self._ask(size, self._machine)

    def _machine(self, data: bytes) -> None:
        self._state.machine = data
        self._ask(1, self._top)

    def _subsection_name_size(self, data: bytes) -> None:
        self._ask(data[0] + 4, self._subsection)

    def _subsection(self, data: bytes) -> None:
        kind = SUBSECTIONS.get(data[:-4])
        if kind == "capabilities":
            self._ask(4, self._capability_count)
        elif kind == "page bits":
            self._ask(4, self._page_bits)
        elif kind == "uuid":
            self._skip = 16
            self._ask(1, self._top)
        else:
            self._give_up()

    def _capability_count(self, data: bytes) -> None:
        self._capabilities_left = int.from_bytes(data, "big")
        self._next_capability()

    def _next_capability(self) -> None:
        if self._capabilities_left:
            self._capabilities_left -= 1
            self._ask(1, self._capability)
        else:
            self._ask(1, self._top)

    def _capability(self, data: bytes) -> None:
        self._skip = data[0]
        self._next_capability()

    def _page_bits(self, data: bytes) -> None:
        bits = int.from_bytes(data, "big")
        if 12 <= bits <= 24:
            self._state.page_size = 1 << bits
            self._ask(1, self._top)
        else:
            self._give_up()

    def _section_name_size(self, data: bytes) -> None:
        self._ram_id = int.from_bytes(data[:4], "big")
        self._ask(data[4] + 8, self._section_name)

    def _section_name(self, data: bytes) -> None:
        if data[:-8] == b"ram":
            self._state.ram_offset = self._section_start
            self._last_section = False
            self._ask(8, self._word)
        else:
            self._ram_id = -1
            self._give_up()

    def _part(self, data: bytes) -> None:
        if int.from_bytes(data, "big") == self._ram_id:
            self._ask(8, self._word)
        else:
            self._give_up()

    def _footer(self, data: bytes) -> None:
        if int.from_bytes(data, "big") == self._ram_id:
            self._ask(1, self._top)
        else:
            self._give_up()

    def _command(self, data: bytes) -> None:
        self._skip = int.from_bytes(data[2:], "big")
        self._ask(1, self._top)

    def _word(self, data: bytes) -> None:
        """The word at the start of each RAM record."""
        word = int.from_bytes(data, "big")
        flags = word & FLAGS
        self._record = flags & ~FLAG_CONTINUE
        if flags == FLAG_EOS:
            if self._last_section:
                self._state.ram_end = self._state.size
            self._ask(1, self._top)
        elif flags == FLAG_FLUSH:
            self._ask(8, self._word)
        elif flags == FLAG_MEM_SIZE:
            self._ram_left = word & ~FLAGS
            self._next_block()
        elif self._record not in (FLAG_ZERO, FLAG_PAGE, FLAG_XBZRLE, FLAG_COMPRESSED):
            self._give_up()
        elif flags & FLAG_CONTINUE:
            self._body(b"")
        else:
            self._ask(1, self._page_name_size)

    def _next_block(self) -> None:
        if self._ram_left > 0:
            self._ask(1, self._block_name_size)
        else:
            self._ask(8, self._word)

    def _block_name_size(self, data: bytes) -> None:
        self._ask(data[0] + 8, self._block)

    def _block(self, data: bytes) -> None:
        size = int.from_bytes(data[-8:], "big")
        if len(self._state.blocks) == MAX_BLOCKS or not 0 < size <= self._ram_left:
            self._give_up()
            return
        self._state.blocks += ((data[:-8], size),)
        self._ram_left -= size
        self._next_block()

    def _page_name_size(self, data: bytes) -> None:
        self._ask(data[0], self._body)

    def _body(self, _name: bytes) -> None:
        """Behind the word and the name of a page record."""
        if self._record == FLAG_ZERO:
            self._state.zero_page_count += 1
            self._skip = 1
        else:
            self._state.page_count += 1
            if self._record == FLAG_PAGE:
                self._skip = self._state.page_size
            else:
                self._ask(3 if self._record == FLAG_XBZRLE else 4, self._packed_size)
                return
        self._ask(8, self._word)

    def _packed_size(self, data: bytes) -> None:
        """XBZRLE: u8 flag, u16 length; compressed: u32 length."""
        self._skip = int.from_bytes(data[1:] if self._record == FLAG_XBZRLE else data, "big")
        self._ask(8, self._word)

    def _search(self, data: bytes, offset: int) -> None:
        """Look for the end of the stream in what cannot be walked."""
        state = self._state
        window = self._tail + data
        start = offset - len(self._tail)
        for match in _MARK.finditer(window):
            if match.end(1) <= len(window):
                state.description_offset = start + match.start() + _MARK_SIZE
                state.candidate_end = state.description_offset + int.from_bytes(match[1], "big")
        state.footer_and_end = len(window) >= 6 and window[-6:-3] == b"\x7e\0\0" and window[-1] == 0
        self._tail = window[-(_MARK_SIZE - 1) :]
