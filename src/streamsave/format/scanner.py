"""The scanner of migration streams: the reference, in plain Python. ``native/scan*.c`` is the same in C, for use.

A push parser: fed in pieces of any size, it never looks back further than a few bytes, and its memory is bounded whatever
it is fed. Each step is given the bytes that the one before asked for; what cannot be walked is searched for the stream's
end. Both implementations agree bit for bit (tests/property/test_scanner.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ..types import Buffer
from .migration import PageContents, PageKind, PageRecord, Phase, ScanState, StreamMap, map_of

MAGIC: Final = b"QEVM\0\0\0\3"
MAX_BLOCKS: Final = 512
"""RAM blocks that are remembered; a stream with more (none is known) is walked no further."""
MAX_NAME: Final = 255
"""Bytes of a machine's name; all other names have a length of one byte."""

SECTION_END, SECTION_START, SECTION_PART, SECTION_LAST, SECTION_FULL = 0, 1, 2, 3, 4
SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND, FOOTER = 5, 6, 7, 8, 0x7E

FLAG_ZERO, FLAG_MEM_SIZE, FLAG_PAGE, FLAG_EOS, FLAG_CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
FLAG_XBZRLE, FLAG_COMPRESSED, FLAG_FLUSH = 0x40, 0x100, 0x200
FLAGS: Final = 0xFFF
"""The bits of a record's word that are flags: offsets are multiples of 4096 at least."""

CAPABILITIES, PAGE_BITS, UUID = (b"configuration/" + name for name in (b"capabilities", b"target-page-bits", b"uuid"))

_FOOTED_MARK: Final = re.compile(rb"(?s)(?=\x7e\0\0..\0\x06(....)())")
"""Footer (section numbers are small), end mark, description, its size. Look-aheads: matches may overlap."""
_BARE_MARK: Final = re.compile(rb"(?s)(?=\0\x06(....)()\{)")
"""Without a footer: the brace that opens the description makes up for it."""
_LOOK_BACK: Final = 10
"""One byte less than the longest mark."""


