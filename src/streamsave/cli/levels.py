"""The levels that an image was compressed at, as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..format.levels import LevelUse


def level_text(uses: Sequence[LevelUse]) -> str:
    """`` level 3``; of several ``, levels 3 to 9 (mostly 7: 82 %)``, by the stream; nothing for a codec without levels."""
    if not uses:
        return ""
    if len(uses) == 1:
        return f" level {uses[0].level}"
    most = max(uses, key=lambda use: use.stream_size)
    share = 100 * most.stream_size / (sum(use.stream_size for use in uses) or 1)
    return f" levels {uses[0].level} to {uses[-1].level}, mostly {most.level} ({share:.0f} %)"


def level_fields(uses: Sequence[LevelUse]) -> list[dict[str, int]]:
    """For programs: one object for each level."""
    return [
        {
            "level": use.level,
            "frame_count": use.frame_count,
            "stream_size": use.stream_size,
            "payload_size": use.payload_size,
        }
        for use in uses
    ]
