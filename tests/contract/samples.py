"""What the checks compress: always the same bytes, from the dullest to the ones that do not compress."""

from __future__ import annotations

from random import Random

from streamsave.units import KiB

WORDS = b"the guest writes what it likes into its pages and nobody can tell how well that will compress ".split()


def zeros(size: int) -> bytes:
    return bytes(size)


def text(size: int) -> bytes:
    random = Random(size)
    block = b" ".join(random.choices(WORDS, k=4 * KiB))
    return (block * (size // len(block) + 1))[:size]


def noise(size: int) -> bytes:
    return Random(size).randbytes(size)


def mixed(size: int) -> bytes:
    """A bit of everything in turn, as memory has it."""
    parts = [text(3000), noise(700), zeros(5000), bytes(range(256)) * 3]
    block = b"".join(parts)
    return (block * (size // len(block) + 1))[:size]


CONTENTS = {"zeros": zeros, "text": text, "noise": noise, "mixed": mixed}
