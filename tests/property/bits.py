"""What ``native/bits.c`` does, in the simplest way: strings of zeros and ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def to_bits(data: bytes) -> str:
    return f"{int.from_bytes(b'1' + data, 'big'):b}"[6:]


def to_bytes(bits: str) -> bytes:
    """Zeros fill the last byte."""
    bits += "0" * (-len(bits) % 8)
    return int(f"1{bits}", 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def find(data: bytes, start: int, numbers: Sequence[int]) -> int:
    bits = to_bits(data)
    found = [bits.find(f"{number:048b}", start) for number in numbers]
    return min((position for position in found if position >= 0), default=-1)


def find_all(data: bytes, numbers: Sequence[int]) -> Iterator[int]:
    position = find(data, 0, numbers)
    while position >= 0:
        yield position
        position = find(data, position + 1, numbers)


def copied(target: bytes, to: int, source: bytes, start: int, length: int) -> bytes:
    """``target`` with the bits in it."""
    written = to_bytes(to_bits(target)[:to] + to_bits(source)[start : start + length]) if length else b""
    return written + target[len(written) :]
