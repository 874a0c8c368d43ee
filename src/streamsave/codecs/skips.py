"""Heads that tell a decoder to skip what follows them: for ``Codec.cover`` of formats that have such a thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def cover_with(head: Callable[[int], bytes], head_size: int, body_max: int, size: int) -> Iterator[tuple[int, bytes]]:
    """``head(n)``, of ``head_size`` bytes, skips the ``n`` bytes behind it, ``body_max`` at most; all of it ``size`` bytes.

    Raises:
        ValueError: ``size`` is less than one head, and not 0.

    """
    if 0 < size < head_size:
        raise ValueError(f"{size} bytes, and {head_size} say that they are to be skipped")
    offset = 0
    while offset < size:
        body = min(body_max, size - offset - head_size)
        left = size - offset - head_size - body
        if 0 < left < head_size:
            body -= head_size  # or the last head had no room
        yield offset, head(body)
        offset += head_size + body
