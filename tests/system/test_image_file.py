"""The image as a file among others: who may read it, what becomes of the one before, and what is left lying about."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from streamsave.endpoints.file import NewImage
from streamsave.errors import DestinationError
from streamsave.format.metadata import Metadata
from streamsave.format.migration import StreamMap
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream

from ..kit.unfinished import without_nameless_files

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"
OLD = b"the image before"


class NoSuccess(Exception):
    """The caller's last word."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the images are."""
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture(params=[0, 0o022, 0o077])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def write_image(path: Path, *, succeed: bool = True) -> None:
    """Save a stream, up to the last moment at which it can fail."""

    def confirm(_stream: StreamMap) -> None:
        if not succeed:
            raise NoSuccess

    with GOLDEN.open("rb") as file:
        os.lseek(file.fileno(), 67148, os.SEEK_SET)
        save_stream(file.fileno(), path, Metadata("<domain/>"), was_running=True, confirm=confirm)


def open_inodes() -> set[int]:
    """Of the files that this process has open."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the folder's own, which is closed by now
            inodes.add(os.fstat(int(name)).st_ino)
    return inodes


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("exists", [False, True])
def test_nobody_else_may_read_the_guests_memory(folder: Path, *, exists: bool) -> None:
    image = folder / "guest.save"
    if exists:
        image.touch()
        image.chmod(0o644)
    write_image(image)
    assert stat.S_IMODE(image.stat().st_mode) == 0o600


def test_nobody_else_may_read_it_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an unfinished image has a name."""
    without_nameless_files(monkeypatch)
    modes: list[int] = []

    def look(_stream: StreamMap) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir())

    with GOLDEN.open("rb") as file:
        os.lseek(file.fileno(), 67148, os.SEEK_SET)
        save_stream(file.fileno(), folder / "guest.save", Metadata("<domain/>"), was_running=True, confirm=look)
    assert modes == [0o600]


@pytest.mark.parametrize("nameless", [True, False])
def test_the_image_before_is_there_until_the_new_one_is(
    nameless: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nameless:
        without_nameless_files(monkeypatch)
    image = folder / "guest.save"
    image.write_bytes(OLD)
    before = image.stat()
    with pytest.raises(NoSuccess):
        write_image(image, succeed=False)
    after = image.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
    assert image.read_bytes() == OLD
    assert names(folder) == ["guest.save"]

    with image.open("rb") as reader:  # somebody who reads the old one goes on reading it
        write_image(image)
        assert reader.read() == OLD
    assert read_info(image).header.complete
    assert names(folder) == ["guest.save"]


def test_the_space_of_the_image_before_is_given_back_when_the_guest_is_free(folder: Path) -> None:
    path = folder / "image.save"
    path.write_bytes(OLD)
    with path.open("rb") as before:
        identity = os.fstat(before.fileno()).st_ino
    with NewImage(path, b"partial") as image:
        image.commit(b"whole..", b"partial")
        assert path.read_bytes() == b"whole.."
        assert identity in open_inodes(), "kept while the guest stands still"
    assert identity not in open_inodes()


@pytest.mark.parametrize("target", ["here.save", "elsewhere/there.save"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_link_stays_a_link(folder: Path, target: str, *, exists: bool) -> None:
    (folder / "elsewhere").mkdir()
    link, image = folder / "link.save", folder / target
    link.symlink_to(target)
    if exists:
        image.write_bytes(OLD)
    with pytest.raises(NoSuccess):
        write_image(link, succeed=False)
    assert image.exists() == exists
    write_image(link)
    assert os.readlink(link) == target
    assert read_info(image).header.complete
    assert not image.is_symlink()
    assert sorted([*names(folder), *names(folder / "elsewhere")]) == sorted(["elsewhere", "link.save", Path(target).name])


def test_a_name_as_long_as_names_can_be(folder: Path) -> None:
    for name in ("n" * 255, "\N{SNOWMAN}" * 85):
        write_image(folder / name)
        assert read_info(folder / name).header.complete
    assert len(names(folder)) == 2


def test_what_is_no_file_is_left_alone(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "lost").symlink_to("nowhere/at-all")
    before = names(folder)
    for name in ("fifo", "loop", "lost", "."):
        with pytest.raises(DestinationError):
            write_image(folder / name)
    assert names(folder) == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loop", "Too many levels of symbolic links; choose a path without a loop"),
        ("n" * 256, "File name too long; choose a shorter name"),
        ("file/guest.save", "Not a directory; choose a path whose parents are folders"),
        ("none/guest.save", "none does not exist; create it first"),
    ],
)
def test_a_path_that_cannot_be_says_what_to_do(folder: Path, name: str, expected: str) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "file").touch()
    with pytest.raises(DestinationError, match=re.escape(expected)):
        write_image(folder / name)
