"""Restores that are wrong from the start, through the command line: a status, a message that helps, no harm done."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import re
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import zstandard

from streamsave.codecs.registry import codecs
from streamsave.format.header import HEADER_SIZE, POINTER_SIZE
from streamsave.operations.image import read_info
from streamsave.operations.save import save
from streamsave.options import SaveOptions
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.cli import Result, Run, streamsave
from ..kit.qemu import RunningQemu, demo_guest
from ..kit.waiting import until
from .unharmed import GUEST, unharmed

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def saved(guest: RunningQemu, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images of it, one per format."""
    folder = tmp_path_factory.mktemp("saved")
    paths = {name: folder / f"{name}.save" for name in codecs()}
    for name, path in paths.items():
        save(guest.monitor, path, SaveOptions(format=name, then="resume"))
    return paths


# Files that are no images, or not whole ones


def refuse_restore(path: Path, status: int, *expected: str) -> Result:
    """Restored by starting a QEMU, and by ``info`` where that sees it too."""
    before = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    run = Run(["restore", path, "--", *command_of()])
    result = run.finish()
    assert result.status == status, result.err
    error = last_error(result)
    for part in (str(path), *expected):
        assert part in error
    assert result.out == ""
    until(lambda: not run.family(), what="the end of the QEMU that was started")
    assert not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() == before
    return result


def command_of(*more: str, memory: str = "16M") -> list[str]:
    machine = ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-machine", "pc", "-accel", "tcg"]
    return [*machine, "-m", memory, "-serial", "null", *more]


def last_error(result: Result) -> str:
    """Our error in full, below what QEMU said itself."""
    assert "Traceback" not in result.err, result.err
    _, found, error = result.err.rpartition("streamsave: error: ")
    assert found, result.err
    return error


def edited(source: Path, target: Path, *, at: int, data: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[at : at + len(data)] = data
    target.write_bytes(content)
    return target


def cut(source: Path, target: Path, size: int) -> Path:
    target.write_bytes(source.read_bytes()[:size])
    return target


@pytest.mark.parametrize(
    ("content", "status", "expected"),
    [
        (b"", 11, "empty"),
        (b"#!/bin/sh\n" * 100, 11, "not a save image"),
        (b"\x7fELF", 11, "not a save image"),
        (b"LibvirtQ", 13, "header"),
        (b"LibvirtQemudSave" + b"\2\0\0\0", 13, "header"),
    ],
    ids=["empty", "text", "short", "cut magic", "cut header"],
)
def test_not_an_image(content: bytes, status: int, expected: str, image: Path) -> None:
    image.write_bytes(content)
    refuse_restore(image, status, expected)
    info = streamsave("info", image)
    assert (info.status, info.out) == (status, "")
    assert str(image) in info.error


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "No such file or directory; is the path right"),
        (lambda path: path.mkdir(), "is a directory; name a save image"),
        (lambda path: os.mkfifo(path), "is not a regular file; name a save image"),
    ],
    ids=["missing", "directory", "fifo"],
)
def test_not_a_file(make: Callable[[Path], None], expected: str, image: Path) -> None:
    make(image)
    refuse_restore(image, 41, expected)
    assert expected in streamsave("info", image).error


@pytest.mark.parametrize(
    ("at", "data", "status", "expected", "info_status"),
    [
        (0, b"LibvirtQemudPart", 12, "never finished", 0),
        (16, struct.pack("<I", 3), 15, "version is not supported (3 > 2)", 15),
        (16, struct.pack("<I", 0xFFFF), 15, "version is not supported (65535 > 2)", 15),
        (28, struct.pack("<I", 6), 15, "sparse", 0),
        (28, struct.pack("<I", 99), 15, "99", 0),
        (20, struct.pack("<I", 0), 14, "data length: 0 ", 14),
        (20, struct.pack("<I", 0x7FFFFFFF), 14, "data length: 2147483647 ", 14),
        (20, struct.pack("<I", 16 * MiB + 1), 14, "data length: 16777217 ", 14),
        (20, struct.pack("<I", 15 * MiB), 13, "; copy it again", 13),
        (32, struct.pack("<I", 0x7FFFFFFF), 14, "cookie", 14),
    ],
    ids=[
        "partial",
        "version 3",
        "version big",
        "sparse",
        "format 99",
        "no data",
        "huge data",
        "large data",
        "cut data",
        "cookie",
    ],
)
def test_headers(
    at: int, data: bytes, status: int, expected: str, info_status: int, saved: dict[str, Path], image: Path
) -> None:
    edited(saved["zstd"], image, at=at, data=data)
    refuse_restore(image, status, expected)
    info = streamsave("info", image)
    assert info.status == info_status, info.err
    if info_status:
        assert expected in info.error
    else:
        assert expected in info.out


def test_cuts_in_header_and_metadata(saved: dict[str, Path], image: Path) -> None:
    offset = read_info(saved["zstd"]).payload_offset
    for size in (91, 92, 100, offset - 1):
        refuse_restore(cut(saved["zstd"], image, size), 13, str(size) if size > 92 else "")


