"""bzip2 blocks that no compressor makes: their compressed data are any bits one likes.

With 14 byte values in use there are 16 symbols. Give each a code of four bits, and every hexadecimal digit but the last,
which ends the block, is a symbol: whatever the digits spell, the block decodes to something.
"""

from __future__ import annotations

import bz2
from collections.abc import Sequence
from dataclasses import dataclass

from tests.property.bits import to_bytes

BLOCK = 0x314159265359
END = 0x177245385090
VALUES = b"abcdefghijklmn"
DIGITS = "0123456789abcde"
"""All that may be in a block's digits."""


@dataclass(frozen=True)
class Block:
    bits: str
    data: bytes
    """What it decodes to."""
    checksum: int


def block(digits: str, *, more_selectors: int = 0) -> Block:
    """A block whose Huffman codes are ``digits``; ``more_selectors`` than it has groups."""
    column = _column([int(digit, 16) for digit in digits])
    data = _expand(_untransform(column))
    checksum = int.from_bytes(bz2.compress(data)[10:14], "big") if data else 0
    groups = len(digits) // 50 + 1 + more_selectors
    used = sum(1 << 15 - value % 16 for value in VALUES)
    return Block(
        f"{BLOCK:048b}{checksum:032b}0{0:024b}"
        f"{1 << 15 - VALUES[0] // 16:016b}{used:016b}"
        f"{2:03b}{groups:015b}{'0' * groups}"
        + f"{4:05b}{'0' * 16}" * 2
        + "".join(f"{int(digit, 16):04b}" for digit in digits + "f"),
        data,
        checksum,
    )


def run_of(count: int) -> str:
    """The digits of a run of so many of the byte in front."""
    digits = ""
    while count:
        digits += "10"[count % 2]
        count = (count - 1) // 2
    return digits


def stream(*blocks: Block) -> bytes:
    """A stream of them, and its end."""
    checksum = 0
    for each in blocks:
        checksum = (checksum << 1 | checksum >> 31) & 0xFFFF_FFFF ^ each.checksum
    return b"BZh9" + to_bytes("".join(each.bits for each in blocks) + f"{END:048b}{checksum:032b}")


def _column(symbols: Sequence[int]) -> bytes:
    """Undo move-to-front and the coding of runs in digits 1 and 2."""
    order, out = list(VALUES), bytearray()
    run, weight = 0, 1
    for symbol in [*symbols, len(VALUES) + 1]:
        if symbol < 2:
            run += weight << symbol
            weight <<= 1
            continue
        out += bytes([order[0]]) * run
        run, weight = 0, 1
        if symbol <= len(VALUES):
            order.insert(0, order.pop(symbol - 1))
            out.append(order[0])
    return bytes(out)


def _untransform(column: bytes) -> bytes:
    """The Burrows-Wheeler transform backwards, from row 0."""
    row_of = sorted(range(len(column)), key=lambda row: column[row])
    out, row = bytearray(), row_of[0]
    for _ in column:
        out.append(column[row])
        row = row_of[row]
    return bytes(out)


def _expand(data: bytes) -> bytes:
    """Four of a kind are followed by how many more there are."""
    out, count, position = bytearray(), 0, 0
    while position < len(data):
        count = count + 1 if out and data[position] == out[-1] and count else 1
        out.append(data[position])
        position += 1
        if count == 4:
            if position < len(data):
                out += out[-1:] * data[position]
            position, count = position + 1, 0
    return bytes(out)
