"""``--level auto`` with real guests: into a slow reader, onto a fast disk, through a conversion; and what is told of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.operations.save import save
from streamsave.options import CompressOptions, SaveOptions
from streamsave.types import Progress
from streamsave.units import KiB, MiB

from ..conftest import Launch
from ..kit.cli import streamsave
from ..kit.images import made_up_stream, save_bytes
from ..kit.qemu import RunningQemu, demo_guest


@contextmanager
def slow_reader(fifo: Path, image: Path, rate: int) -> Iterator[None]:
    """Copies what comes through ``fifo`` to ``image``, ``rate`` bytes a second."""
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)

    def read() -> None:
        began_s = time.monotonic()
        with open(reading, "rb", buffering=0) as source, image.open("wb") as copy:
            while data := source.read(64 * KiB):
                copy.write(data)
                time.sleep(max(0.0, copy.tell() / rate - (time.monotonic() - began_s)))

    thread = threading.Thread(target=read)
    with open(fifo, "wb"):  # or the first look would find nobody at the other end, and take that for the end
        thread.start()
        yield
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.qemu
def test_a_guest_into_a_slow_reader(launch: Launch, tmp_path: Path) -> None:
    guest = launch(demo_guest()).boot()
    guest.qmp().close()
    fifo, image, looks = tmp_path / "fifo", tmp_path / "image", list[Progress]()
    with slow_reader(fifo, image, 4 * MiB):
        report = save(guest.monitor, fifo, SaveOptions(level="auto", stream=True), progress=looks.append)
    assert guest.wait() == 0
    assert report.levels[-1].level > 3, report.levels
    assert report.level == "auto"
    assert sum(use.frame_count for use in report.levels) == report.frame_count
    assert sum(use.payload_size for use in report.levels) == report.payload_size
    changes = sum(one.level != other.level for one, other in pairwise(looks))
    assert 1 <= changes <= 12, "one way, and settled"
    assert max(look.level or 0 for look in looks) == report.levels[-1].level
    new = launch(demo_guest(), incoming=True, after=guest)
    new.qmp().close()
    result = streamsave("restore", image, "--qmp", new.monitor)
    assert result.status == 0, result.err
    new.wait_for_ticks()
    assert new.console.seamless()


@pytest.mark.qemu
def test_what_is_told_of_it(demo: RunningQemu, tmp_path: Path) -> None:
    image = tmp_path / "image"
    demo.qmp().close()
    saved = streamsave("save", "--qmp", demo.monitor, image, "--level", "auto", "--json", "--then", "resume")
    assert (saved.status, saved.err) == (0, f"streamsave: warning: {saved.event['warnings'][0]}\n")
    levels = saved.event["levels"]
    assert saved.event["level"] == "auto"
    assert sum(use["stream_size"] for use in levels) == saved.event["stream_size"]
    assert streamsave("info", image, "--json").event["levels"] == levels
    text = streamsave("save", "--qmp", demo.monitor, image, "--level", "2")
    assert "(zstd level 2, ratio " in text.out
    assert "\ncompressed    at level 2\n" in streamsave("info", image).out


@pytest.mark.parametrize("name", [codec.name for codec in codecs().values() if codec.levels])
def test_every_format_with_levels(name: str, tmp_path: Path) -> None:
    image, new = tmp_path / "image", tmp_path / "new"
    report = save_bytes(made_up_stream(), image, format=name, level="auto")
    assert report.levels
    converted = convert(image, new, CompressOptions(format=name, level="auto"))
    assert converted.level == "auto"
    assert sum(use.stream_size for use in converted.levels) == report.stream_size
    assert converted.root_compared
    index = read_info(new).index
    assert index is not None
    assert index.levels == converted.levels
