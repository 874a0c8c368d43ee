"""The scanners on the streams of a real QEMU: machine types new and old, running and stopped guests."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from streamsave._native.scan import StreamScanner
from streamsave.format.migration import StreamMap
from streamsave.format.scanner import StreamScanner as ReferenceScanner
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.qemu import RunningQemu, demo_guest

pytestmark = pytest.mark.qemu

MEMORY = 32 * MiB


def captured(guest: RunningQemu, path: Path, *, stop: bool) -> bytes:
    """The stream that QEMU writes into a file."""
    with guest.qmp() as qmp:
        qmp.execute("migrate-set-parameters", max_bandwidth=0)
        if stop:
            qmp.execute("stop")
        qmp.execute("migrate", uri=f"exec:cat > {path}")
        deadline = time.monotonic() + 60
        while (status := qmp.execute("query-migrate").get("status")) not in ("completed", "failed"):
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        assert status == "completed"
    return path.read_bytes()


def scan(data: bytes) -> StreamMap:
    """What both find, fed in random pieces."""
    rng = random.Random(len(data))
    native, reference = StreamScanner(), ReferenceScanner()
    at = 0
    while at < len(data):
        piece = data[at : at + rng.choice([1, 7, 4104, 65_536, 300_000])]
        native.feed(piece)
        reference.feed(piece)
        assert native.map() == reference.map()
        at += len(piece)
    return native.map()


@pytest.mark.parametrize("stop", [True, False], ids=["stopped", "running"])
@pytest.mark.parametrize(
    ("machine", "named"),
    [("pc", True), ("q35", True), ("pc-i440fx-2.4", True), ("pc-i440fx-2.3", False), ("pc-i440fx-2.2", False)],
)
def test_real_streams(launch: Launch, tmp_path: Path, machine: str, named: bool, stop: bool) -> None:
    guest = launch(demo_guest(MEMORY), machine=machine).boot()
    data = captured(guest, tmp_path / "stream", stop=stop)
    found = scan(data)
    assert found.well_formed_end, found.problem
    assert found.machine.startswith("pc-") == named
    assert (found.ram_blocks[0].name, found.ram_blocks[0].size) == ("pc.ram", MEMORY)
    assert 0 < found.ram_offset < found.ram_end <= found.device_offset < len(data)
    pages, memory = found.page_count + found.zero_page_count, sum(block.size for block in found.ram_blocks)
    assert pages * 4096 == memory if stop else pages * 4096 >= memory
    if machine != "pc-i440fx-2.2":
        assert data[found.description_offset :].startswith(b"{")
    for more in (data[:-1], data + b"\0\xff"):
        if machine != "pc-i440fx-2.2":
            assert not scan(more).well_formed_end
