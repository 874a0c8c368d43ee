"""Every format in every direction: one guest goes through all of them in turn, and has its memory checked after each.

What was seen is the table of docs/libvirt.md: ``make interop-full`` writes it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs
from streamsave.format.save_format import SaveFormat

from ..kit.cli import Result
from ..kit.cli import streamsave as run
from ..kit.qemu import listens
from ..kit.waiting import until
from .conftest import HERE, SUITES
from .stack import LAB, LinuxDomain, Stack
from .table import CANNOT, DIRECTIONS, WORKS, Record

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
FORMATS = [name for name, codec in codecs().items() if type(codec).__module__.startswith("streamsave.")]


@pytest.mark.parametrize("name", FORMATS)
def test_every_direction(stack: Stack, name: str, record: Record) -> None:
    stack.up()
    with stack.guest(f"matrix-{name}", memory_mib=96) as guest:
        legs = _Legs(guest, name)
        seen = [legs.domain_to_virsh(), legs.virsh_to_domain(), legs.virsh_to_qemu(), legs.qemu_to_domain()]
        for direction, outcome in zip(DIRECTIONS, seen, strict=True):
            record(stack, name, direction, outcome)


class _Legs:
    """The four directions. Each begins and ends with the guest running: in a domain, or after the third in a QEMU."""

    def __init__(self, guest: LinuxDomain, name: str) -> None:
        self.guest = guest
        self.stack = guest.stack
        self.name = name
        self.image = guest.folder / "guest.save"
        self.monitor = guest.folder / "qmp"
        self.known = name in (number.word for number in SaveFormat)
        self.libvirts = self.known and not (name == "zstd" and guest.stack.suite == "bookworm")
        """Whether this libvirt has the format."""

    def domain_to_virsh(self) -> str:
        """``save --domain``, then ``virsh restore``; where that cannot, ``restore --connect``."""
        saved = self._ours(
            "save", "--domain", self.guest.name, "--connect", self.stack.uri, self.image, "--format", self.name
        )
        return self._into_libvirt(saved)

    def virsh_to_domain(self) -> str:
        """``virsh save``, then ``restore --connect``."""
        outcome = self._virsh_save()
        self._ours("restore", self.image, "--connect", self.stack.uri)
        self._went_on()
        return outcome

    def virsh_to_qemu(self) -> str:
        """``virsh save``, then ``restore --qmp``, into the same machine without libvirt."""
        outcome = self._virsh_save()
        with self._machine("-incoming", "defer"):
            self._ours("restore", self.image, "--qmp", self.monitor)
            self._went_on()
            self._ours("save", "--qmp", self.monitor, self.image, "--format", self.name)
        return outcome

    def qemu_to_domain(self) -> str:
        """``save --qmp``, which the leg before has ended with, then ``restore --connect --xml``."""
        xml = self.guest.folder / "same.xml"
        xml.write_text(self.stack.virsh("dumpxml", "--inactive", self.guest.name).stdout)
        refused = self.stack.virsh("restore", self.image, "--xml", xml, check=False)
        assert refused.returncode != 0, "then let virsh restore it, and change the documentation"
        self._ours("restore", self.image, "--connect", self.stack.uri, "--xml", xml)
        self._went_on()
        return WORKS

    def _virsh_save(self) -> str:
        """Where this libvirt lacks the format, uncompressed: the guest has to go on."""
        if not self.libvirts:
            self.stack.virsh("save", self.guest.name, self.image)
            return CANNOT
        if "--image-format" in self.stack.virsh("save", "--help").stdout:
            self.stack.virsh("save", self.guest.name, self.image, "--image-format", self.name)
        else:
            conf = self.guest.folder / "format.conf"
            conf.write_text((HERE / "root.conf").read_text() + f'save_image_format = "{self.name}"\n')
            self.stack.up(conf)
            self.stack.virsh("save", self.guest.name, self.image)
            self.stack.up()
        assert _format_of(self.image) == self.name
        return WORKS

    def _into_libvirt(self, saved: Result) -> str:
        """``virsh restore``; where it cannot, it says so, we did too, and ``restore --connect`` can."""
        if self.libvirts:
            self.stack.virsh("restore", self.image)
            self._went_on()
            return WORKS
        refused = self.stack.virsh("restore", self.image, check=False)
        assert refused.returncode != 0
        said = "image magic is incorrect" if not self.known else "save format"
        assert said in refused.stderr, refused.stderr
        promise = "does not restore zstd" if self.known else "only streamsave restores it"
        assert promise in saved.out + saved.err
        self._ours("restore", self.image, "--connect", self.stack.uri)
        self._went_on()
        return CANNOT

    def _ours(self, *arguments: str | Path) -> Result:
        result = run(*arguments, timeout_s=300)
        assert result.status == 0, result.err
        return result

    def _went_on(self) -> None:
        self.guest.wait_for_ticks(2, timeout_s=120)

    @contextmanager
    def _machine(self, *extra: str) -> Iterator[None]:
        """The domain's QEMU, with our monitor instead of libvirt's."""
        native = self.stack.virsh("domxml-to-native", "qemu-argv", "--domain", self.guest.name).stdout
        words = [word for word in shlex.split(native) if word != "-S"]
        first = next(number for number, word in enumerate(words) if word.startswith("/"))
        command = [words[first]]
        for option, value in zip(words[first + 1 :], [*words[first + 2 :], ""], strict=True):
            if option.startswith("-"):
                ours = "masterKey" in value or "charmonitor" in value
                command += [] if ours else [option] if value.startswith("-") else [option, value]
        command += ["-qmp", f"unix:{self.monitor},server=on,wait=off", *extra]
        self.monitor.unlink(missing_ok=True)
        process = subprocess.Popen([LAB, "sh", "exec " + shlex.join(command)], env=self.stack.env, stderr=subprocess.PIPE)
        try:
            until(lambda: listens(self.monitor) or process.poll() is not None, timeout_s=30, what="QEMU's monitor")
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            yield
            process.wait(30)
        finally:
            process.kill()
            process.communicate()


def _format_of(image: Path) -> str:
    from streamsave.operations.image import read_info

    return read_info(image).format


def test_the_stacks_are_those_that_are_documented(stack: Stack) -> None:
    versions = {"trixie": ("11.3", "10.0"), "bookworm": ("9.0", "7.2")}
    assert stack.suite in SUITES
    text = stack.virsh("version").stdout
    assert f"libvirt {versions[stack.suite][0]}" in text
    assert f"QEMU {versions[stack.suite][1]}" in text
