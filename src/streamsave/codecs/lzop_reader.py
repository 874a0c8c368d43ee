"""lzop payloads of any shape, decoded by one thread."""

from __future__ import annotations

from operator import eq

from .base import DecodeError, ReadBytes, TruncatedError
from .lzop_container import (
    ADLER_OF_BLOCK,
    ADLER_OF_DATA,
    BLOCK_SIZE,
    CRC_OF_BLOCK,
    CRC_OF_DATA,
    LARGEST_BLOCK,
    MAGIC,
    PIECE_SIZE,
    U32,
    check_sizes,
    expand,
    read_header,
)


class LzopReader:
    """Any lzop payload: files back to back, of any blocks and checks. What follows the last one is ignored, as lzop does.

    Unlike ``lzop``, not if it almost is another one, or a block that lost its size: then a flipped bit would lose the rest.
    Filters, which no ``lzop`` applies unasked, and files in several parts are refused.
    """

    def __init__(self, read: ReadBytes) -> None:
        import deflate

        from .._native.lzo import decompress

        self._decompress = decompress
        self._block_checks = ((ADLER_OF_BLOCK, deflate.adler32), (CRC_OF_BLOCK, deflate.crc32))
        self._data_checks = ((ADLER_OF_DATA, deflate.adler32), (CRC_OF_DATA, deflate.crc32))
        self._read = read
        self._ahead = bytearray()
        """What was read and not yet used."""
        self._flags: int | None = None
        """Of the file that we are in."""
        self._rest = memoryview(b"")
        """Of a block that did not fit."""
        self._started = self._ended = False

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``."""
        filled = 0
        while filled < len(view):
            room = view[filled:]
            if self._rest:
                size = min(len(self._rest), len(room))
                room[:size] = self._rest[:size]
                self._rest = self._rest[size:]
                filled += size
            elif self._flags is not None:
                filled += self._read_block(room, self._flags)
            elif not self._next_starts():
                break
        return filled

    def _next_starts(self) -> bool:
        """Enter the next file, or find that there is none."""
        if self._ended:
            return False
        head = self._peek(len(MAGIC))
        if head == MAGIC:
            self._take(len(MAGIC))
            self._flags = read_header(self._take)
        elif head == MAGIC[: len(head)] and (head or not self._started):
            raise TruncatedError("the payload ends before an lzop file does")
        elif not self._started:
            self._flags = ADLER_OF_BLOCK  # behind a frame of ours, or _read_block says what is wrong
        elif _resembles_a_start(head):
            raise DecodeError("the start of an lzop file, or of a block, is damaged")
        else:
            self._ended = True
        self._started = True
        return not self._ended

    def _read_block(self, room: memoryview, flags: int) -> int:
        """The next block into ``room``; the number of bytes. 0: it was the file's end, or the block waits in ``_rest``."""
        size = self._take_u32()
        if not size:
            self._flags = None
            return 0
        data_size = self._take_u32()
        check_sizes(size, data_size, LARGEST_BLOCK)
        of_block = [(check, self._take_u32()) for flag, check in self._block_checks if flags & flag]
        of_data = [(check, self._take_u32()) for flag, check in self._data_checks if flags & flag and data_size < size]
        data = self._take(data_size)
        fits = size <= len(room)
        block = room[:size] if fits else memoryview(bytearray(size))
        for check, expected in of_data:
            if check(data) != expected:
                raise DecodeError("a checksum of the data of an lzop block is wrong")
        expand(data, block, self._decompress)
        for check, expected in of_block:
            if check(block) != expected:
                raise DecodeError("a checksum of an lzop block is wrong")
        if not fits:
            self._rest = block
        return size if fits else 0

    def _peek(self, size: int) -> bytearray:
        """The next ``size`` bytes, without taking them; fewer only at the end of the payload."""
        while len(self._ahead) < size and (more := self._read(PIECE_SIZE)):
            self._ahead += more
        return self._ahead[:size]

    def _take(self, size: int) -> bytearray:
        """The next ``size`` bytes."""
        data = self._peek(size)
        if len(data) < size:
            raise TruncatedError("the payload ends before an lzop file does")
        del self._ahead[:size]
        return data

    def _take_u32(self) -> int:
        return int.from_bytes(self._take(U32.size), "big")


def _resembles_a_start(head: bytearray) -> bool:
    """Whether ``head`` is the magic but for a few bits, or what follows the size of a block."""
    lost_size = len(head) == len(MAGIC) and 0 < int.from_bytes(head[:4], "big") <= BLOCK_SIZE
    return lost_size or sum(map(eq, head, MAGIC)) >= len(MAGIC) // 2
