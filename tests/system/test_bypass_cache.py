"""``--bypass-cache``: whole images past the page cache, into files, onto devices, in place of others, and into pipes."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from streamsave.endpoints.direct import DirectWriter
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.operations.save import save
from streamsave.operations.verify import verify
from streamsave.options import CompressOptions, SaveOptions
from streamsave.units import MiB

from ..kit.device import block_device
from ..kit.images import made_up_stream, restored, save_bytes
from ..kit.qemu import RunningQemu

STREAM = made_up_stream(3000)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each write by a ``DirectWriter`` that is done with: whether the system had refused it."""
    finish, finished = DirectWriter.finish, list[bool]()

    def look(self: DirectWriter) -> None:
        finish(self)
        finished.append(bool(self.refusal))

    monkeypatch.setattr(DirectWriter, "finish", look)
    return finished


@pytest.mark.parametrize("name", ["raw", "zstd", "lzop"])
def test_an_image_is_the_same(name: str, tmp_path: Path, writes: list[bool]) -> None:
    image = tmp_path / "image"
    report = save_bytes(STREAM, image, format=name, bypass_cache=True)
    assert (report.warnings, writes) == ((), [False])
    assert image.stat().st_size == report.image_size
    assert verify(image).proof == "digests"
    assert restored(image)[0] == STREAM


def test_in_place_of_another(tmp_path: Path, writes: list[bool]) -> None:
    image = tmp_path / "image"
    save_bytes(STREAM, image)
    report = convert(image, image, CompressOptions(format="raw", bypass_cache=True))
    assert (report.warnings, writes) == ((), [False])
    assert restored(image)[0] == STREAM


@pytest.mark.parametrize("name", ["raw", "gzip", "zstd"])
def test_onto_a_device(name: str, tmp_path: Path, writes: list[bool]) -> None:
    with block_device(tmp_path / "backing", Random(5).randbytes(32 * MiB)) as device:
        report = save_bytes(STREAM, device, format=name, bypass_cache=True)
        assert (report.warnings, writes) == ((), [False])
        assert restored(device)[0] == STREAM


def test_into_a_pipe_with_a_note(tmp_path: Path) -> None:
    image, new = tmp_path / "image", tmp_path / "new"
    save_bytes(STREAM, image)
    fd = os.open(new, os.O_RDWR | os.O_CREAT)
    report = convert(image, fd, CompressOptions(bypass_cache=True))
    os.close(fd)
    assert report.warnings == ("the page cache was not bypassed: the image goes into a pipe",)
    assert restored(new)[0] == STREAM


@pytest.mark.qemu
def test_a_guest(demo: RunningQemu, image: Path) -> None:
    demo.qmp().close()
    report = save(demo.monitor, image, SaveOptions(bypass_cache=True, then="resume"))
    assert not any("cache" in warning for warning in report.warnings)
    assert read_info(image).index is not None
    assert verify(image).proof == "digests"
    demo.wait_for_ticks(1)
