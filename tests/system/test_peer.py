"""Who is behind the monitor: what the descriptive XML of a guest is made from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Self

import pytest

from streamsave.operations.image import read_info
from streamsave.qemu.monitor import Monitor
from streamsave.qemu.peer import describe_guest, read_command, saved_command
from streamsave.qemu.process import QemuProcess, check_command

from ..kit.cli import streamsave
from ..kit.qemu import RunningQemu
from ..kit.waiting import until
from .machines import FIRMWARE

UUID = "2f8a1c5e-9f5b-4c8e-b1ad-0242ac120002"


@pytest.mark.qemu
def test_a_guest_with_everything() -> None:
    name = "wéird <&> \"name\" '日本' %s"
    with RunningQemu(FIRMWARE, "-name", name, "-uuid", UUID, "-smp", "3", machine="q35") as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            guest = describe_guest(monitor, with_command=True)
            assert describe_guest(monitor, with_command=False).command is None
    assert (guest.name, guest.uuid, guest.vcpu_count) == (name, UUID, 3)
    assert (guest.arch, guest.accelerator) == ("x86_64", "qemu")
    assert guest.memory_size == FIRMWARE.memory_size
    assert guest.machine.startswith("pc-q35-"), "the versioned name, not the alias"
    assert guest.command is not None
    assert guest.command.arguments == qemu.command
    assert guest.command.working_directory == os.getcwd()


@pytest.mark.qemu
def test_a_guest_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    machine = ("qemu-system-x86_64", "-M", "pc", "-m", "64", "-nodefaults", "-display", "none", "-accel", "tcg")
    process = QemuProcess([*machine, "-qmp", f"unix:{path},server=on,wait=off"])
    process.open_monitor().close()
    with Monitor(path) as monitor:
        guest, again = describe_guest(monitor, with_command=True), describe_guest(monitor, with_command=False)
    process.terminate()
    assert guest.name
    assert uuid.UUID(guest.uuid).version == 4
    assert guest.uuid != again.uuid
    assert guest.machine.startswith("pc-i440fx-")
    assert guest.command is not None
    check_command(guest.command.arguments)  # what a restore added is not in it
    assert guest.command.arguments == process.command


@pytest.mark.qemu
def test_a_monitor_whose_listener_is_not_qemu(tmp_path: Path) -> None:
    """A program that opened the socket and handed the descriptor on, as service managers do."""
    path = tmp_path / "qmp"
    opener = (
        "import socket, subprocess, sys, time\n"
        f"listener = socket.socket(socket.AF_UNIX); listener.bind({str(path)!r}); listener.listen(1)\n"
        "fd = listener.fileno()\n"
        "qemu = subprocess.Popen(['qemu-system-x86_64', '-M', 'pc', '-m', '64', '-nodefaults', '-display', 'none', '-accel',"
        " 'tcg', '-chardev', f'socket,id=m,fd={fd},server=on,wait=off', '-mon', 'chardev=m,mode=control'], pass_fds=[fd])\n"
        "print('up', flush=True); qemu.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", opener], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        program.stdout.readline()
        with Monitor(path, greeting_s=10) as monitor:
            assert monitor.peer_pid == program.pid
            assert saved_command(monitor) is None
            monitor.execute("quit")


@pytest.mark.qemu
def test_a_monitor_made_by_ourselves() -> None:
    process = QemuProcess(["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"])
    with process.open_monitor() as monitor:
        assert saved_command(monitor) is None
    process.terminate()


class Pretender:
    """A process of which we say what it is called; its only thread plays the guest's processor."""

    def __init__(self, name: str, *, program: str = "/bin/sleep", cwd: Path | None = None) -> None:
        self.process = subprocess.Popen([name, "60"], executable=program, cwd=cwd)
        self.proc = Path(f"/proc/{self.process.pid}")
        until(lambda: (self.proc / "cmdline").read_bytes(), what="the program's start")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def test_a_command_that_names_another_program() -> None:
    with Pretender("qemu-system-x86_64") as pretender:
        assert read_command(pretender.proc, [pretender.process.pid]) is None


def test_threads_that_are_not_there() -> None:
    with Pretender("sleep") as pretender:
        assert read_command(pretender.proc, [1]) is None
        assert read_command(pretender.proc, []) is None
        assert read_command(pretender.proc, [pretender.process.pid]) is not None


def test_a_relative_name_and_a_link(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "emulator").symlink_to(os.path.realpath("/bin/sleep"))
    for name in ("bin/emulator", str(tmp_path / "bin" / "emulator")):
        with Pretender(name, cwd=tmp_path) as pretender:
            command = read_command(pretender.proc, [pretender.process.pid])
        assert command is not None
        assert command.arguments == (name, "60")
        assert command.working_directory == str(tmp_path)


def test_a_program_that_was_replaced_meanwhile(tmp_path: Path) -> None:
    own = tmp_path / "sleep"
    shutil.copy("/bin/sleep", own)
    with Pretender(str(own), program=str(own)) as pretender:
        own.unlink()
        assert read_command(pretender.proc, [pretender.process.pid]) is not None


def test_arguments_of_any_bytes() -> None:
    odd = os.fsdecode(b"1\xff \n\"'")
    arguments = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", odd, ""]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        command = read_command(Path(f"/proc/{process.pid}"), [process.pid])
        process.kill()
    assert command is not None
    assert command.arguments == tuple(arguments)


def test_a_process_that_is_gone() -> None:
    assert read_command(Path("/proc/4194304000"), [1]) is None


@pytest.mark.qemu
@pytest.mark.parametrize("kept", [True, False])
def test_a_command_that_may_hold_secrets(kept: bool, demo: RunningQemu, tmp_path: Path) -> None:
    demo.qmp().close()
    image, options = tmp_path / "image", [] if kept else ["--no-saved-command"]
    done = streamsave("save", "--qmp", demo.monitor, image, "--then", "resume", *options)
    assert done.status == 0, done.err
    head = image.read_bytes()[: read_info(image).payload_offset]
    assert (str(demo.monitor).encode() in head) == kept, "an argument of it"
