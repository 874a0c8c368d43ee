"""Images of a real libvirt's domains, converted and edited, go back into libvirt; sparse ones too, which QEMU wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import streamsave

from ..kit.cli import streamsave as run
from .stack import LinuxDomain

TITLE = "a title that streamsave gave it"


def titled(xml: str, room: int = 0) -> str:
    """The same domain with a title, and ``room`` more bytes in a comment."""
    return xml.replace("</name>", f"</name>\n  <title>{TITLE}</title><!--{'-x' * (room // 2)}-->", 1)


def restore(guest: LinuxDomain, image: Path) -> None:
    guest.stack.virsh("restore", image)
    image.unlink()
    guest.assert_as_before()


def saved_as_sparse(guest: LinuxDomain, image: Path, *options: str) -> bool:
    """Whether virsh did that. libvirt has had the format since 11.2: before, the domain goes on as if nothing had been."""
    done = guest.stack.virsh("save", guest.name, image, "--image-format", "sparse", *options, check=False)
    if done.returncode:
        assert guest.stack.suite == "bookworm", done.stderr
        assert "--image-format" in done.stderr, "virsh does not know the option"
        assert not image.exists()
        guest.assert_as_before()
    return not done.returncode


def test_what_virsh_saved_as_sparse(guest: LinuxDomain, image: Path) -> None:
    if not saved_as_sparse(guest, image):
        return
    assert streamsave.read_info(image).format == "sparse"
    report = streamsave.convert(image, image, streamsave.CompressOptions(format="gzip"))
    assert (report.source_format, report.format) == ("sparse", "gzip")
    blocks = {block.name: block.size for block in report.stream.ram_blocks}
    assert blocks["pc.ram"] == guest.memory_size
    pages = report.stream.page_count + report.stream.zero_page_count
    assert pages == sum(blocks.values()) // 4096, "each page once"
    restore(guest, image)


@pytest.mark.parametrize("channels", [2])
def test_what_virsh_saved_as_sparse_in_parallel(guest: LinuxDomain, image: Path, channels: int) -> None:
    if not saved_as_sparse(guest, image, "--parallel-channels", str(channels)):
        return
    streamsave.convert(image, image, streamsave.CompressOptions(format="gzip"))
    restore(guest, image)


@pytest.mark.parametrize("after", ["bzip2", "raw"])
def test_virsh_restores_what_was_converted(guest: LinuxDomain, image: Path, after: str) -> None:
    guest.stack.virsh("save", guest.name, image)
    done = run("convert", image, "--in-place", "--format", after)
    assert done.status == 0, done.err
    restore(guest, image)


@pytest.mark.parametrize("room", [0, 200_000])
def test_virsh_restores_what_was_edited(guest: LinuxDomain, image: Path, room: int) -> None:
    """Within libvirt's padding and beyond it, where its own save-image-edit stops."""
    guest.stack.virsh("save", guest.name, image)
    report = streamsave.edit(image, xml=lambda xml: titled(xml, room), state="paused")
    assert report.rewritten
    assert TITLE in guest.stack.virsh("save-image-dumpxml", image).stdout
    guest.stack.virsh("restore", image)
    assert guest.state.startswith("paused"), guest.state
    assert TITLE in guest.stack.virsh("dumpxml", guest.name).stdout
    guest.stack.virsh("resume", guest.name)
    image.unlink()
    guest.assert_as_before()


def test_a_managed_save_stays_one(guest: LinuxDomain) -> None:
    """libvirt still finds, reads and starts from it when it was converted and edited where it lies."""
    guest.stack.virsh("managedsave", guest.name)
    image = guest.stack.run.parent / "var/lib/libvirt/qemu/save" / f"{guest.name}.save"
    before = image.stat()
    streamsave.convert(image, image, streamsave.CompressOptions(format="gzip"))
    streamsave.edit(image, xml=titled)
    after = image.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert TITLE in guest.stack.virsh("managedsave-dumpxml", guest.name).stdout
    guest.stack.virsh("start", guest.name)
    guest.assert_as_before()


def test_the_two_edits_agree(guest: LinuxDomain, image: Path) -> None:
    """virsh's own edit of an image that was edited here, and ours of one that virsh edited."""
    guest.stack.virsh("save", guest.name, image)
    streamsave.edit(image, xml=titled)
    file = guest.folder / "new.xml"
    file.write_text(guest.stack.virsh("save-image-dumpxml", image).stdout.replace(TITLE, "a title of virsh"))
    guest.stack.virsh("save-image-define", image, file)
    file.unlink()
    assert "a title of virsh" in streamsave.read_info(image).metadata.xml
    assert streamsave.edit(image, xml=lambda xml: xml.replace("a title of virsh", TITLE)).changed
    restore(guest, image)
