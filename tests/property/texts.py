"""What a block sorter finds hard: runs at the lengths where bzip2 writes them otherwise, repetitions, few characters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from random import Random

from hypothesis import strategies as st

RUNS = (1, 2, 3, 4, 5, 8, 254, 255, 256, 257, 258, 259, 260, 511, 1020)

byte = st.integers(0, 255).map(lambda value: bytes([value])) | st.sampled_from([b"\0", b"\1", b"\4", b"\xfb", b"\xff", b"a"])
runs = st.builds(lambda what, size: what * size, byte, st.sampled_from(RUNS))
periodic = st.builds(lambda unit, size: (unit * size)[: size + 1], st.binary(min_size=1, max_size=9), st.integers(1, 300))
few = st.text("ab", max_size=60).map(str.encode) | st.text("abc", max_size=60).map(str.encode)
pieces = st.binary(max_size=40) | runs | periodic | few | st.just(bytes(range(256)))
texts = st.lists(pieces, max_size=8).map(b"".join) | st.lists(st.sampled_from([b"ab", b"aab", b"b"]), max_size=60).map(
    b"".join
)


def random_text(rng: Random) -> bytes:
    """The same, quickly, and up to some 100 KB."""
    out: list[bytes] = []
    for _ in range(rng.randint(0, 12)):
        alphabet = bytes(rng.sample(range(256), rng.choice([1, 2, 3, 20, 256])))
        unit = bytes(rng.choices(alphabet, k=rng.choice([1, 2, 3, 5, 16, 100, 1000])))
        kind = rng.randrange(4)
        if kind == 0:
            out.append(unit[:1] * rng.choice(RUNS))
        elif kind == 1:
            out.append(unit * rng.randint(1, 60))
        elif kind == 2 and out:
            out.append(rng.choice(out))
        else:
            out.append(unit)
    return b"".join(out)


def fibonacci(size: int) -> bytes:
    """The text whose suffixes have the longest common beginnings."""
    before, text = b"b", b"a"
    while len(text) < size:
        before, text = text, text + before
    return text[:size]


def thue_morse(size: int) -> bytes:
    """No piece of it three times in a row."""
    return bytes(97 + number.bit_count() % 2 for number in range(size))


def ruler(size: int) -> bytes:
    """Every name of it comes back at every level of a sort that gives names."""
    return bytes(islice(((number & -number).bit_length() for number in range(1, size + 1)), size))


HARD: dict[str, Callable[[int], bytes]] = {
    "zeros": bytes,
    "one other": lambda size: bytes(size - 1) + b"\1",
    "period 2": lambda size: (b"ab" * size)[:size],
    "period 5": lambda size: (b"\0\0\0\0\xfb" * size)[:size],
    "period 4096": lambda size: (Random(1).randbytes(4096) * (size // 4096 + 1))[:size],
    "twice": lambda size: Random(1).randbytes(size // 2) * 2,
    "up": lambda size: bytes(number * 256 // size for number in range(size)),
    "down": lambda size: bytes(255 - number * 256 // size for number in range(size)),
    "saw": lambda size: (bytes(range(256)) * (size // 256 + 1))[:size],
    "fibonacci": fibonacci,
    "thue morse": thue_morse,
    "ruler": ruler,
}
"""Texts of any size on which careless sorts take forever."""
