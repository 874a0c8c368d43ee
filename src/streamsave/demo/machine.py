"""The machine of the demo guest: the QEMU command that runs it, and the accelerator that it really runs under."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ..errors import ProcessError
from ..units import MiB
from .console import Console

Accelerator: TypeAlias = Literal["kvm", "tcg"]

GUEST_KERNEL: Final = Path(__file__).with_name("guest.bin")
"""The guest: a multiboot kernel, built from ``guest/demo.S``."""
QEMU: Final = "qemu-system-x86_64"

KVM_PROBE_S: Final = 3.0
"""How long the probe waits for a sign of life. A host is known whose /dev/kvm exists, and whose guests never run."""
KILL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A QEMU machine with a serial console and a QMP monitor, and nothing that its guest does not need.

    ``console`` is the file that the serial line is appended to, ``monitor`` where QEMU is to listen. One command boots the
    guest and, with what ``restore`` adds to it, takes the saved one in.
    """

    console: Path
    monitor: Path
    accelerator: Accelerator = "tcg"
    memory_size: int = 64 * MiB
    qemu: str = QEMU
    machine: str = "pc"
    name: str = "streamsave-demo"
    guest: tuple[str, ...] = ("-kernel", str(GUEST_KERNEL))
    """The arguments that bring the guest in."""

    @property
    def command(self) -> tuple[str, ...]:
        """QEMU and its arguments."""
        return (
            *(self.qemu, "-no-user-config", "-nodefaults", "-display", "none", "-name", self.name),
            *("-machine", self.machine, "-accel", self.accelerator, "-m", f"{self.memory_size // MiB}M"),
            *self.guest,
            *("-chardev", f"file,id=console,append=on,path={_escape(self.console)}", "-serial", "chardev:console"),
            *("-qmp", f"unix:{_escape(self.monitor)},server=on,wait=off"),
        )

    def start(self, stderr: Path, *options: str) -> subprocess.Popen[bytes]:
        """Start it, with more ``options``. The process is the caller's; what QEMU says goes to the file ``stderr``.

        Raises:
            ProcessError: there is no such program.

        """
        with stderr.open("wb") as file:
            try:
                return subprocess.Popen([*self.command, *options], stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            except OSError as error:
                raise ProcessError(f"{self.qemu} does not start: {error.strerror}; is it QEMU's binary?") from error


def find_qemu(qemu: str = QEMU) -> str:
    """The path of ``qemu``.

    Raises:
        ProcessError: it is not installed; says how to install it.

    """
    found = shutil.which(qemu)
    if found is None:
        raise ProcessError(f"{qemu} is not installed, and the demo runs a real guest: apt-get install qemu-system-x86")
    return found


def probe_accelerator(qemu: str = QEMU) -> Accelerator:
    """``kvm`` where the demo guest was just seen running under it, else ``tcg``. Takes ``KVM_PROBE_S`` where KVM hangs."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    with tempfile.TemporaryDirectory(prefix="streamsave-kvm-") as folder:
        home = Path(folder)
        machine = Machine(home / "console", home / "qmp", "kvm", 16 * MiB, qemu)
        process = machine.start(home / "stderr")
        try:
            console = Console(machine.console)
            console.wait_until(lambda: console.is_up() or process.poll() is not None, KVM_PROBE_S)
            return "kvm" if console.is_up() else "tcg"
        finally:
            end_process(process)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Kill it and wait, though not for ever: a process that hangs inside the kernel's KVM does not even die."""
    process.kill()
    try:
        process.wait(KILL_S)
    except subprocess.TimeoutExpired:
        process.returncode = -9  # given up, so that nothing waits for it again


def _escape(path: Path) -> str:
    """``path`` as a value in one of QEMU's options, where a comma is doubled."""
    return str(path).replace(",", ",,")
