"""What may happen to the bytes of an image. Each damage begins in a region: between two places in the file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Final

from .damage_samples import Sample, samples

Damage = Callable[[Random, bytearray, int, int, Sample], None]
HEADER_FIELDS: Final = (16, 20, 24, 28, 32, 60, 64, 68, 76, 84)
"""The numbers in the header, and those in its pointer to the index."""
HOSTILE: Final = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
SIZES_NEAR_START: Final = 48
"""In so many bytes from the start of a frame, or of an index, stand the sizes that are in it."""


def flip(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """Of a bit, or a few."""
    for _ in range(random.choice([1, 1, 1, 2, 8])):
        data[random.randrange(start, end)] ^= 1 << random.randrange(8)


def cut(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """Everything from somewhere on is lost."""
    del data[random.randrange(start, end) :]


def remove(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A few bytes are lost."""
    at = random.randrange(start, end)
    del data[at : at + random.choice([1, 4, 100, 5000])]


def insert(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A few bytes too many."""
    at = random.randrange(start, end)
    data[at:at] = random.choice([bytes(1), bytes(4096), random.randbytes(random.choice([1, 4, 1000]))])


def blank(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A sector or a page, or more of them, that was never written."""
    at = random.randrange(start, end)
    size = min(random.choice([4, 512, 4096, 100_000]), len(data) - at)
    data[at : at + size] = random.choice([bytes(size), b"\xff" * size, random.randbytes(size)])


def splice(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A piece of this image or of another, perhaps a frame, in place of another."""
    donor = random.choice(samples()) if random.random() < 0.5 else sample
    frames = _frames(sample, start, end)
    if frames and donor.frames and random.random() < 0.5:
        (at, old_size), (origin, size) = random.choice(frames), random.choice(donor.frames)
        data[at : at + old_size] = donor.data[origin : origin + size]
        return
    size = min(random.choice([8, 64, 4096, 65536]), end - start)
    at, origin = random.randrange(start, end), random.randrange(max(1, len(donor.data) - size))
    data[at : at + size] = donor.data[origin : origin + size]


def resize(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A number that is, or may be, a size becomes a hostile one."""
    at = random.randrange(start, max(start + 1, end - 8))
    if random.random() < 0.7:
        if start == 0:
            at = random.choice(HEADER_FIELDS)
        else:
            at = random.choice(_frames(sample, start, end) or [(start, 0)])[0] + random.randrange(SIZES_NEAR_START)
    value = random.choice([*HOSTILE, len(data)])
    wide = random.random() < 0.5
    number = struct.pack(random.choice("<>") + ("Q" if wide else "I"), value & ((1 << 64) - 1 if wide else 0xFFFFFFFF))
    data[at : at + len(number)] = number


def swap(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """Two frames, or two pieces where no frames are known."""
    frames = _frames(sample, start, end)
    if len(frames) > 1:
        (first, first_size), (second, second_size) = sorted(random.sample(frames, 2))
    else:
        first_size = second_size = max(1, (end - start) // 4)
        first, second = start, end - second_size
    pieces = data[second : second + second_size], data[first + first_size : second], data[first : first + first_size]
    data[first : second + second_size] = b"".join(pieces)


def repeat(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A frame twice."""
    at, size = random.choice(_frames(sample, start, end) or [(start, min(4096, end - start))])
    data[at:at] = data[at : at + size]


def _frames(sample: Sample, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """Those of ``sample``, if it is they that are to be hit."""
    return sample.frames if (start, end) == sample.regions["frames"] else ()


DAMAGES: Final[dict[str, Damage]] = {
    damage.__name__: damage for damage in (flip, cut, remove, insert, blank, splice, resize, swap, repeat)
}
