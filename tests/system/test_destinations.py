"""Images where nothing can be renamed: on block devices, in files that somebody else opened, and into pipes."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import codecs, find_codec
from streamsave.endpoints import in_place
from streamsave.errors import Aborted, DestinationError, StreamsaveError, UsageError
from streamsave.format.header import HEADER_SIZE, MAGIC_SIZE, parse_header
from streamsave.format.metadata import Metadata
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import CompressOptions, SaveOptions
from streamsave.units import KiB, MiB

from ..conftest import Launch
from ..kit.cli import Run, streamsave
from ..kit.device import block_device
from ..kit.missing import missing, require_root, require_tools
from ..kit.qemu import RunningQemu, demo_guest
from ..kit.waiting import until

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"
STREAM = GOLDEN.read_bytes()[67148:]
METADATA = Metadata("<domain/>")
OLDER = b"LibvirtQemudSave" + random.Random(5).randbytes(8 * MiB - MAGIC_SIZE)
"""An older image that says that it is complete, longer than any that follows."""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """With an older image on it."""
    with block_device(tmp_path / "backing", OLDER) as path:
        yield path


def save_to(destination: Path | int, name: str = "raw", **options: Any) -> None:
    """The golden stream."""
    with GOLDEN.open("rb") as file:
        os.lseek(file.fileno(), len(GOLDEN.read_bytes()) - len(STREAM), os.SEEK_SET)
        save_stream(file.fileno(), destination, METADATA, CompressOptions(format=name, **options), was_running=True)


def restored(image: Path | int, folder: Path) -> bytes:
    with (folder / "restored").open("wb") as file:
        restore_stream(image, file.fileno())
    return (folder / "restored").read_bytes()


def magic_of(path: Path) -> bytes:
    return path.read_bytes()[:MAGIC_SIZE]


# Devices


@pytest.mark.parametrize("name", codecs())
def test_a_device_with_an_older_image_on_it(name: str, device: Path, tmp_path: Path) -> None:
    """We read it, and so does the stock tool, which does not know where the payload ends."""
    save_to(device, name)
    info = read_info(device)
    assert info.header.complete
    assert info.file_size == len(OLDER)
    assert restored(device, tmp_path) == STREAM
    codec = find_codec(name)
    if codec.tool:
        require_tools(codec.tool[0])
        with device.open("rb") as file:
            file.seek(info.payload_offset)
            os.lseek(file.fileno(), info.payload_offset, os.SEEK_SET)
            done = subprocess.run([*codec.tool_decode], stdin=file, capture_output=True, check=False)
        assert (done.returncode, done.stdout == STREAM) == (0, True), done.stderr


@pytest.mark.parametrize("name", ["zstd", "gzip"])
def test_a_device_without_its_index(name: str, device: Path, tmp_path: Path) -> None:
    """Then we do not know where the payload ends either."""
    save_to(device, name)
    with device.open("r+b") as file:
        header = file.read(HEADER_SIZE)
        file.seek(0)
        file.write(header[:-32] + bytes(32))
    assert read_info(device).index is None
    assert restored(device, tmp_path) == STREAM


def test_nothing_looks_complete_while_it_is_not(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partial header is durable before the first other byte; all else is before the complete one; that one at last."""
    calls: list[tuple[str, bytes]] = []

    def recorded(name: str, wrapped: Any) -> Any:
        def call(fd: int, *arguments: Any) -> Any:
            data = b"".join(map(bytes, arguments[0])) if name == "writev" else arguments[0] if name == "pwrite" else b""
            calls.append((name, bytes(data[:MAGIC_SIZE])))
            return wrapped(fd, *arguments)

        return call

    for name in ("writev", "pwrite", "fsync"):
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    save_to(device, "zstd")
    monkeypatch.undo()
    assert calls[:2] == [("writev", b"LibvirtQemudPart"), ("fsync", b"")]
    complete = [at for at, (_, data) in enumerate(calls) if data == b"LibvirtQemudSave"]
    assert complete == [len(calls) - 2]
    assert [calls[complete[0] - 1], calls[complete[0] + 1]] == [("fsync", b"")] * 2
    assert calls[complete[0] - 2][0] == "pwrite", "the rest of the device is covered before that fsync"


