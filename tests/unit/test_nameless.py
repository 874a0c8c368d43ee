"""A new image has no name until it is complete, wherever the file system has files without names."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from streamsave.endpoints import nameless
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.leftovers import remove_leftovers
from streamsave.errors import DestinationError


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Files without names, with that error."""
    real = os.open

    def call(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", call)


def test_nothing_is_there_until_the_end(tmp_path: Path) -> None:
    with NewImage(tmp_path / "image", b"head") as image:
        image.write([b" and more"])
        assert list(tmp_path.iterdir()) == []
        image.commit(b"HEAD", b"head")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("image", b"HEAD and more")]


@pytest.mark.parametrize("number", nameless.CANNOT)
def test_a_file_system_that_has_none(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it has its temporary name from the beginning."""
    refuse(monkeypatch, number)
    with NewImage(tmp_path / "image", b"head") as image:
        assert list(tmp_path.iterdir()) == [image.temporary]
        image.commit(b"HEAD", b"head")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("image", b"HEAD")]


def test_a_system_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a name could never get one there."""
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(nameless, "_link", lambda fd: f"/no/proc/self/fd/{fd}")
    with NewImage(tmp_path / "image", b"head") as image:
        assert list(tmp_path.iterdir()) == [image.temporary]
    assert list(tmp_path.iterdir()) == [], "it was not committed"
    assert os.listdir("/proc/self/fd") == before


def test_a_folder_that_takes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(DestinationError, match=r"cannot create a file in .*: No space left on device; free some space"):
        NewImage(tmp_path / "image", b"head")


def test_whoever_tidies_up_knows_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is locked before it has any name."""
    seen: list[list[Path]] = []
    rename = os.rename

    def tidy_and_rename(old: Path, new: Path) -> None:
        seen.append(list(tmp_path.iterdir()))
        remove_leftovers(new)
        rename(old, new)

    monkeypatch.setattr(os, "rename", tidy_and_rename)
    with caplog.at_level(logging.INFO, "streamsave"), NewImage(tmp_path / "image", b"head") as image:
        image.commit(b"LibvirtQemudSave", b"LibvirtQemudPart")
        assert seen == [[image.temporary]]
    assert caplog.text == ""
