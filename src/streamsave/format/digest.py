"""The digest of a migration stream: XXH3-128 of every MiB of it, and one of all those.

A **leaf** covers 1 MiB of the stream at a fixed offset, however the stream is cut into chunks (which are whole MiBs), so the
**root** is the same in every format. It detects accidents; it is no protection against an attacker.
"""

from __future__ import annotations

import struct
from typing import Final

from xxhash import xxh3_128, xxh3_128_digest

from ..types import Buffer
from ..units import MiB

LEAF_SIZE: Final = 1 * MiB
"""Bytes of the stream under a leaf; the last leaf of a stream covers what is left."""
DIGEST_SIZE: Final = 16
"""Of a leaf and of the root: XXH3-128 in its canonical form, the most significant byte first."""
_SIZES: Final = struct.Struct("<QQ")


def leaf_count(stream_size: int) -> int:
    """How many leaves a stream of that many bytes has."""
    return -(-stream_size // LEAF_SIZE)


def leaves_of(chunk: memoryview) -> bytes:
    """The leaves of ``chunk``, which starts at a multiple of ``LEAF_SIZE`` in the stream. Releases the GIL."""
    if len(chunk) <= LEAF_SIZE:
        return xxh3_128_digest(chunk) if chunk else b""
    return b"".join(xxh3_128_digest(chunk[start : start + LEAF_SIZE]) for start in range(0, len(chunk), LEAF_SIZE))


def root_of(stream_size: int, leaves: Buffer) -> bytes:
    """The root: XXH3-128 of u64 stream size, u64 leaf size (little-endian), and the leaves in order."""
    root = xxh3_128(_SIZES.pack(stream_size, LEAF_SIZE))
    root.update(leaves)
    return root.digest()
