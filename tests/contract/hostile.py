"""What the tests of foreign and hostile payloads share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamsave.codecs.base import Codec, DecodeError
from streamsave.units import KiB, MiB

from .checks import decode


def peak_growth(call: Callable[[], object]) -> int:
    """By how many bytes the resident memory of this process grew at most while ``call`` ran."""

    def status(key: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * KiB

    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the peak of memory cannot be reset here: {error}")
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def refuses(codec: Codec, frame: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(codec, frame, MiB)
