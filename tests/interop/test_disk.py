"""The moment between QEMU's last byte and the image's name: libvirt waits, and a disk that fails then costs no guest."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import streamsave
from streamsave.endpoints.file import NewImage
from streamsave.errors import DestinationError
from streamsave.units import MiB

from ..kit.missing import missing
from .stack import LinuxDomain
from .test_domain import CANCELLED, restore, save

RAW = streamsave.SaveOptions(format="raw")


def fill(path: Path) -> None:
    """Leave not one block free."""
    with path.open("wb", buffering=0) as file:
        for piece in (bytes(MiB), bytes(4096)):
            with suppress(OSError):
                while True:
                    file.write(piece)


@contextmanager
def mounted(folder: Path, *arguments: str | Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", *map(str, arguments), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"cannot mount: {done.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that a raw image of the guest fits on, if nothing else does."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=400m", "none") as folder:
        yield folder


@pytest.fixture
def failing_disk(small_disk: Path, tmp_path: Path) -> Iterator[Path]:
    """An ext4 in a file on it: once the tmpfs is full, what ext4 has promised to keep cannot be kept."""
    disk = small_disk / "disk"
    with disk.open("wb") as file:
        file.truncate(360 * MiB)
    lazy = "lazy_journal_init=1,lazy_itable_init=1"
    subprocess.run(["mkfs.ext4", "-q", "-E", lazy, "-O", "^metadata_csum", str(disk)], check=True)
    with mounted(tmp_path / "failing", "-o", "loop", disk) as folder:
        yield folder


def at_commit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    commit = NewImage.commit

    def call(file: NewImage, *arguments: Any) -> None:
        act()
        commit(file, *arguments)

    monkeypatch.setattr(NewImage, "commit", call)


def test_libvirt_waits_for_the_image(guest: LinuxDomain, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes two seconds for the commit: QEMU is there with the whole guest until it is over."""
    process = Path(f"/proc/{guest.qemu_pid()}")
    seen: list[bool] = []

    def hold() -> None:
        time.sleep(2)
        seen.append(process.exists() and "Z" not in (process / "stat").read_text().rsplit(")", 1)[1].split()[0])
        assert not image.exists()

    at_commit(monkeypatch, hold)
    report = save(guest, image)
    assert seen == [True]
    assert report.stopped_s > 2
    assert guest.state == "shut off (saved)"
    assert not process.exists()
    restore(guest, image)


@pytest.mark.full
def test_a_disk_that_fills_up_under_the_last_bytes(guest: LinuxDomain, small_disk: Path) -> None:
    looks: list[float] = []

    def look(progress: streamsave.Progress) -> None:
        if progress.fraction > 0.8 and not looks:
            looks.append(progress.fraction)
            fill(small_disk / "filling")

    options = streamsave.SaveOptions(format="gzip", level=9, threads=1)
    with pytest.raises(DestinationError, match="No space left on device; free some space"):
        streamsave.save_domain(guest.name, small_disk / "guest.save", options, connect=guest.stack.uri, progress=look)
    assert looks
    assert [path.name for path in small_disk.iterdir()] == ["filling"]
    assert guest.state == CANCELLED
    guest.assert_as_before()


def test_a_disk_that_fails_in_the_last_fsync(
    guest: LinuxDomain, small_disk: Path, failing_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the stream is written, synced even; then the disk breaks, and libvirt gets its domain back."""
    at_commit(monkeypatch, lambda: fill(small_disk / "filling"))
    with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error"):
        streamsave.save_domain(guest.name, failing_disk / "guest.save", RAW, connect=guest.stack.uri)
    monkeypatch.undo()
    assert not (failing_disk / "guest.save").exists()  # the unfinished file may be: the file system is read-only by now
    assert guest.state == CANCELLED
    guest.assert_as_before()


@pytest.mark.full
@pytest.mark.parametrize("call", ["rename", "fsync"])
def test_what_can_fail_after_that(guest: LinuxDomain, image: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The name, and its fsync: the last steps before libvirt is let go."""
    armed: list[bool] = []
    original = getattr(os, call)

    def fail(*arguments: Any) -> None:
        if armed and (call == "rename" or os.path.isdir(f"/proc/self/fd/{arguments[0]}")):
            raise OSError(28, os.strerror(28))
        original(*arguments)

    at_commit(monkeypatch, lambda: armed.append(True))
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DestinationError, match="No space left on device"):
        save(guest, image)
    monkeypatch.undo()
    assert guest.state == CANCELLED
    guest.assert_as_before()
