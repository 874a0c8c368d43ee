"""What streamsave asks of its host: little memory whatever the guest's size, and none of the codecs' programs."""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs, find_codec
from streamsave.units import GiB, KiB, MiB

from ..conftest import Launch
from ..kit.cli import Run, streamsave
from ..kit.qemu import Guest, RunningQemu, demo_guest

pytestmark = pytest.mark.qemu

PEAK_LIMIT = 150 * MiB
"""Of streamsave and its guardian together, with 2 threads and the default level."""
PEAK_LIMIT_XZ = 300 * MiB
"""Its encoder alone takes some 30 MiB, and its chunks are larger."""
LARGEST_CHUNK = max(codec.chunk_size for codec in codecs().values())
FAST = ("raw", "gzip", "zstd")


# -- memory -----------------------------------------------------------------------------------------------------------


def machine(size: int, *backend: str) -> Guest:
    """One that runs its firmware only."""
    return Guest(
        ("-object", ",".join((*backend, "id=ram", f"size={size}")), "-machine", "memory-backend=ram"), size, boot_s=0
    )


@contextmanager
def full_machine(launch: Launch, size: int, filled: int, folder: Path) -> Iterator[RunningQemu]:
    """A guest whose memory is full of noise from the start, for QEMU's RAM is a file that we write. The rest is zeros.

    The noise repeats after more than a chunk, so that every frame is as large as a frame can be.
    """
    shared = Path("/dev/shm")
    ram = (shared if shutil.disk_usage(shared).free > size + GiB else folder) / f"streamsave-test-{os.getpid()}"
    noise = random.Random(2).randbytes(LARGEST_CHUNK + 4 * KiB)
    try:
        with ram.open("wb") as file:
            for _ in range(filled // len(noise)):
                file.write(noise)
            file.truncate(size)
        guest = launch(machine(size, "memory-backend-file", f"mem-path={ram}", "share=on"))
        guest.qmp().close()
        yield guest
    finally:
        ram.unlink(missing_ok=True)


def peaks_of(run: Run) -> list[int]:
    """``VmHWM`` in bytes of each process of ``run``, which is watched to its end and has to succeed."""
    peaks: dict[int, int] = {}
    while run.process.poll() is None:
        for pid in run.family():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue  # it ended
            if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                peaks[pid] = int(found[1]) * KiB
        time.sleep(0.03)
    result = run.finish()
    assert result.status == 0, result.err
    assert all(peak > 5 * MiB for peak in peaks.values()), "that is less than Python alone needs"
    return list(peaks.values())


def check_save(launch: Launch, size: int, filled: int, name: str, image: Path) -> None:
    with full_machine(launch, size, filled, image.parent) as guest:
        peaks = peaks_of(Run(["save", "--qmp", guest.monitor, image, "--format", name, "--threads", "2"]))
        assert guest.wait() == 0
    assert len(peaks) == 2, "streamsave and its guardian"
    check_peaks(peaks, name)
    assert image.stat().st_size > filled * 0.9, "the noise was none"


def check_peaks(peaks: list[int], name: str) -> None:
    assert sum(peaks) < (PEAK_LIMIT_XZ if name == "xz" else PEAK_LIMIT), [f"{peak / MiB:.0f} MiB" for peak in peaks]


def check_restore(launch: Launch, size: int, name: str, image: Path) -> None:
    waiting = launch(machine(size, "memory-backend-ram"), incoming=True)
    waiting.qmp().close()
    peaks = peaks_of(Run(["restore", image, "--qmp", waiting.monitor, "--threads", "2"]))
    assert len(peaks) == 1
    check_peaks(peaks, name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", codecs())
def test_peak_memory_of_512_mib(launch: Launch, image: Path, name: str) -> None:
    """The slow ones get less to do: several times what a pool holds is enough."""
    check_save(launch, 512 * MiB, 500 * MiB if name in FAST else 48 * MiB, name, image)
    check_restore(launch, 512 * MiB, name, image)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_peak_memory_of_3_gib(launch: Launch, image: Path, name: str) -> None:
    """Two formats: the size of the guest is nothing that a codec could know."""
    check_save(launch, 3 * GiB, 3 * GiB - 16 * MiB, name, image)


# -- programs ---------------------------------------------------------------------------------------------------------


def test_no_program_is_needed(launch: Launch, qemu: str, image: Path, tmp_path: Path) -> None:
    """With a PATH on which there is nothing: save, info and restore of every format."""
    nothing = tmp_path / "bin"
    nothing.mkdir()
    bare = {"PATH": str(nothing)}
    guest = launch(demo_guest(16 * MiB)).boot().wait_for_ticks()
    for name, codec in codecs().items():
        assert not codec.tool or shutil.which(codec.tool[0], path=str(nothing)) is None
        saved = streamsave("save", "--qmp", guest.monitor, image, "--format", name, "--quiet", env=bare)
        assert (saved.status, saved.out, saved.err) == (0, "", "")
        shown = streamsave("info", image, "--json", env=bare)
        assert (shown.event["format"], shown.event["complete"]) == (name, True)
        guest.wait()
        counter = guest.counter()
        waiting = launch(guest.guest, incoming=True, after=guest)
        waiting.qmp().close()
        restored = streamsave("restore", image, "--qmp", waiting.monitor, "--quiet", env=bare)
        assert (restored.status, restored.out, restored.err) == (0, "", "")
        waiting.wait_for_counter(counter + 2)
        guest = waiting
    assert guest.console.seamless()

    saved = streamsave("save", "--qmp", guest.monitor, image, "--quiet", env=bare)
    assert saved.status == 0, saved.err
    guest.wait()
    counter = guest.counter()
    absolute = shutil.which(qemu)
    assert absolute
    in_front = Run(["restore", image, "--", absolute, *guest.command[1:]], env=bare)
    guest.console.wait_for_counter(counter + 2, 60)
    in_front.process.terminate()
    assert in_front.finish().status == 0
    assert guest.console.seamless()


def test_a_program_that_looks_like_a_codec_is_not_run(launch: Launch, image: Path, tmp_path: Path) -> None:
    """The other way round: programs of these names are there, and would tell of it."""
    told = tmp_path / "told"
    traps = tmp_path / "bin"
    traps.mkdir()
    for name in codecs():
        tool = find_codec(name).tool
        if tool:
            (traps / tool[0]).write_text(f"#!{sys.executable}\nopen({str(told)!r}, 'w')\n")
            (traps / tool[0]).chmod(0o755)
    guest = launch(demo_guest(16 * MiB)).boot()
    for name in codecs():
        saved = streamsave(
            "save", "--qmp", guest.monitor, image, "--format", name, "--then", "resume", env={"PATH": str(traps)}
        )
        assert saved.status == 0, saved.err
    assert not told.exists()
