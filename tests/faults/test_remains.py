"""What an operation held is gone after its error too: an agent that looks at many damaged images does not grow."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from streamsave.errors import TruncatedImageError
from streamsave.operations.convert import convert
from streamsave.operations.verify import verify
from streamsave.pipeline.bufpool import Slot

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def slots() -> int:
    gc.collect()
    return sum(isinstance(each, Slot) for each in gc.get_objects())


@pytest.mark.parametrize("image", sorted(GOLDEN.glob("*.save")), ids=lambda image: image.name)
def test_no_slot_is_left_of_a_damaged_image(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[: len(data) - len(data) // 50])
    before = slots()
    with pytest.raises(TruncatedImageError):
        verify(cut)
    with pytest.raises(TruncatedImageError):
        convert(cut, tmp_path / "converted")
    assert slots() == before