@pytest.mark.parametrize("number", range(1, 5))
def test_a_device_whose_fsync_fails(number: int, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, count = os.fsync, iter(range(1, 100))

    def fail(fd: int) -> None:
        if next(count) == number:
            raise OSError(5, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DestinationError, match="Input/output error"):
        save_to(device, "zstd")
    assert magic_of(device) == b"LibvirtQemudPart"
    with pytest.raises(StreamsaveError, match="incomplete"):
        restore_stream(device, 1)


def test_cancelled_while_zeros_are_made(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Cancellation()
    monkeypatch.setattr(in_place, "ZERO_STEP", 1 * MiB)
    ioctl = fcntl.ioctl
    zeroed: list[Any] = []

    def cancel_and_zero(*arguments: Any) -> Any:
        cancel.cancel("enough")
        zeroed.append(arguments)
        return ioctl(*arguments)

    monkeypatch.setattr(fcntl, "ioctl", cancel_and_zero)
    reading, writing = os.pipe()
    try:
        with pytest.raises(Aborted, match="enough"):
            save_stream(reading, device, METADATA, CompressOptions(format="gzip"), was_running=True, cancel=cancel)
    finally:
        os.close(reading)
        os.close(writing)
    assert len(zeroed) == 1, "of eight steps"
    assert magic_of(device) == b"LibvirtQemudPart"


def test_a_device_that_is_too_small(tmp_path: Path) -> None:
    with block_device(tmp_path / "backing", bytes(64 * KiB)) as path:
        with pytest.raises(DestinationError, match=r"only 64\.0 KiB are free there"):
            save_to(path)
        assert magic_of(path) == bytes(MAGIC_SIZE), "nothing was touched"
    with block_device(tmp_path / "backing", OLDER[: 512 * KiB]) as path:
        with pytest.raises(DestinationError, match="No space left on device"):
            save_to(path)
        assert magic_of(path) == b"LibvirtQemudPart"


def test_a_device_that_is_in_use(device: Path) -> None:
    fd = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(DestinationError, match="cannot be opened: Device or resource busy; it is mounted, or"):
            save_to(device)
    finally:
        os.close(fd)
    assert magic_of(device) == OLDER[:MAGIC_SIZE]


# Descriptors


def test_a_descriptor_of_a_file(tmp_path: Path) -> None:
    """Written in place: what was longer is cut, and the descriptor is the caller's."""
    path = tmp_path / "given"
    path.write_bytes(OLDER)
    with path.open("r+b") as file:
        save_to(file.fileno(), "zstd")
        assert restored(file.fileno(), tmp_path) == STREAM
        assert os.fstat(file.fileno()).st_ino == path.stat().st_ino
    info = read_info(path)
    assert info.header.complete
    assert path.stat().st_size < len(STREAM)
    assert info.index is not None
    assert sorted(each.name for each in tmp_path.iterdir()) == ["given", "restored"]


def test_a_file_without_a_name(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE, 0o600)
    try:
        save_to(fd, "gzip")
        assert restored(fd, tmp_path) == STREAM
    finally:
        os.close(fd)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_a_descriptor_that_is_not_open_for_both(flags: int, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(OLDER)
    fd = os.open(path, flags)
    try:
        with pytest.raises(UsageError, match="not open for reading and writing"):
            save_to(fd)
    finally:
        os.close(fd)
    assert path.read_bytes() == OLDER


def test_a_descriptor_that_only_appends(tmp_path: Path) -> None:
    """Nothing in the file could be changed then: its older image would stay complete, and be cut to the new one's size."""
    path = tmp_path / "given"
    path.write_bytes(OLDER)
    with path.open("a+b") as file, pytest.raises(UsageError, match=r"open for appending.*open it without O_APPEND"):
        save_to(file.fileno())
    assert path.read_bytes() == OLDER


def test_descriptors_that_are_nothing_to_write_to() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(UsageError, match="neither a file nor a block device; ask for a stream"):
            save_to(writing)
        with pytest.raises(StreamsaveError, match="is not a regular file"):
            restore_stream(reading, writing)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(DestinationError, match="descriptor 9999 is not open: Bad file descriptor"):
        save_to(9999)
    with pytest.raises(StreamsaveError, match="descriptor 9999: cannot be opened"):
        restore_stream(9999, 1)


# Pipes


@contextmanager
def collecting(fd: int, into: bytearray) -> Iterator[None]:
    """What comes out of ``fd`` until it ends; closes it."""

    def read() -> None:
        while data := os.read(fd, 65536):
            into.extend(data)
        os.close(fd)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        thread.join(20)


@pytest.mark.parametrize("name", codecs())
def test_a_pipe(name: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    data = bytearray()
    with collecting(reading, data):
        try:
            save_to(writing, name, stream=True)
        finally:
            os.close(writing)
    image = tmp_path / "image"
    image.write_bytes(data)
    assert parse_header(data).complete
    assert restored(image, tmp_path) == STREAM


def test_a_fifo(tmp_path: Path) -> None:
    fifo, image = tmp_path / "fifo", tmp_path / "image"
    os.mkfifo(fifo)
    with pytest.raises(DestinationError, match="cannot be opened: No such device or address; start whoever reads it first"):
        save_to(fifo, stream=True)
    with pytest.raises(DestinationError, match="a pipe has to be asked for"):
        save_to(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)
    data = bytearray()
    ready = threading.Event()

    def read() -> None:
        ready.wait(20)
        while piece := os.read(reading, 65536):
            data.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    timer = threading.Timer(0.2, ready.set)
    timer.start()
    try:
        save_to(fifo, "zstd", stream=True)
    finally:
        ready.set()
        thread.join(20)
        timer.join()
        os.close(reading)
    image.write_bytes(data)
    assert restored(image, tmp_path) == STREAM
    with pytest.raises(DestinationError, match="is no pipe; make one with mkfifo"):
        save_to(image, stream=True)


def test_a_reader_that_goes_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(DestinationError, match=r"Broken pipe.*; is there still somebody who reads it\?"):
            save_to(writing, stream=True)
    finally:
        os.close(writing)


def test_a_reader_that_does_not_read_even_the_head() -> None:
    """68 KiB and a pipe of 64: cancelling wakes that too."""
    reading, writing = os.pipe()
    cancel = Cancellation()
    timer = threading.Timer(0.2, cancel.cancel, ["enough"])
    timer.start()
    try:
        with pytest.raises(Aborted, match="enough"):
            save_stream(0, writing, METADATA, CompressOptions(stream=True), was_running=True, cancel=cancel)
    finally:
        timer.join()
        os.close(reading)
        os.close(writing)


# With a guest


@pytest.fixture
def guest(launch: Launch) -> RunningQemu:
    running = launch(demo_guest(16 * MiB)).boot()
    running.qmp().close()
    return running


def restores(image: Path | int, guest: RunningQemu, launch: Launch) -> None:
    new = launch(demo_guest(16 * MiB), incoming=True, after=guest)
    new.qmp().close()
    restore(image, monitor=new.monitor)
    new.wait_for_ticks()
    assert new.console.seamless()


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["zstd", "gzip"])
def test_a_guest_onto_a_device(name: str, guest: RunningQemu, launch: Launch, tmp_path: Path) -> None:
    with block_device(tmp_path / "backing", random.Random(3).randbytes(32 * MiB)) as device:
        result = streamsave("save", "--qmp", guest.monitor, device, "--format", name)
        assert (result.status, result.err) == (0, "")
        assert guest.wait() == 0
        restores(device, guest, launch)


@pytest.mark.qemu
@pytest.mark.parametrize("then", ["resume", "quit"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_save_onto_a_device_that_is_ended(signum: signal.Signals, then: str, guest: RunningQemu, tmp_path: Path) -> None:
    """The guest runs on, and the device's node stays, with an image that is visibly incomplete."""
    with block_device(tmp_path / "backing", random.Random(3).randbytes(32 * MiB)) as device:
        slow = ["--format", "bzip2", "--level", "9", "--threads", "1", "--json"]
        run = Run(["save", "--qmp", guest.monitor, device, *slow, "--then", then])
        assert '"stream"' in run.first_line()
        run.process.send_signal(signum)
        run.finish()
        until(lambda: not run.family(), what="the end of everything that was started")
        assert device.is_block_device()
        assert not read_info(device).header.complete
        assert guest.status() == "running"
        guest.wait_for_ticks(1, 10)


@pytest.mark.qemu
def test_a_guest_through_a_pipe(guest: RunningQemu, launch: Launch, tmp_path: Path) -> None:
    image = tmp_path / "image"
    command = [sys.executable, "-m", "streamsave.cli", "save", "--qmp", str(guest.monitor), "--stream", "-"]
    with image.open("wb") as file:
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        assert cat.stdin is not None
        done = subprocess.run(command, stdout=cat.stdin, stderr=subprocess.PIPE, text=True, check=False)
        cat.stdin.close()
        cat.wait(10)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("saved the guest to standard output: ")
    assert guest.wait() == 0
    restores(image, guest, launch)


@pytest.mark.qemu
def test_kill_9_into_a_pipe(guest: RunningQemu, tmp_path: Path) -> None:
    """Nobody can say that the image is all there, so the guest runs on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        run = Run(["save", "--qmp", guest.monitor, fifo, "--stream", "--format", "raw", "--quiet"])
        os.set_blocking(reading, True)
        until(lambda: len(os.read(reading, 65536)) == 65536, timeout_s=20, what="the first of the stream")
        until(lambda: guest.is_still(0.5), timeout_s=20, what="the guest's standing still")  # for nobody reads on
        assert run.process.poll() is None
        run.process.kill()
        run.finish()
        until(lambda: not run.family(), what="the end of everything that was started")
    finally:
        os.close(reading)
    assert guest.status() == "running"
    guest.wait_for_ticks(1, 10)


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    for arguments, message in (
        (["--stream", "-", "--json"], "cannot both go to standard output"),
        ([], "give an image: either its path IMAGE, or --image-fd N"),
        (["x", "--image-fd", "3"], "give an image: either its path IMAGE, or --image-fd N"),
    ):
        result = streamsave("save", "--qmp", tmp_path / "none", *arguments)
        assert result.status == 2
        assert message in result.error
    result = streamsave("save", "--qmp-fd", "9999", tmp_path / "x")
    assert (result.status, result.error) == (2, "--qmp-fd 9999 is no open socket: [Errno 9] Bad file descriptor")


# For callers that drop privileges

DROP = """
import os, socket, sys
python, monitor, image, verb, *rest = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX)
sock.connect(monitor)
fd = os.open(image, os.O_RDWR | os.O_CREAT, 0o600)
for each in (sock.fileno(), fd):
    os.set_inheritable(each, True)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
options = ["--qmp-fd", str(sock.fileno()), "--image-fd", str(fd), *rest]
os.execv(python, [python, "-m", "streamsave.cli", verb, *options])
"""


def python_for_nobody() -> tuple[str, dict[str, str]]:
    """An interpreter that everybody may run, and the environment in which it finds what we are made of."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each), "HOME": "/"}
        command = [python, "-c", "import streamsave.codecs.zstd"]
        try:
            subprocess.run(command, env=env, user=65534, group=65534, extra_groups=[], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python, env
    return missing("no Python here that an ordinary user may run")


@pytest.mark.qemu
def test_as_nobody_with_descriptors_from_root(guest: RunningQemu, launch: Launch, tmp_path: Path) -> None:
    """Neither the monitor's socket nor the image can be opened by the user who saves; both are handed over open."""
    require_root("becoming somebody else")
    image = tmp_path / "guest.save"
    python, env = python_for_nobody()

    def as_nobody(monitor: Path, verb: str, *rest: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", DROP, python, str(monitor), str(image), verb, *rest]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    done = as_nobody(guest.monitor, "save", "--format", "zstd")
    assert done.returncode == 0, done.stderr
    assert guest.wait() == 0
    assert read_info(image).header.complete
    assert image.stat().st_uid == 0
    new = launch(demo_guest(16 * MiB), incoming=True, after=guest)
    new.qmp().close()
    done = as_nobody(new.monitor, "restore")
    assert done.returncode == 0, done.stderr
    new.wait_for_ticks()
    assert new.console.seamless()


@pytest.mark.qemu
def test_a_socket_and_a_descriptor_in_the_api(guest: RunningQemu, launch: Launch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, (tmp_path / "image").open("w+b") as file:
        sock.connect(str(guest.monitor))
        report = save(sock, file.fileno(), SaveOptions(format="raw"))
        assert report.path == tmp_path / "image"
        assert guest.wait() == 0
        restores(file.fileno(), guest, launch)
