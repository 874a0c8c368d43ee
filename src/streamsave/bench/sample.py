"""Pieces of a migration stream, spread evenly over it: what the measurements are made with.

From an image, from a guest (``guest``), or, where nothing is given, from the host's own programs and libraries, which is
what the memory of most guests is full of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..cancel import Cancellation
from ..errors import SourceError
from ..operations.image_stream import open_stream
from ..units import KiB, MiB

PIECE_SIZE: Final = 4 * MiB
"""A multiple of every codec's chunk, so that a piece is whole chunks whatever the codec: xz has the largest."""
LEAST_SIZE: Final = 32 * MiB
MOST_SIZE: Final = 256 * MiB
PROGRAM_FOLDERS: Final = ("/usr/lib", "/usr/lib64", "/usr/bin")
LEAST_PROGRAM: Final = 256 * KiB
PROGRAM_SHARE: Final = 1 * MiB
"""The most that is taken of one file."""
ELF_MAGIC: Final = b"\x7fELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Whole pieces, one behind the other, and what is known of the stream that they are of."""

    data: bytearray
    origin: str
    """For people: what it is a sample of."""
    stream_size: int = 0
    """Of the whole stream, in bytes; 0: there is none, or nobody knows."""
    source_rate: float = 0.0
    """MiB/s at which QEMU sent it; 0: nobody did."""

    @property
    def piece_count(self) -> int:
        """How many there are, at least one."""
        return len(self.data) // PIECE_SIZE

    def pieces(self, count: int) -> memoryview:
        """``count`` of them."""
        return memoryview(self.data)[: count * PIECE_SIZE]


def sample_size(threads: int) -> int:
    """Enough for every thread to have some chunks of the largest size."""
    return min(MOST_SIZE, max(LEAST_SIZE, 2 * threads * PIECE_SIZE))


def spread(order_of: int) -> Iterator[int]:
    """0 to ``order_of`` - 1 so that the beginning of the order is spread over all of it too."""
    bits = max(1, (order_of - 1).bit_length())
    for number in range(1 << bits):
        place = int(f"{number:0{bits}b}"[::-1], 2)
        if place < order_of:
            yield place


def sample_image(path: str | Path, size: int, cancel: Cancellation) -> Sample:
    """Of the stream of an image. One without an index is only read from its start: there is no way to the rest but through.

    Raises:
        ImageError, SourceError: the image cannot be read.
        Aborted: ``cancel`` was used.

    """
    data = bytearray()
    with open_stream(path) as stream:
        indexed = stream.info.index is not None
        whole = stream.size if indexed else 0
        count = min(size, whole) // PIECE_SIZE if indexed else size // PIECE_SIZE
        for place in spread(count) if indexed else range(count):
            cancel.check()
            offset = place * whole // count if indexed else place * PIECE_SIZE
            data += stream.read_at(offset, PIECE_SIZE)
        if not data:
            data += stream.read_at(0, PIECE_SIZE)
    where = "pieces of all of it" if indexed else "its beginning, for it has no index"
    return Sample(data=filled(data), origin=f"{path}: {where}", stream_size=whole)


def sample_host(size: int, cancel: Cancellation) -> Sample:
    """Of the programs and libraries here.

    Raises:
        SourceError: there are none that could be read.
        Aborted: ``cancel`` was used.

    """
    data = bytearray()
    for path in _programs():
        cancel.check()
        try:
            with path.open("rb") as file:
                beginning = file.read(PROGRAM_SHARE)
                data += beginning if beginning.startswith(ELF_MAGIC) else b""
        except OSError:
            continue
        if len(data) >= size:
            break
    if not data:
        raise SourceError(f"no programs could be read in {', '.join(PROGRAM_FOLDERS)}: name an image, or a guest with --qmp")
    return Sample(data=filled(data), origin="programs and libraries of this host, not a guest of yours")


def _programs() -> Iterator[Path]:
    for top in PROGRAM_FOLDERS:
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                path = Path(folder, name)
                try:
                    if not path.is_symlink() and path.stat().st_size >= LEAST_PROGRAM:
                        yield path
                except OSError:
                    continue


def filled(data: bytearray) -> bytearray:
    """``data`` as whole pieces: cut to them, or repeated until it is one."""
    if len(data) >= PIECE_SIZE:
        del data[len(data) // PIECE_SIZE * PIECE_SIZE :]
        return data
    return bytearray((bytes(data or b"\0") * (PIECE_SIZE // max(1, len(data)) + 1))[:PIECE_SIZE])
