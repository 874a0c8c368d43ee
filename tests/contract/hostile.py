"""What the tests of foreign and hostile payloads share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamsave.codecs.base import Codec, DecodeError
from streamsave.units import MiB

from ..kit.leaks import forget_peak, memory
from ..kit.missing import missing
from .checks import decode


def peak_growth(call: Callable[[], object]) -> int:
    """By how many bytes the resident memory of this process grew at most while ``call`` ran."""
    try:
        before = forget_peak()
    except OSError as error:
        missing(f"the peak of memory cannot be reset here: {error}")
    call()
    return memory("VmHWM") - before


def refuses(codec: Codec, frame: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(codec, frame, MiB)
