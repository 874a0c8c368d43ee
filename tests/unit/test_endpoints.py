"""Endpoints one at a time: what they do once they were aborted, and what they leave alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamsave.endpoints.file import FileSource, NewImage
from streamsave.errors import DestinationError, SourceError


def test_a_file_is_not_read_after_abort(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something")
    source = FileSource(os.open(tmp_path / "file", os.O_RDONLY), tmp_path / "file")
    view = memoryview(bytearray(4))
    assert source.readinto(view) == 4
    source.abort()
    with pytest.raises(SourceError, match="reading was aborted"):
        source.readinto(view)
    source.close()
    source.close()


def test_nothing_is_written_once_it_was_given_up(tmp_path: Path) -> None:
    with NewImage(tmp_path / "image", b"head") as image:
        image.abort()
        with pytest.raises(DestinationError, match="Operation canceled"):
            image.write([b"more"])
        assert image.temporary.read_bytes() == b"head"
        with pytest.raises(DestinationError, match="Operation canceled"):
            image.commit(b"HEAD", b"head")
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_puts_in_the_place_of_an_unfinished_image_is_theirs(tmp_path: Path) -> None:
    with NewImage(tmp_path / "image", b"head") as image:
        image.temporary.unlink()
        image.temporary.write_text("somebody else's")
    assert image.temporary.read_text() == "somebody else's"
