"""A payload is exactly the migration stream, for the stock tools as for QEMU."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs, find_codec
from streamsave.format.metadata import Metadata
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream
from streamsave.operations.save import save
from streamsave.options import CompressOptions, SaveOptions
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.missing import require_tools
from ..kit.qemu import RunningQemu, demo_guest
from ..kit.waiting import until

pytestmark = pytest.mark.qemu

GUEST = demo_guest(16 * MiB)
METADATA = Metadata("<domain type='qemu'><name>captured</name></domain>", "<cookie/>")
WAYS = ("file", "pipe", "socket")
INSTEAD_OF_A_TOOL = {
    "raw": "cat",
    "snappy": f'{sys.executable} -c "import snappy, sys; snappy.stream_decompress(sys.stdin.buffer, sys.stdout.buffer)"',
}
"""For the formats that have none of their own."""


def stock_decoder(image: Path) -> str:
    """The shell command that a person without streamsave would use."""
    info = read_info(image)
    tool = find_codec(info.format).tool
    require_tools(*tool[:1])
    decoder = shlex.join(find_codec(info.format).tool_decode) if tool else INSTEAD_OF_A_TOOL[info.format]
    return f"tail -c +{info.payload_offset + 1} {shlex.quote(str(image))} | {decoder}"


@pytest.fixture(scope="module")
def stream(qemu: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a QEMU really sent, by way of a program that changes nothing."""
    path = tmp_path_factory.mktemp("captured") / "stream"
    with RunningQemu(GUEST) as guest:
        guest.boot().wait_for_ticks()
        with guest.qmp() as qmp:
            qmp.execute("stop")
            qmp.execute("migrate", uri=f"exec:cat > {shlex.quote(str(path))}")
            until(lambda: qmp.execute("query-migrate").get("status") == "completed", timeout_s=30, what="the capture")
    data = path.read_bytes()
    assert data.startswith(b"QEVM")
    assert len(data) > 10 * MiB
    return data


@contextmanager
def fed(way: str, data: bytes, folder: Path) -> Iterator[int]:
    """A descriptor from which ``data`` can be read, then the end."""
    if way == "file":
        path = folder / "input"
        path.write_bytes(data)
        with path.open("rb") as file:
            yield file.fileno()
        return
    with _pair(way) as (reading, writing, end_input):

        def feed() -> None:
            left = memoryview(data)
            while left:
                left = left[os.write(writing, left) :]
            end_input()

        with _in_background(feed):
            yield reading


@contextmanager
def collecting(way: str, folder: Path) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A descriptor to write to, and what to call for all that arrived there."""
    if way == "file":
        path = folder / "output"
        with path.open("wb") as file:
            yield file.fileno(), path.read_bytes
        return
    received = bytearray()
    with _pair(way) as (reading, writing, end_input):

        def collect() -> None:
            while piece := os.read(reading, MiB):
                received.extend(piece)

        thread = threading.Thread(target=collect)
        thread.start()

        def everything() -> bytes:
            end_input()
            thread.join(60)
            assert not thread.is_alive()
            return bytes(received)

        yield writing, everything


@contextmanager
def _pair(way: str) -> Iterator[tuple[int, int, Callable[[], None]]]:
    """The reading end, the writing end, and what closes that one."""
    if way == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield theirs.fileno(), ours.fileno(), ours.close
        return
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as end:
        yield reading, writing, end.close


@contextmanager
def _in_background(work: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", codecs())
def test_payload_is_exactly_the_stream(stream: bytes, image: Path, name: str, way: str) -> None:
    with fed(way, stream, image.parent) as fd:
        report = save_stream(fd, image, METADATA, CompressOptions(format=name), was_running=True)
    assert report.stream_size == len(stream)
    assert report.stream.well_formed_end
    info = read_info(image)
    assert (info.format, info.metadata, info.header.was_running, info.header.complete) == (name, METADATA, True, True)
    assert info.payload_offset % 4096 == 0

    by_tool = subprocess.run(stock_decoder(image), shell=True, check=True, capture_output=True)
    index_behind = b"" if name != "raw" else image.read_bytes()[info.payload_offset + info.payload_size :]
    assert by_tool.stdout == stream + index_behind, "the stock tool decodes something else"

    with collecting(way, image.parent) as (fd, received):
        restored = restore_stream(image, fd)
        data = received()
    assert data == stream, "we decode something else"
    assert restored.stream_size == len(stream)
    assert restored.parallel


@pytest.mark.parametrize("name", codecs())
def test_qemu_loads_the_payload_through_the_stock_tool(launch: Launch, image: Path, name: str) -> None:
    guest = launch(GUEST).boot().wait_for_ticks()
    save(guest.monitor, image, SaveOptions(format=name))
    guest.wait()
    counter = guest.counter()
    without_us = launch(GUEST, "-incoming", f"exec:{stock_decoder(image)}", after=guest)
    with without_us.qmp() as qmp:
        until(lambda: qmp.status() != "inmigrate", timeout_s=30, what="the loading")
        assert qmp.status() == "paused"  # as it was when it was saved; libvirt too says cont at the end
        qmp.execute("cont")
    without_us.wait_for_counter(counter + 3)
    assert without_us.console.seamless()