class StreamScanner:
    """``feed`` it the stream, in order; ``map()`` at any time."""

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
        self._footers: bool | None = None
        self._record = 0
        self._ram_left = 0
        self._capabilities_left = 0
        self._piece_start = 0
        self._word_start = 0
        self._block_number = -1
        self._page = 0
        self._last_page = (-1, 0)
        self.first_record: PageRecord | None = None
        """The first page record that begins in the piece that was fed last."""
        self.log: list[PageContents] | None = None
        """Where all page records are noted, if anybody wants them."""

    @classmethod
    def resumed(cls, stream: StreamMap, ram_id: int, record: PageRecord) -> StreamScanner:
        """A scanner of that stream that stands before ``record``. ``ram_id``: of the RAM's section."""
        scanner = cls()
        state = scanner._state
        state.size, state.phase, state.ram_offset, state.page_size = (
            record.stream_offset,
            Phase.STRUCTURE,
            0,
            stream.page_size,
        )
        state.blocks = tuple((block.name.encode(), block.size) for block in stream.ram_blocks)
        scanner._ram_id, scanner._block_number = ram_id, record.block
        scanner._ask(8, scanner._word)
        return scanner

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
        self._piece_start, self.first_record = state.size, None
        with memoryview(data).cast("B") as view:
            at = 0
            while at < len(view):
                if state.phase in (Phase.OPAQUE, Phase.FOREIGN):
                    if state.phase == Phase.OPAQUE:
                        self._search(bytes(view[at:]))
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
                if len(self._held) == self._need:
                    held, self._held = bytes(self._held), bytearray()
                    self._next(held)

    def _ask(self, need: int, then: Callable[[bytes], None]) -> None:
        """Call ``then`` with the next ``need`` bytes, once what is skipped has passed."""
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
        self._section_start = state.size - 1
        if kind == SECTION_END and state.ram_end >= 0:
            state.phase = Phase.ENDED
            self._ask(1, self._after_end)
        elif kind == CONFIGURATION and state.size == len(MAGIC) + 1:
            self._ask(4, self._machine_size)
        elif kind == SUBSECTION and state.ram_offset < 0:
            self._ask(1, self._subsection_name_size)
        elif kind == SECTION_START and state.ram_offset < 0:
            self._ask(5, self._section_name_size)
        elif kind in (SECTION_PART, SECTION_LAST) and self._ram_id >= 0:
            self._last_section = kind == SECTION_LAST
            self._ask(4, self._part)
        elif kind == COMMAND:
            self._ask(4, self._command)
        else:
            if kind == SECTION_FULL and state.ram_end >= 0:
                state.device_offset = self._section_start
            self._give_up()

    def _after_end(self, data: bytes) -> None:
        if data[0] == DESCRIPTION:
            self._state.phase = Phase.STRUCTURE
            self._ask(4, self._description_size)
        else:
            self._give_up()

    def _description_size(self, data: bytes) -> None:
        state = self._state
        state.description_offset = state.size
        state.description_end = state.size + int.from_bytes(data, "big")
        self._give_up()

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
        """Name, u32 version."""
        name = data[:-4]
        if name == CAPABILITIES:
            self._ask(4, self._capability_count)
        elif name == PAGE_BITS:
            self._ask(4, self._page_bits)
        elif name == UUID:
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
        """Name, u32 instance, u32 version."""
        if data[:-8] == b"ram":
            self._state.ram_offset = self._section_start
            self._ask(8, self._word)
        else:
            self._give_up()

    def _part(self, data: bytes) -> None:
        if int.from_bytes(data, "big") == self._ram_id:
            self._ask(8, self._word)
        else:
            self._give_up()

    def _after_ram_section(self, data: bytes) -> None:
        """The first RAM section tells whether this stream has footers."""
        if self._footers is None:
            self._footers = data[0] == FOOTER
        if not self._footers:
            self._top(data)
        elif data[0] == FOOTER:
            self._ask(4, self._footer)
        else:
            self._give_up()

    def _footer(self, data: bytes) -> None:
        if int.from_bytes(data, "big") == self._ram_id:
            self._ask(1, self._top)
        else:
            self._give_up()

    def _command(self, data: bytes) -> None:
        """u16 command, u16 size."""
        self._skip = int.from_bytes(data[2:], "big")
        self._ask(1, self._top)

    def _word(self, data: bytes) -> None:
        """The word at the start of each RAM record."""
        word = int.from_bytes(data, "big")
        flags = word & FLAGS
        self._record = flags & ~FLAG_CONTINUE
        self._word_start = self._state.size - 8
        self._page = word & ~FLAGS
        if flags == FLAG_EOS:
            if self._last_section:
                self._state.ram_end = self._state.size
            self._ask(1, self._after_ram_section)
        elif flags == FLAG_FLUSH:
            self._ask(8, self._word)
        elif flags == FLAG_MEM_SIZE:
            self._ram_left = word & ~FLAGS
            self._next_block()
        elif self._record not in (FLAG_ZERO, FLAG_PAGE, FLAG_XBZRLE, FLAG_COMPRESSED):
            self._give_up()
        elif flags & FLAG_CONTINUE:
            self._body()
        else:
            self._ask(1, self._page_name_size)

    def _next_block(self) -> None:
        if self._ram_left > 0:
            self._ask(1, self._block_name_size)
        else:
            self._ask(8, self._word)

    def _block_name_size(self, data: bytes) -> None:
        """No block is nameless: here stands what x-ignore-shared or postcopy with huge pages adds to a block."""
        if data[0]:
            self._ask(data[0] + 8, self._block)
        else:
            self._give_up()

    def _block(self, data: bytes) -> None:
        """Name, u64 used size."""
        size = int.from_bytes(data[-8:], "big")
        if len(self._state.blocks) == MAX_BLOCKS or not 0 < size <= self._ram_left:
            self._give_up()
            return
        self._state.blocks += ((data[:-8], size),)
        self._ram_left -= size
        self._next_block()

    def _page_name_size(self, data: bytes) -> None:
        self._ask(data[0], self._page_name)

    def _page_name(self, data: bytes) -> None:
        names = [name for name, _ in self._state.blocks]
        self._block_number = names.index(data) if data in names else -1
        self._body()

    def _note_page(self) -> None:
        page = (self._block_number, self._page)
        if self._block_number < 0 or page <= self._last_page or self._record not in (FLAG_PAGE, FLAG_ZERO):
            self._state.pages_in_order = False
        self._last_page = page
        if self.log is not None:
            self.log.append(PageContents(*page, self._state.size, PageKind(self._record)))
        if self.first_record is None and self._word_start >= self._piece_start:
            self.first_record = PageRecord(self._word_start, *page)

    def _body(self) -> None:
        """Behind the word and the name of a page record."""
        self._note_page()
        if self._record == FLAG_ZERO:
            self._state.zero_page_count += 1
            self._skip = 1
        else:
            self._state.page_count += 1
            if self._record != FLAG_PAGE:
                self._ask(3 if self._record == FLAG_XBZRLE else 4, self._packed_size)
                return
            self._skip = self._state.page_size
        self._ask(8, self._word)

    def _packed_size(self, data: bytes) -> None:
        """XBZRLE: u8 flag, u16 size; compressed: u32 size."""
        self._skip = int.from_bytes(data[1:] if self._record == FLAG_XBZRLE else data, "big")
        self._ask(8, self._word)

    def _search(self, data: bytes) -> None:
        """Look for the end of the stream in what cannot be walked. ``data`` begins at the state's size."""
        state = self._state
        window = self._tail + data
        start = state.size - len(self._tail)
        for match in (_BARE_MARK if self._footers is False else _FOOTED_MARK).finditer(window):
            state.description_offset = start + match.start(2)
            state.description_end = state.description_offset + int.from_bytes(match[1], "big")
        if self._footers is False:
            state.end_mark = window[-1] == SECTION_END
        else:
            state.end_mark = window[-6:-3] == b"\x7e\0\0" and window[-1] == SECTION_END
        self._tail = window[-_LOOK_BACK:]