@pytest.mark.parametrize("name", list(codecs()))
@pytest.mark.parametrize("share", [0.0, 0.00001, 0.3, 0.999999], ids=["all", "nearly all", "most", "a byte"])
def test_cut_payload(name: str, share: float, saved: dict[str, Path], image: Path) -> None:
    info = read_info(saved[name])
    size = info.payload_offset + int(info.payload_size * share)
    if (name, share) == ("raw", 0.999999):
        size -= 200_000  # beyond the description of the devices, which no QEMU needs: see the next test
    refuse_restore(cut(saved[name], image, size), 13)


def stream_end(raw: Path) -> int:
    """Where the stream ends in a raw image; its index follows."""
    info = read_info(raw)
    assert info.index is not None
    return info.payload_offset + info.index.frames.stream_size


def test_a_cut_that_takes_nothing_of_the_guest(saved: dict[str, Path], image: Path) -> None:
    """The stream's last bytes describe what came before, and QEMU ignores them: the guest is back, with a warning."""
    run = Run(["restore", cut(saved["raw"], image, stream_end(saved["raw"]) - 1), "--json", "--", *command_of()])
    restored = until_restored(run)
    run.process.terminate()
    result = run.finish()
    assert result.status == 0
    assert "warning: QEMU loaded the stream, but it does not end as one does (" in result.err
    assert '"warnings": ["QEMU loaded' in restored


FOREIGN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: bz2.compress(data, 1),
    "zstd": lambda data: zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data),
}
"""One piece, as the stock tools make it."""


