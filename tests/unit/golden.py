"""The images that stock virsh wrote (tests/data/golden): what their README says of them, and their bytes."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
PAYLOAD_OFFSET = 67148
FORMATS = {"raw": 0, "gzip": 1, "bzip2": 2, "lzop": 4, "zstd": 5}


def image(word: str) -> bytes:
    return (GOLDEN / f"tiny.{word}.save").read_bytes()


def stream() -> bytes:
    """The migration stream of the raw image."""
    return image("raw")[PAYLOAD_OFFSET:]
