"""Saves that are wrong from the start, through the command line: a status, a message that helps, no harm done."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.cli import streamsave
from ..kit.missing import missing
from ..kit.qemu import RunningQemu
from .machines import FIRMWARE
from .unharmed import GUEST, unharmed

pytestmark = pytest.mark.qemu


# A monitor that is none


def refuse_save(monitor: str | Path, image: Path, status: int, *expected: str) -> str:
    result = streamsave("save", "--qmp", monitor, image)
    assert result.status == status, result.err
    for part in (str(monitor), *expected):
        assert part in result.error
    assert result.out == ""
    assert list(image.parent.glob(".*")) == []
    assert not image.exists()
    return result.error


def test_no_such_socket(tmp_path: Path, image: Path) -> None:
    refuse_save(tmp_path / "none", image, 31, "no such socket", "is QEMU running, with -qmp unix:")


def test_a_socket_whose_qemu_ended(tmp_path: Path, image: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "qmp"))
    refuse_save(tmp_path / "qmp", image, 31, "nobody listens there", "has probably ended")


def test_a_file_instead_of_a_socket(tmp_path: Path, image: Path) -> None:
    (tmp_path / "file").touch()
    refuse_save(tmp_path / "file", image, 31, "it is not a socket", "give the path of QEMU's -qmp socket")


def test_a_path_too_long_for_a_socket(tmp_path: Path, image: Path) -> None:
    refuse_save(tmp_path / ("x" * 120), image, 31, "longer than the 107 bytes")


@contextmanager
def server(path: Path, answer: bytes) -> Iterator[None]:
    """Greets its one client with ``answer``, then waits until it goes."""

    def serve() -> None:
        client, _ = listener.accept()
        with client, suppress(ConnectionError):
            client.sendall(answer)
            client.recv(1)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\xff" * 3000, b'{"hello": 1}\n', b"[]\n", b'{"QMP": \n', b"{" * 5000],
    ids=["ssh", "noise", "json", "list", "cut", "braces"],
)
def test_a_server_that_does_not_speak_qmp(answer: bytes, tmp_path: Path, image: Path) -> None:
    with server(tmp_path / "sock", answer):
        refuse_save(tmp_path / "sock", image, 31, "does not speak QMP", "give the path of a -qmp socket")


def test_a_monitor_for_people(launch: Launch, tmp_path: Path, image: Path) -> None:
    hmp = tmp_path / "hmp"
    running = launch(FIRMWARE, "-monitor", f"unix:{hmp},server=on,wait=off")
    running.qmp().close()
    refuse_save(hmp, image, 31, "(HMP), not for programs", "give the path of a -qmp socket")
    assert running.status() == "running"


def test_a_monitor_that_another_client_holds(guest: RunningQemu, image: Path) -> None:
    with unharmed(guest), guest.qmp() as holder:
        began = time.monotonic()
        refuse_save(guest.monitor, image, 32, "another client holds the monitor", "second -qmp socket")
        assert 2.5 < time.monotonic() - began < 8
        assert holder.status() == "running"


# A guest that cannot be saved


def test_a_qemu_that_migrates_already(launch: Launch, tmp_path: Path, image: Path) -> None:
    running = launch(GUEST).boot()
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.bind(str(tmp_path / "stalled"))
        stalled.listen()
        with running.qmp() as qmp:
            qmp.execute("migrate", uri=f"unix:{tmp_path / 'stalled'}")
        peer, _ = stalled.accept()
        with peer:
            with unharmed(running):
                refuse_save(running.monitor, image, 35, "migrating already (status active)", "migrate_cancel")
            with running.qmp() as qmp:
                assert qmp.execute("query-migrate")["status"] == "active"


def test_a_guest_left_in_postmigrate(launch: Launch, tmp_path: Path, image: Path) -> None:
    running = launch(GUEST).boot()
    first = tmp_path / "first.save"
    assert streamsave("save", "--qmp", running.monitor, first, "--then", "pause", "--quiet").status == 0
    assert running.status() == "postmigrate"
    with unharmed(running):
        refuse_save(running.monitor, image, 35, "run state postmigrate", "send cont first")
    with running.qmp() as qmp:
        qmp.execute("cont")
    assert streamsave("save", "--qmp", running.monitor, image, "--then", "resume", "--quiet").status == 0
    running.wait_for_ticks(1, 10)


def test_a_qemu_that_still_waits_for_its_guest(launch: Launch, image: Path) -> None:
    waiting = launch(GUEST, incoming=True)
    waiting.qmp().close()
    with unharmed(waiting):
        refuse_save(waiting.monitor, image, 35, "run state inmigrate", "nothing to save yet")


@pytest.mark.parametrize("paused", [False, True])
def test_a_guest_with_a_device_that_cannot_be_migrated(launch: Launch, tmp_path: Path, image: Path, paused: bool) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "folder"
    disk.write_bytes(bytes(MiB))
    folder.mkdir()
    running = launch(
        GUEST,
        *("-drive", f"file={disk},format=raw,if=none,id=disk", "-device", "nvme,serial=1,drive=disk"),
        *("-drive", f"file=fat:rw:{folder},format=raw,if=virtio"),
        paused=paused,
    )
    if paused:
        running.qmp().close()
    else:
        running.boot()
    with unharmed(running):
        refuse_save(running.monitor, image, 35, "non-migratable device", "/nvme", "vvfat (rw) format", "does not support")


# Options and destinations


def refuse_destination(guest: RunningQemu, path: Path | str, *expected: str, prefix: tuple[str, ...] = ()) -> None:
    with unharmed(guest):
        result = streamsave("save", "--qmp", guest.monitor, path, prefix=prefix)
        assert result.status == 42, result.err
        for part in expected:
            assert part in result.error


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (["--format", "nonsense"], 3, ["'nonsense'", *codecs()]),
        (["--format", "sparse"], 3, ["sparse", "written by QEMU itself", *codecs()]),
        (["--level", "0"], 2, ["zstd", "level", " 1 ", " 19", "not 0"]),
        (["--format", "gzip", "--level", "10"], 2, ["gzip", "level", "1", "9", "not 10"]),
        (["--format", "raw", "--level", "1"], 2, ["raw", "level"]),
        (["--threads", "0"], 2, ["threads must be 1 to 256, not 0"]),
    ],
)
def test_options_out_of_range(options: list[str], status: int, expected: list[str], guest: RunningQemu, image: Path) -> None:
    with unharmed(guest):
        result = streamsave("save", "--qmp", guest.monitor, image, *options)
        assert result.status == status, result.err
        for part in expected:
            assert part in result.error
    assert list(image.parent.iterdir()) == []


def test_a_qemu_conf_that_names_an_unknown_format(guest: RunningQemu, tmp_path: Path, image: Path) -> None:
    config = tmp_path / "qemu.conf"
    config.write_text('\nsave_image_format = "zip"\n')
    with unharmed(guest):
        result = streamsave("save", "--qmp", guest.monitor, image, "--config", config)
    assert result.status == 4
    for part in (str(config), "2", "zip", *codecs()):
        assert part in result.error
    assert not image.exists()


def test_destination_in_a_folder_that_is_missing(guest: RunningQemu, tmp_path: Path) -> None:
    path = tmp_path / "none" / "guest.save"
    refuse_destination(guest, path, str(path), f"the folder {path.parent} does not exist", "create it first")


def test_destination_in_a_file(guest: RunningQemu, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refuse_destination(guest, tmp_path / "file" / "guest.save", str(tmp_path / "file"), "Not a directory")


def test_destination_is_a_directory(guest: RunningQemu, tmp_path: Path) -> None:
    refuse_destination(guest, tmp_path, f"{tmp_path}: is a directory; name a file in it")
    assert list(tmp_path.iterdir()) == []


def test_destination_is_a_fifo_or_a_device(guest: RunningQemu, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        refuse_destination(guest, path, f"{path}: is no regular file and no block device", "--stream")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["fifo"]


def test_destination_is_a_loop_of_links(guest: RunningQemu, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refuse_destination(guest, tmp_path / "loop", str(tmp_path / "loop"))


def test_destination_with_a_name_as_long_as_names_can_be(guest: RunningQemu, tmp_path: Path) -> None:
    path = tmp_path / ("\N{GREEK SMALL LETTER ALPHA}" * 127)
    assert streamsave("save", "--qmp", guest.monitor, path, "--then", "resume", "--quiet").status == 0
    assert path.exists()
    refuse_destination(guest, f"{path}\N{GREEK SMALL LETTER ALPHA}", "File name too long")
    guest.wait_for_ticks(1)


def test_destination_that_this_user_may_not_write(guest: RunningQemu, tmp_path: Path) -> None:
    folder = tmp_path / "readonly"
    folder.mkdir()
    older = folder / "guest.save"
    older.write_text("older")
    folder.chmod(0o555)
    prefix = () if os.geteuid() else ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-all")
    try:
        refuse_destination(
            guest, older, f"cannot create a file in {folder}: Permission denied", "choose a folder", prefix=prefix
        )
        assert [each.name for each in folder.iterdir()] == ["guest.save"]
        assert older.read_text() == "older"
    finally:
        folder.chmod(0o755)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A small file system at ``folder``."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "streamsave-test", folder], capture_output=True, text=True)
    if done.returncode:
        missing(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_destination_on_a_read_only_file_system(guest: RunningQemu, tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "-o", "ro,size=64m") as folder:
        refuse_destination(guest, folder / "guest.save", "Read-only file system", "mounted for writing")


def test_a_disk_with_clearly_too_little_space(guest: RunningQemu, tmp_path: Path) -> None:
    with mounted(tmp_path / "tiny", "-o", "size=60k") as folder:
        needed = "only 60.0 KiB are free there, and the image needs"
        refuse_destination(guest, folder / "guest.save", needed, "free some space or save elsewhere")
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", list(codecs()))
def test_a_disk_that_fills_up_in_mid_stream(name: str, guest: RunningQemu, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1m") as folder:
        older = folder / "guest.save"
        older.write_text("an older image")
        with unharmed(guest):
            result = streamsave("save", "--qmp", guest.monitor, older, "--format", name)
            assert result.status == 42, result.err
            assert re.search(r"guest\.save: cannot write at offset \d+: No space left on device; free", result.error)
        assert [each.name for each in folder.iterdir()] == ["guest.save"]
        assert older.read_text() == "an older image"


def test_a_limit_on_the_size_of_files(guest: RunningQemu, tmp_path: Path) -> None:
    """As a disk that fills up, where nobody may mount one."""
    older = tmp_path / "guest.save"
    older.write_text("an older image")
    with unharmed(guest):
        result = streamsave("save", "--qmp", guest.monitor, older, prefix=("prlimit", f"--fsize={MiB}"))
        assert result.status == 42, result.err
        assert "cannot write at offset 1048576: File too large" in result.error
    assert [each.name for each in tmp_path.iterdir()] == ["guest.save"]
    assert older.read_text() == "an older image"
