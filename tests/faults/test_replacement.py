"""An image that takes another one's place: at the last moment that one is used up, changes, or the disk fails."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streamsave.cli.main import main
from streamsave.endpoints import file
from streamsave.endpoints.exchange import exchange
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX
from streamsave.endpoints.replacement import overwrite
from streamsave.errors import DestinationError, UsageError
from streamsave.operations.convert import convert
from streamsave.operations.edit import edit
from streamsave.operations.image import OpenImage, read_info
from streamsave.options import CompressOptions

from ..kit.images import made_up_stream, restored, save_bytes
from .saving import failing, noting

BZIP2 = CompressOptions(format="bzip2")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An image in a folder of its own."""
    path = tmp_path / "images" / "guest.save"
    path.parent.mkdir()
    save_bytes(made_up_stream(), path, format="gzip")
    return path


@pytest.fixture
def at_naming(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """``at_naming(act)``: do it when everything is durable, and only the name is missing."""

    def arm(act: Callable[[], object]) -> None:
        begin = NewImage._begin_naming

        def call(new: NewImage) -> None:
            begin(new)
            act()

        monkeypatch.setattr(NewImage, "_begin_naming", call)

    return arm


def names(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir()]


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_new_image_takes_the_place(old: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:
        monkeypatch.setattr(file, "exchange", _cannot)
    convert(old, old, BZIP2)
    assert read_info(old).format == "bzip2"
    assert restored(old)[0] == made_up_stream()
    assert names(old) == [old.name]


def _cannot(*_: Path) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_libvirts_managed_saves_stay_what_libvirt_reads(old: Path, tmp_path: Path) -> None:
    """A magic that libvirt does not know makes it remove the image and boot the guest cold."""
    folder = tmp_path / "lib" / "libvirt" / "qemu" / "save"
    folder.mkdir(parents=True)
    managed = old.rename(folder / "web.save")
    before = managed.read_bytes()
    for destination in (managed, folder / "other.save"):
        with pytest.raises(UsageError, match=r"managed saves.*does not have the format lz4"):
            convert(managed, destination, CompressOptions(format="lz4"))
    assert managed.read_bytes() == before
    assert names(managed) == [managed.name]
    convert(managed, managed, BZIP2)
    convert(managed, tmp_path / "web.save", CompressOptions(format="lz4"))


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_image_that_was_used_up_does_not_come_back(
    old: Path, at_naming: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """libvirt started the domain from its managed save, and removed it: no later start may find an old memory."""
    if not exchanges:
        monkeypatch.setattr(file, "exchange", _cannot)
    at_naming(old.unlink)
    with pytest.raises(DestinationError, match="is gone"):
        convert(old, old, BZIP2)
    assert names(old) == []


def test_an_image_that_goes_between_the_look_and_the_exchange(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(first: Path, second: Path) -> None:
        second.unlink(missing_ok=True)
        exchange(first, second)

    monkeypatch.setattr(file, "exchange", late)
    with pytest.raises(DestinationError, match="is gone"):
        convert(old, old, BZIP2)
    assert names(old) == []


def test_an_image_that_changes_between_the_look_and_the_exchange(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = b"somebody else's"

    def late(first: Path, second: Path) -> None:
        if second.read_bytes()[:16] == b"LibvirtQemudSave" and first.name.endswith(TEMPORARY_SUFFIX):
            second.unlink()
            second.write_bytes(other)
        exchange(first, second)
        monkeypatch.setattr(file, "exchange", exchange)

    monkeypatch.setattr(file, "exchange", late)
    with pytest.raises(DestinationError, match="somebody else changed the image meanwhile"):
        convert(old, old, BZIP2)
    assert old.read_bytes() == other
    assert names(old) == [old.name]


def test_a_folder_that_cannot_be_synced_has_the_old_image_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = old.read_bytes()
    calls: list[Path] = []
    fsync_folder = file.fsync_folder

    def fail(folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync_folder(folder)

    monkeypatch.setattr(file, "fsync_folder", fail)
    with pytest.raises(DestinationError, match="cannot make the image durable"):
        convert(old, old, BZIP2)
    assert len(calls) == 3, "once more, for the old image's name"
    assert old.read_bytes() == before
    assert names(old) == [old.name]


def test_an_older_file_that_cannot_be_removed_is_told(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no name any more that anybody knows."""
    before, new = old.read_bytes(), tmp_path / "new.xml"
    monkeypatch.setattr(os, "unlink", failing(os.unlink, 1, 2))  # once more when it is closed
    title = f"<title>{'of several sectors ' * 100}</title>"
    report = edit(old, xml=lambda xml: xml.replace("</name>", f"</name>{title}"))
    (older,) = old.parent.glob(".*")
    assert report.warnings == (f"{older} is the older image, and could not be removed (Input/output error)",)
    assert older.read_bytes() == before
    assert title in read_info(old).metadata.xml
    new.write_text(read_info(older).metadata.xml)
    monkeypatch.setattr(os, "unlink", failing(os.unlink, 1, 2))
    assert main(["edit", str(old), "--xml", str(new), "--json"]) == 0
    shown = capsys.readouterr()
    (warning,) = json.loads(shown.out)["warnings"]
    assert "is the older image, and could not be removed (Input/output error)" in warning
    assert shown.err == f"streamsave: warning: {warning}\n"


# Written over, within a sector


def test_what_changes_in_place_is_durable(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("pwrite", "fsync"):
        monkeypatch.setattr(os, name, noting(getattr(os, name), calls, name))
    assert not edit(old, state="paused").rewritten
    assert calls == ["pwrite", "fsync"]


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_what_cannot_be_changed_in_place_is_told(call: str, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DestinationError, match=r"cannot be written at offset 24: Input/output error"):
        edit(old, state="paused")


def test_half_a_change_in_place_is_none(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data) - 1)
    with OpenImage(old) as opened, pytest.raises(DestinationError, match="cannot be written at offset 100: short write"):
        overwrite(old, opened.source.fileno(), opened.status, b"four", 100)