@pytest.fixture(scope="module")
def foreign(saved: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images whose payload has no frames of ours."""
    stream = saved["raw"].read_bytes()[read_info(saved["raw"]).payload_offset : stream_end(saved["raw"])]
    folder = tmp_path_factory.mktemp("foreign")
    for name, compress in FOREIGN.items():
        head = bytearray(saved[name].read_bytes()[: read_info(saved[name]).payload_offset])
        head[HEADER_SIZE - POINTER_SIZE : HEADER_SIZE] = bytes(POINTER_SIZE)  # there is no index in them
        (folder / name).write_bytes(head + compress(stream))
    return {name: folder / name for name in FOREIGN}


def test_foreign_images_are_good(foreign: dict[str, Path]) -> None:
    """Or the tests below would prove nothing."""
    path = foreign["gzip"]
    run = Run(["restore", path, "--json", "--", *command_of()])
    assert '"parallel": false' in until_restored(run)
    run.process.terminate()
    assert run.finish().status == 0


def until_restored(run: Run) -> str:
    while line := run.first_line():
        if '"event": "restored"' in line:
            return line
    raise AssertionError(run.finish().err)


@pytest.mark.parametrize("name", list(FOREIGN))
@pytest.mark.parametrize("share", [0.00001, 0.5, 0.999999], ids=["nearly all", "half", "a byte"])
def test_cut_foreign_payload(name: str, share: float, foreign: dict[str, Path], image: Path) -> None:
    info = read_info(foreign[name])
    size = info.payload_offset + int(info.payload_size * share)
    refuse_restore(cut(foreign[name], image, size), 13, "ends too early", "offset")


def flip(source: Path, target: Path, share: float) -> tuple[Path, int]:
    info = read_info(source)
    at = info.payload_offset + int(info.payload_size * share)
    content = source.read_bytes()
    return edited(source, target, at=at, data=bytes([content[at] ^ 0x10])), at


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", [name for name, codec in codecs().items() if codec.detects_damage])
def test_flipped_bits(name: str, share: float, saved: dict[str, Path], image: Path) -> None:
    path, at = flip(saved[name], image, share)
    result = refuse_restore(path, 14, "payload is damaged ", " offset ")
    offset = re.search(r"damaged (in frame \d+ at|near) offset (\d+)", last_error(result))
    assert offset is not None
    # A flip in a boundary that is only found by searching (bzip2) leaves the rest in one piece, read to behind the damage.
    assert read_info(path).payload_offset <= int(offset[2])
    assert offset[1] == "near" or int(offset[2]) <= at


@pytest.mark.parametrize("name", list(FOREIGN))
def test_flipped_bits_in_foreign_payload(name: str, foreign: dict[str, Path], image: Path) -> None:
    path, _ = flip(foreign[name], image, 0.5)
    result = Run(["restore", path, "--", *command_of()]).finish()
    if result.status == 37:  # the checksum comes last: what the damage decodes to may bring QEMU down before
        assert "it says: qemu-system-x86_64: " in last_error(result)
    else:
        how = {13: "ends too early", 14: "is damaged"}[result.status]  # a flip in a size may make the payload seem too short
        assert f"{path}: the {name} payload {how} near offset " in last_error(result)


# QEMUs that the stream is not for


def test_our_qemu_has_another_machine(saved: dict[str, Path]) -> None:
    for command in (command_of("-machine", "q35"), command_of(memory="32M")):
        result = Run(["restore", saved["zstd"], "--", *command]).finish()
        assert result.status == 37, result.err
        error = last_error(result)
        assert "QEMU did not load the stream of a machine pc-i440fx-" in error
        assert str(saved["zstd"]) in error
        assert "it says: qemu-system-x86_64: " in error


def test_their_qemu_has_another_machine(saved: dict[str, Path], launch: Launch) -> None:
    waiting = launch(demo_guest(32 * MiB), incoming=True)
    waiting.qmp().close()
    result = streamsave("restore", saved["zstd"], "--qmp", waiting.monitor)
    assert result.status == 37, result.err
    assert "QEMU did not load the stream of a machine pc-i440fx-" in result.error
    assert "was it started with the machine type and devices of the saved guest?" in result.error
    assert waiting.wait() != 0


def test_a_qemu_that_does_not_wait(saved: dict[str, Path], guest: RunningQemu) -> None:
    with unharmed(guest):
        result = streamsave("restore", saved["zstd"], "--qmp", guest.monitor)
    assert result.status == 35, result.err
    assert str(guest.monitor) in result.error
    assert "run state running" in result.error
    assert "start it with -incoming defer" in result.error


def test_a_qemu_that_waits_for_somebody_else(saved: dict[str, Path], launch: Launch, tmp_path: Path) -> None:
    """A guest on its way into it arrives, and runs."""
    theirs = tmp_path / "theirs"
    source = launch(GUEST).boot()
    waiting = launch(GUEST, "-incoming", f"unix:{theirs}")
    waiting.qmp().close()
    with unharmed(waiting):
        result = streamsave("restore", saved["zstd"], "--qmp", waiting.monitor)
    assert result.status == 34, result.err
    assert f"QEMU at {waiting.monitor} refused migrate-incoming: " in result.error
    assert "\n    start QEMU with -incoming defer" in result.err
    with source.qmp() as qmp:
        qmp.execute("migrate", uri=f"unix:{theirs}")
    waiting.wait_for_ticks(2, 20)
    assert waiting.status() == "running"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["-incoming", "tcp:0:4444"], "-incoming cannot be used in a restore"),
        (["--incoming", "defer"], "--incoming cannot be used in a restore"),
        (["-daemonize"], "-daemonize cannot be used in a restore"),
        (["-loadvm", "snapshot"], "-loadvm cannot be used in a restore"),
    ],
)
def test_options_that_fight_a_restore(option: list[str], expected: str, saved: dict[str, Path]) -> None:
    result = Run(["restore", saved["zstd"], "--", *command_of(*option)]).finish()
    assert (result.status, result.out) == (2, ""), result.err
    assert expected in result.error
    assert "leave it out" in result.error


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["no-such-qemu", "-m", "16M"], "there is no program no-such-qemu; install QEMU"),
        (["/etc/passwd"], "/etc/passwd may not be executed"),
        (["true"], "true ended with status 0 while it was started"),
        (command_of("-device", "nonsense"), "'nonsense' is not a valid device model name"),
        (command_of("-nonsense"), "-nonsense: invalid option"),
        (command_of("-drive", "file=/none,if=virtio"), "Could not open '/none'"),
    ],
    ids=["missing", "no program", "no qemu", "device", "option", "disk"],
)
def test_a_qemu_that_does_not_start(command: list[str], expected: str, saved: dict[str, Path]) -> None:
    run = Run(["restore", saved["zstd"], "--", *command])
    result = run.finish()
    assert (result.status, result.out) == (38, ""), result.err
    assert expected in last_error(result)
    until(lambda: not run.family(), what="the end of what was started")


def test_a_qemu_that_is_killed_while_it_loads(saved: dict[str, Path]) -> None:
    run = Run(["restore", saved["bzip2"], "--json", "--threads", "1", "--", *command_of()])
    assert '"progress"' in run.first_line()
    (child,) = [pid for pid in run.family() if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]
    os.kill(child, signal.SIGKILL)
    result = run.finish()
    assert result.status == 37, result.err
    assert f"QEMU did not load the stream of a machine pc-i440fx-7.2 from {saved['bzip2']}: " in result.error
    assert not run.family()


def test_their_qemu_is_killed_while_it_loads(saved: dict[str, Path], launch: Launch) -> None:
    waiting = launch(GUEST, incoming=True)
    waiting.qmp().close()
    run = Run(["restore", saved["bzip2"], "--json", "--threads", "1", "--qmp", waiting.monitor])
    assert '"progress"' in run.first_line()
    waiting.kill()
    result = run.finish()
    assert result.status == 37, result.err
    assert "QEMU did not load the stream of a machine pc-i440fx-" in result.error


def test_no_place_to_restore_to(saved: dict[str, Path], guest: RunningQemu) -> None:
    assert "give one of --qmp" in streamsave("restore", saved["zstd"]).error
    both = streamsave("restore", saved["zstd"], "--qmp", guest.monitor, "--", "qemu-system-x86_64")
    assert both.status == 2
    assert "more than one place" in both.error
