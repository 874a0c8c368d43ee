"""Editing an image: what changes and what does not, in place or anew, and that the image is whole at every instant."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import codecs
from streamsave.endpoints import replacement
from streamsave.endpoints.replacement import SECTOR_SIZE, overwrite
from streamsave.errors import Aborted, DestinationError, IncompleteImageError, UsageError
from streamsave.format.header import HEADER_SIZE, MAGIC_PARTIAL
from streamsave.format.metadata import Metadata
from streamsave.operations.edit import edit
from streamsave.operations.image import OpenImage, read_info
from streamsave.units import KiB

from ..kit.images import METADATA, restored
from .edited import BEFORE, STREAM, payload, save, titled

pytestmark = pytest.mark.timeout(40)
GOLDEN = Path(__file__).parents[1] / "data" / "golden"
NAMES = tuple(codecs())


@pytest.fixture(params=["zstd", "raw"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "guest.save"
    save(path, request.param)
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """One that libvirt wrote: its payload does not start at a multiple of 4096."""
    path = tmp_path / "tiny.save"
    path.write_bytes((GOLDEN / "tiny.zstd.save").read_bytes())
    return path


def unchanged_but(before: bytes, path: Path) -> list[int]:
    """The offsets of the bytes that changed."""
    after = path.read_bytes()
    assert len(after) == len(before)
    return [at for at in range(len(before)) if before[at] != after[at]]


def test_the_guests_state_is_one_byte(image: Path) -> None:
    before, inode = image.read_bytes(), image.stat().st_ino
    report = edit(image, state="paused")
    assert (report.changed, report.rewritten, report.was_running) == (True, False, False)
    assert unchanged_but(before, image) == [24]
    assert image.stat().st_ino == inode
    assert not read_info(image).header.was_running
    assert edit(image, state="running").was_running
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("xml", "state"), [(None, None), (BEFORE.xml, None), (BEFORE.xml, "running"), (None, "running"), (str, None)]
)
def test_nothing_is_written_when_nothing_changes(xml: Any, state: Any, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.stat()
    monkeypatch.setattr(os, "pwrite", None)
    monkeypatch.setattr(os, "writev", None)
    report = edit(image, xml=xml, state=state)
    assert (report.changed, report.rewritten) == (False, False)
    assert image.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 5000, 65_000, 70_000, 300_000])
def test_an_xml_within_the_padding_and_beyond_it(size: int, name: str, tmp_path: Path) -> None:
    image = tmp_path / "guest.save"
    save(image, name)
    old = payload(image)
    report = edit(image, xml=titled(size))
    info = read_info(image)
    assert (report.changed, report.rewritten) == (True, True)
    assert info.metadata == Metadata(titled(size), METADATA.cookie)
    assert info.payload_offset % 4096 == 0
    assert info.index is not None
    assert info.header.was_running
    assert report.image_size == image.stat().st_size
    assert payload(image) == old
    assert restored(image)[0] == STREAM
    assert info.payload_offset - HEADER_SIZE - info.header.cookie_offset - len("<cookie/>") - 1 >= 64 * KiB
    edit(image, xml=BEFORE.xml)
    assert read_info(image).metadata == BEFORE


def test_a_change_within_a_sector_is_made_in_place(image: Path) -> None:
    edit(image, xml=titled(3))
    before, inode = image.read_bytes(), image.stat().st_ino
    report = edit(image, xml=titled(3).replace("ttt", "TtT"))
    assert (report.changed, report.rewritten) == (True, False)
    assert image.stat().st_ino == inode
    assert len(unchanged_but(before, image)) == 2
    assert read_info(image).metadata.xml == titled(3).replace("ttt", "TtT")
    report = edit(image, xml=titled(3), state="paused")
    assert not report.rewritten, "header and XML share the first sector"
    assert restored(image)[0] == STREAM


def test_a_change_across_a_border_between_sectors_is_not(image: Path) -> None:
    edit(image, xml=titled(2000))
    xml = titled(2000)
    at = SECTOR_SIZE * 2 - HEADER_SIZE
    across = xml[: at - 1] + "TT" + xml[at + 1 :]
    assert edit(image, xml=across).rewritten
    within = across[:at] + "TT" + across[at + 2 :]
    assert not edit(image, xml=within).rewritten
    assert read_info(image).metadata.xml == within


def test_more_than_a_sector_is_never_overwritten(image: Path) -> None:
    with OpenImage(image) as opened:
        for offset, size in ((0, 513), (511, 2), (1000, 100)):
            with pytest.raises(ValueError, match="not in one sector"):
                overwrite(image, opened.source.fileno(), opened.status, bytes(size), offset)


def test_of_libvirts_image_everything_else_stays(foreign: Path) -> None:
    data = bytearray(foreign.read_bytes())
    data[40:60] = os.urandom(20)  # words that a later libvirt may use
    data[24] = 7  # as true as 1
    foreign.write_bytes(data)
    old, before = payload(foreign), read_info(foreign)
    edit(foreign, xml=lambda xml: xml.replace("</name>", "</name><title>edited</title>"))
    after = read_info(foreign)
    assert after.header.unused == before.header.unused
    assert (after.header.format, after.header.version, after.header.was_running) == (5, 2, True)
    assert after.metadata.cookie == (GOLDEN / "tiny.cookie.xml").read_text()
    assert "<title>edited</title>" in after.metadata.xml
    assert payload(foreign) == old


@pytest.mark.parametrize("change", [{"state": "paused"}, {"xml": lambda xml: xml.replace("</name>", "</name><title/>")}])
def test_the_byte_order_stays(change: Any, foreign: Path) -> None:
    data = bytearray(foreign.read_bytes())
    for at in range(16, 36, 4):
        data[at : at + 4] = data[at : at + 4][::-1]
    foreign.write_bytes(data)
    before, old = read_info(foreign).header.byte_order, payload(foreign)
    edit(foreign, **change)
    info = read_info(foreign)
    assert info.header.byte_order == before == "big"
    assert info.header.was_running == ("xml" in change)
    assert payload(foreign) == old


def test_owner_mode_and_attributes_stay(image: Path, tmp_path: Path) -> None:
    image.chmod(0o640)
    os.setxattr(image, "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(image, 1234, 2345)
    link = tmp_path / "link"
    link.symlink_to(image.name)
    before = image.stat()
    report = edit(link, xml=titled(10))
    after = image.stat()
    assert link.is_symlink()
    assert report.rewritten
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.getxattr(image, "user.note") == b"kept"
    assert stat.S_IMODE(after.st_mode) == 0o640


@pytest.mark.parametrize(
    ("xml", "complaint"),
    [
        ("<domain><name>another</name></domain>", "the new XML has the name another, the image made up"),
        ("<domain", "not well-formed"),
        (BEFORE.xml + "\0", "not well-formed"),
        (titled(5 << 20), "are the most that is read"),
    ],
)
def test_what_cannot_be_is_refused(xml: str, complaint: str, image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(UsageError, match=complaint):
        edit(image, xml=xml)
    assert image.read_bytes() == before


def test_another_uuid_is_refused_however_it_is_written(foreign: Path) -> None:
    uuid = read_info(foreign).metadata.xml.split("<uuid>")[1].split("</uuid>")[0]
    edit(foreign, xml=lambda xml: xml.replace(uuid, uuid.upper().replace("-", "")))
    with pytest.raises(UsageError, match="the new XML has the uuid"):
        edit(foreign, xml=lambda xml: xml.replace(uuid.upper().replace("-", ""), uuid[:-1] + "f" * (uuid[-1] != "f") or "0"))


def test_a_state_that_is_none_is_refused(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(UsageError, match="state must be one of running, paused, not 'gone'"):
        edit(image, state="gone")  # type: ignore[arg-type]
    assert image.read_bytes() == before


def test_an_xml_that_was_broken_can_be_mended(image: Path) -> None:
    data = image.read_bytes()
    image.write_bytes(data.replace(b"<domain>", b"<domain ", 1))
    edit(image, xml=BEFORE.xml)
    assert image.read_bytes() == data


def test_a_partial_image_is_refused(image: Path) -> None:
    image.write_bytes(MAGIC_PARTIAL + image.read_bytes()[16:])
    with pytest.raises(IncompleteImageError):
        edit(image, state="paused")


@pytest.mark.parametrize("what", ["written", "replaced", "removed"])
@pytest.mark.parametrize("xml", [titled(100), titled(2999) + "\n"], ids=["anew", "in place"])
def test_an_image_that_changes_while_it_is_edited_is_left_alone(what: str, xml: str, image: Path) -> None:
    others = image.read_bytes()

    def change(_xml: str) -> str:
        if what == "written":
            image.write_bytes(others)
        else:
            image.rename(image.with_name("old"))
            if what == "replaced":
                image.write_bytes(others)
        return xml

    with pytest.raises(DestinationError, match="is gone" if what == "removed" else "somebody else changed the image"):
        edit(image, xml=change)
    assert not list(image.parent.glob(".*"))
    if what != "removed":
        assert image.read_bytes() == others


@pytest.mark.parametrize("number", [22, 18, 95, 38])
def test_where_the_kernel_cannot_copy(number: int, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, calls = os.copy_file_range, iter(range(100))

    def some(source: int, target: int, size: int, *offsets: int) -> int:
        if next(calls) > 0:
            raise OSError(number, os.strerror(number))
        return copy(source, target, min(size, 10_000), *offsets)

    monkeypatch.setattr(os, "copy_file_range", some)
    old = payload(image)
    edit(image, xml=titled(100))
    assert payload(image) == old
    assert restored(image)[0] == STREAM


def test_a_full_disk(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    before = image.read_bytes()
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(
        DestinationError, match="cannot copy the payload to offset 69632: No space left on device; free some"
    ):
        edit(image, xml=titled(100))
    assert image.read_bytes() == before
    assert os.listdir(image.parent) == [image.name]


@pytest.mark.parametrize("for_good", [False, True])
def test_a_sector_that_the_disk_does_not_take(for_good: bool, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is there again; or if that fails too the error says that nobody knows."""
    calls = iter(range(100))

    def failing(fd: int) -> None:
        if next(calls) == 0 or for_good:
            raise OSError(5, os.strerror(5))

    before = image.read_bytes()
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DestinationError, match="cannot be written at offset 24: Input/output error") as caught:
        edit(image, state="paused")
    assert image.read_bytes() == before
    notes = [f"{image} could not be changed back: after a power failure it may be as asked for, or not"]
    assert getattr(caught.value, "__notes__", []) == notes * for_good


@pytest.mark.parametrize("call", ["copy_file_range", "fsync"])
def test_cancelled(call: str, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, real, calls = Cancellation(), getattr(os, call), iter(range(100))

    def cancelling(*arguments: Any) -> Any:
        if call != "fsync" or next(calls) == 1:  # the first one is the folder's
            cancel.cancel("enough")
        return real(*arguments)

    monkeypatch.setattr(os, call, cancelling)
    monkeypatch.setattr(replacement, "COPY_SIZE", 100 * KiB)
    before = image.read_bytes()
    with pytest.raises(Aborted, match="enough"):
        edit(image, xml=titled(100), cancel=cancel)
    assert image.read_bytes() == before
    assert os.listdir(image.parent) == [image.name]
