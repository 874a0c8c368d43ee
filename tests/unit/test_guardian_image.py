"""What the guardian does to an image's file, in which order: nothing is decided by what a power failure could undo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsave.format.header import MAGIC_COMPLETE, MAGIC_PARTIAL
from streamsave.guardian.child import _Image
from streamsave.guardian.plan import GuardianPlan


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(MAGIC_COMPLETE + b"more")
    return path


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What happens to which file."""
    calls: list[tuple[str, str]] = []
    for name in ("fsync", "pwrite"):
        real = getattr(os, name)

        def noted(fd: int, *rest: object, name: str = name, real: object = real) -> object:
            calls.append((name, Path(os.readlink(f"/proc/self/fd/{fd}")).name))
            return real(fd, *rest)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noted)
    return calls


def plan(kind: str, path: Path) -> GuardianPlan:
    return GuardianPlan(
        kind=kind,
        temporary=str(path.with_name("temporary")),
        destination=str(path),
        partial=MAGIC_PARTIAL.decode(),
        complete=MAGIC_COMPLETE.decode(),
    )


def test_an_image_is_durable_before_its_guest_is_ended(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    """The save may have been killed right behind the rename."""
    assert _Image(plan("file", path), fd).is_committed()
    assert calls == [("fsync", "image"), ("fsync", path.parent.name)]


def test_on_a_device_there_is_no_name(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    """And the header is written anew: an fsync that failed may have left it in memory alone."""
    assert _Image(plan("in place", path), fd).is_committed()
    assert calls == [("pwrite", "image"), ("fsync", "image")]


def test_what_is_in_place_is_marked_durably(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    _Image(plan("in place", path), fd).take_back()
    assert calls == [("pwrite", "image"), ("fsync", "image")]
    assert path.read_bytes() == MAGIC_PARTIAL + b"more"


def test_what_is_partial_is_left_as_it_is(path: Path, fd: int, calls: list[tuple[str, str]]) -> None:
    path.write_bytes(MAGIC_PARTIAL)
    image = _Image(plan("in place", path), fd)
    assert not image.is_committed()
    image.take_back()
    assert calls == []


def test_an_older_image_has_its_name_again(path: Path, fd: int) -> None:
    """The two had changed places, and then the new one could not be made durable: the guest runs on."""
    older = path.with_name("temporary")
    older.write_bytes(b"the older one")
    _Image(plan("file", path), fd).take_back()
    assert path.read_bytes() == b"the older one"
    assert list(path.parent.iterdir()) == [path]
