"""The kit's own promises: the demo guest notices what it must notice, and a leak is found."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from streamsave.demo.machine import GUEST_KERNEL
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.leaks import Belongings, leaks_since
from ..kit.missing import require_tools
from ..kit.qemu import Guest, RunningQemu, demo_guest

pytestmark = pytest.mark.qemu
SOURCES = Path(__file__).parents[2] / "guest"
MEMORY_SIZE = 16 * MiB
FIRST_PATTERN = 0x102000


def test_guest_binary_is_what_its_source_builds(tmp_path: Path) -> None:
    require_tools("make", "as", "ld")
    built = tmp_path / "guest.bin"
    for name in ("demo.S", "Makefile"):
        (tmp_path / name).write_bytes((SOURCES / name).read_bytes())
    subprocess.run(["make", "-s", "-C", str(tmp_path), f"OUTPUT={built}"], check=True, env={**os.environ, "MAKEFLAGS": ""})
    assert built.read_bytes() == GUEST_KERNEL.read_bytes(), "run `make guest` and commit the binary"
    assert len(built.read_bytes()) <= 4096, "the code has outgrown its page"


def guest_with_shared_memory(memory: Path) -> Guest:
    """A demo guest whose RAM is the file ``memory``, so that a test can reach into it."""
    return Guest(
        (
            *("-kernel", str(GUEST_KERNEL)),
            *("-object", f"memory-backend-file,id=ram,size={MEMORY_SIZE},mem-path={memory},share=on"),
            *("-machine", "memory-backend=ram"),
        ),
        MEMORY_SIZE,
        boot_s=30,
    )


@pytest.mark.parametrize("kind", range(8))
def test_guest_notices_one_wrong_bit_in_each_kind_of_page(launch: Launch, tmp_path: Path, kind: int) -> None:
    memory = tmp_path / "ram"
    running = launch(guest_with_shared_memory(memory)).boot()
    running.wait_for_ticks(2)
    address = MEMORY_SIZE // 2 + kind * 4096 + 1235
    with running.qmp() as qmp:
        qmp.execute("stop")
        with memory.open("r+b", buffering=0) as file:
            byte = os.pread(file.fileno(), 1, address)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 0x10]), address)
        qmp.execute("cont")
    with pytest.raises(AssertionError, match=f"DAMAGED at 0x{address & -4:x}"):
        running.wait_for_ticks(3, timeout_s=20)
    assert running.is_still(0.3), "a guest that found damage must stop counting"


def test_guest_uses_all_of_its_memory(launch: Launch, tmp_path: Path) -> None:
    memory = tmp_path / "ram"
    launch(guest_with_shared_memory(memory)).boot()
    data = memory.read_bytes()
    filled = sum(1 for at in range(FIRST_PATTERN, MEMORY_SIZE, 4096) if any(data[at : at + 4096]))
    every = (MEMORY_SIZE - FIRST_PATTERN) // 4096
    assert 0.7 * every < filled < 0.76 * every, (
        "two pages of eight are meant to be zero, and those at the end are the BIOS's"
    )
    assert any(data[-256 * 1024 :]), "the pattern ends far below the end of the memory"


def test_guest_ticks_several_times_a_second(demo: RunningQemu) -> None:
    demo.wait_for_ticks(10, timeout_s=15)
    assert demo.console.seamless()
    assert demo.status() == "running"


def test_paused_qemu_prints_nothing(launch: Launch) -> None:
    running = launch(demo_guest(), paused=True)
    assert running.status() == "prelaunch"
    assert running.is_still(0.5)
    assert running.ticks() == []


def test_end_of_qemu_is_reported_with_its_words(launch: Launch) -> None:
    running = launch(demo_guest(), "-device", "no-such-device")
    with pytest.raises(AssertionError, match="no-such-device"):
        running.boot()


def test_leaks_are_found() -> None:
    before = Belongings.now()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-over")
    thread.start()
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(["sleep", "60"])
    found = "\n".join(leaks_since(before, settle_s=0.05))
    assert "thread left-over" in found
    assert f"descriptor {ours.fileno()} -> socket:" in found
    assert f"child process {child.pid}: sleep 60" in found
    child.kill()
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is None:
        pass
    assert f"child process {child.pid}: a zombie" in "\n".join(leaks_since(before, settle_s=0.05))
    child.wait()
    ours.close()
    theirs.close()
    stop.set()
    thread.join()
    assert leaks_since(before) == []
