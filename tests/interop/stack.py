"""A libvirt of a certain release with its QEMU, from ``lab`` beside this file, and guests in it.

The Linux guest of ``tests/kit`` is the domain: every tick that it counts is a hash over a blob in its RAM, and the console,
to which libvirt's QEMUs append one after the other, tells whether a restored guest went on from the instant of its save.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from streamsave.demo.console import Console
from streamsave.units import MiB

from ..kit.linux import CACHE as LINUX_CACHE
from ..kit.linux import Blob, linux_boot, mixed_blob
from ..kit.waiting import until

LAB: Final = Path(__file__).with_name("lab")
WORK: Final = LINUX_CACHE.parent / "lab" / "work"
"""Same path inside the chroots; writable for whoever QEMU runs as."""

DOMAIN: Final = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{blob}'/><target dev='vda' bus='virtio'/><readonly/>
    </disk>
    <serial type='file'><source path='{console}' append='on'/></serial>
    <controller type='usb' model='none'/><memballoon model='none'/><video><model type='none'/></video>
  </devices>
</domain>
"""


class LabError(Exception):
    """The lab does not do what it should; with what it said."""


@dataclass
class Stack:
    """The daemons of one Debian release, and where they are."""

    suite: str
    uri: str = field(init=False)
    run: Path = field(init=False)
    """The chroot's /run."""

    def __post_init__(self) -> None:
        self.uri = self._lab("uri").strip()
        self.run = LINUX_CACHE.parent / "lab" / self.suite / "run"

    def up(self, conf: Path | None = None) -> None:
        """Start the daemons, with ``conf`` appended to the distribution's qemu.conf; again if that is another one."""
        self._lab("up", *([str(conf)] if conf else []))

    def down(self) -> None:
        """End them, and every domain."""
        self._lab("down")

    def virsh(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the stack's own virsh."""
        command = [str(LAB), "virsh", "-q", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, check=False)
        if check and done.returncode:
            raise LabError(f"virsh {' '.join(map(str, arguments))}: {done.stderr}")
        return done

    def state(self, name: str) -> str:
        """``virsh domstate --reason``."""
        return self.virsh("domstate", name, "--reason").stdout.strip()

    def log(self) -> str:
        """What the daemon has said."""
        return Path(self._lab("log").strip()).read_text(errors="replace")

    def daemon_pid(self) -> int:
        """Of libvirtd."""
        return int((self.run / "libvirtd.pid").read_text())

    @contextmanager
    def guest(self, name: str, memory_mib: int = 128, blob: Blob | None = None) -> Iterator[LinuxDomain]:
        """A running Linux guest, booted; gone at the end. With ``blob`` in its RAM, or a mixed one of a quarter."""
        domain = LinuxDomain(self, name, memory_mib, blob or mixed_blob(memory_mib * MiB // 4))
        try:
            domain.boot()
            yield domain
        finally:
            domain.remove()

    @property
    def env(self) -> dict[str, str]:
        """What makes ``lab`` this stack's."""
        return {**os.environ, "LAB_SUITE": self.suite}

    @property
    def versions(self) -> str:
        """Such as ``libvirt 11.3.0, QEMU 10.0.13``."""
        found = re.findall(
            r"^Using library: (libvirt \S+)|^Running hypervisor: (QEMU \S+)", self.virsh("version").stdout, re.MULTILINE
        )
        return ", ".join(library or hypervisor for library, hypervisor in found)

    def _lab(self, *arguments: str) -> str:
        done = subprocess.run([str(LAB), *arguments], capture_output=True, text=True, env=self.env, check=False)
        if done.returncode:
            raise LabError(f"lab {' '.join(arguments)} ({self.suite}): {done.stderr}")
        return done.stdout


class LinuxDomain:
    """A domain with the Linux guest, and a folder of its own for what the daemon writes."""

    def __init__(self, stack: Stack, name: str, memory_mib: int, blob: Blob) -> None:
        self.stack = stack
        self.name = name
        self.memory_size = memory_mib * MiB
        self.folder = WORK / f"{stack.suite}-{name}"
        self.console = Console(self.folder / "console")
        self.xml = self.folder / "domain.xml"
        self._blob = blob
        self._memory_mib = memory_mib

    def boot(self) -> None:
        """Start it and wait for its first tick."""
        self.remove()
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o777)
        boot = linux_boot()
        self.xml.write_text(
            DOMAIN.format(
                name=self.name,
                memory=self._memory_mib,
                machine="pc-q35-7.2",  # the newest that both releases have
                kernel=boot.kernel,
                initrd=boot.initrd,
                command_line=boot.command_line,
                blob=self._blob.path,
                console=self.console.path,
            )
        )
        self.stack.virsh("define", self.xml)
        self.stack.virsh("start", self.name)
        self.wait_for_ticks(1, timeout_s=120)

    def wait_for_ticks(self, count: int = 2, timeout_s: float = 60.0) -> None:
        """Wait until the guest has counted on. The second tick after a restore has seen all of the blob."""
        wanted = self.console.counter() + count
        until(lambda: self.console.counter() >= wanted or self.console.damage(), timeout_s=timeout_s, what="a tick")
        assert self.console.seamless(), self.console.text()

    @property
    def state(self) -> str:
        """With the reason."""
        return self.stack.state(self.name)

    def qemu_pid(self) -> int:
        """Of the QEMU that it runs in."""
        return int((self.stack.run / "libvirt" / "qemu" / f"{self.name}.pid").read_text())

    def files(self) -> list[str]:
        """What is in its folder beside what belongs there."""
        return sorted({path.name for path in self.folder.iterdir()} - {self.console.path.name, self.xml.name})

    def tidy(self) -> None:
        """Remove those files."""
        for name in self.files():
            (self.folder / name).unlink()

    def assert_as_before(self) -> None:
        """It runs, its memory is what it was, libvirt has no job with it, and nothing new is in its folder."""
        assert self.state.startswith("running"), self.state
        job = self.stack.virsh("domjobinfo", self.name).stdout
        assert job.split(":")[1].split()[0] == "None", job
        self.wait_for_ticks()
        assert self.files() == []

    def remove(self) -> None:
        """Destroy and forget it, and all that was written for it."""
        self.stack.virsh("destroy", self.name, check=False)
        self.stack.virsh("undefine", self.name, "--managed-save", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
