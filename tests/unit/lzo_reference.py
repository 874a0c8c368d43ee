"""LZO1X decompression, instruction by instruction and byte by byte: what ``native/lzo_decompress.c`` has to agree with.

From the description in Linux' Documentation/staging/lzo.rst. Slow, and without a thought about memory.
"""

from __future__ import annotations

END = b"\x11\0\0"


class Damaged(Exception):
    """This is not an LZO1X stream of so many bytes."""


def decompress(data: bytes, size: int) -> bytes:
    """The ``size`` bytes that all of ``data`` hold.

    Raises:
        Damaged: they do not.

    """
    stream = _Stream(data, size)
    try:
        stream.run()
    except IndexError:
        raise Damaged("the data end too early") from None
    if stream.at != len(data) or len(stream.out) != size:
        raise Damaged("too much or too little")
    return bytes(stream.out)


class _Stream:
    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size
        self.at = 0
        self.out = bytearray()
        self.literals = 0
        """How many were copied since the last match, at most 4."""

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def word(self) -> int:
        return self.byte() | self.byte() << 8

    def length(self, short: int, most: int) -> int:
        if short:
            return short
        length = most
        while not (byte := self.byte()):
            length += 255
        return length + byte

    def copy_literals(self, count: int) -> None:
        if len(self.out) + count > self.size:
            raise Damaged("too many literals")
        for _ in range(count):
            self.out.append(self.byte())
        self.literals = min(count, 4)

    def copy_match(self, distance: int, length: int, literals: int) -> None:
        if distance > len(self.out) or len(self.out) + length > self.size:
            raise Damaged("a match before the start or beyond the end")
        for _ in range(length):
            self.out.append(self.out[-distance])
        self.copy_literals(literals)

    def run(self) -> None:
        if self.data[0] > 17:
            self.copy_literals(self.byte() - 17)
        while True:
            code = self.byte()
            if code >= 128:
                self.copy_match((self.byte() << 3) + (code >> 2 & 7) + 1, 5 + (code >> 5 & 3), code & 3)
            elif code >= 64:
                self.copy_match((self.byte() << 3) + (code >> 2 & 7) + 1, 3 + (code >> 5 & 1), code & 3)
            elif code >= 32:
                length = 2 + self.length(code & 31, 31)
                word = self.word()
                self.copy_match((word >> 2) + 1, length, word & 3)
            elif code >= 16:
                length = 2 + self.length(code & 7, 7)
                word = self.word()
                distance = 16384 + ((code & 8) << 11) + (word >> 2)
                if distance == 16384:
                    if (length, word) != (3, 0):
                        raise Damaged("an end that is none")
                    return
                self.copy_match(distance, length, word & 3)
            elif self.literals == 0:
                self.copy_literals(3 + self.length(code, 15))
            elif self.literals < 4:
                self.copy_match((self.byte() << 2) + (code >> 2) + 1, 2, code & 3)
            else:
                self.copy_match((self.byte() << 2) + (code >> 2) + 2049, 3, code & 3)
