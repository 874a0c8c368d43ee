"""libvirt's managed saves: verified and converted where they are, while libvirt may use them up at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsave.endpoints.file import NewImage
from streamsave.errors import DestinationError
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.options import CompressOptions

from ..kit.cli import streamsave as run
from .stack import LinuxDomain

BZIP2 = CompressOptions(format="bzip2")


@pytest.fixture
def managed(guest: LinuxDomain) -> Path:
    """The managed save of the guest, as seen from outside."""
    guest.stack.virsh("managedsave", guest.name)
    path = guest.stack.run.parent / "var" / "lib" / "libvirt" / "qemu" / "save" / f"{guest.name}.save"
    assert path.exists()
    return path


def has_managed_save(guest: LinuxDomain) -> bool:
    return "Managed save:   yes" in guest.stack.virsh("dominfo", guest.name).stdout


@pytest.mark.full
def test_a_managed_save_is_converted_in_place(guest: LinuxDomain, managed: Path) -> None:
    """And the domain starts from it, with its memory; own formats of ours are kept away."""
    before = managed.stat()
    assert run("verify", managed).status == 0
    refused = run("convert", managed, "--in-place", "--format", "lz4")
    assert refused.status == 2
    assert "boot the guest without its memory" in refused.error
    for format_name in ("gzip", "bzip2"):
        done = run("convert", managed, "--in-place", "--format", format_name)
        assert done.status == 0, done.err
    after = managed.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert read_info(managed).format == "bzip2"
    assert run("verify", managed).status == 0
    assert has_managed_save(guest)
    guest.stack.virsh("start", guest.name)
    assert guest.state == "running (restored)"
    assert not has_managed_save(guest)
    guest.assert_as_before()


@pytest.mark.full
def test_a_domain_that_starts_meanwhile(guest: LinuxDomain, managed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt has used its managed save up: ours must not be there for a later start, on disks that went on."""
    begin = NewImage._begin_naming

    def start(new: NewImage) -> None:
        begin(new)
        guest.stack.virsh("start", guest.name)

    monkeypatch.setattr(NewImage, "_begin_naming", start)
    with pytest.raises(DestinationError, match="is gone"):
        convert(managed, managed, BZIP2)
    assert not managed.exists()
    assert not has_managed_save(guest)
    assert list(managed.parent.glob(f".{managed.name}*")) == []
    guest.assert_as_before()


@pytest.mark.full
def test_a_format_that_this_libvirt_lacks(guest: LinuxDomain, managed: Path) -> None:
    """It says so, and keeps the managed save: converted back, the guest goes on."""
    done = run("convert", managed, "--in-place", "--format", "zstd")
    assert done.status == 0, done.err
    if guest.stack.suite == "bookworm":
        refused = guest.stack.virsh("start", guest.name, check=False)
        assert "save format" in refused.stderr
        assert has_managed_save(guest)
        assert run("convert", managed, "--in-place", "--format", "gzip").status == 0
    guest.stack.virsh("start", guest.name)
    assert guest.state == "running (restored)"
    guest.assert_as_before()
