"""Which levels a payload was compressed at, and how much of it at each."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_ENTRY: Final = struct.Struct("<iQQQ")


@dataclass(frozen=True, slots=True)
class LevelUse:
    """What was compressed at one level. Sizes in bytes."""

    level: int
    frame_count: int = 0
    stream_size: int = 0
    """Of the chunks."""
    payload_size: int = 0
    """Of their frames."""

    def plus(self, chunk_size: int, frame_size: int) -> LevelUse:
        """The same with one frame more."""
        return LevelUse(self.level, self.frame_count + 1, self.stream_size + chunk_size, self.payload_size + frame_size)


def encode_levels(uses: Iterable[LevelUse]) -> bytes:
    """The body of the index's record."""
    return b"".join(_ENTRY.pack(use.level, use.frame_count, use.stream_size, use.payload_size) for use in uses)


def decode_levels(body: bytes) -> tuple[LevelUse, ...]:
    """What ``encode_levels`` was given.

    Raises:
        struct.error: ``body`` is of another size.

    """
    return tuple(LevelUse(*entry) for entry in _ENTRY.iter_unpack(body))
