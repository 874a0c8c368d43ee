"""Frames that were written once and must decode for ever: an image does not get newer.

``python -m tests.contract.golden`` writes those that are missing, and never touches one that is there.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs

from .checks import encode

FRAMES = Path(__file__).parent.parent / "data" / "frames"


def golden_chunk() -> bytes:
    """Runs, text, zeros, and what does not compress; made here of nothing that may change."""
    noise = b"".join(sha256(b"%d" % number).digest() for number in range(20))
    return bytes(range(256)) * 4 + b"a save image must restore in ten years. " * 20 + bytes(2000) + noise


def ours() -> list[Codec]:
    """The codecs of this package: others keep their own golden frames."""
    return [codec for codec in codecs().values() if type(codec).__module__.startswith("streamsave.")]


def golden_levels(codec: Codec) -> list[int]:
    """Those between which a codec might change its library or its parameters most."""
    return sorted({codec.levels[0], codec.default_level, codec.tool_level, codec.levels[-1]}) if codec.levels else [0]


def frame_path(codec: Codec, level: int) -> Path:
    return FRAMES / f"{codec.name}-{level}.frame"


def main() -> None:
    for codec in ours():
        for level in golden_levels(codec):
            path = frame_path(codec, level)
            if not path.exists():
                path.write_bytes(encode(codec, golden_chunk(), level))
                print(f"wrote {path}")


if __name__ == "__main__":
    main()
