"""Past the page cache: the same bytes come out whatever their sizes, and where it cannot be they come out too."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from streamsave.endpoints.direct import BLOCK_SIZE, BUFFER_SIZE, DirectWriter
from streamsave.endpoints.file import NewImage
from streamsave.errors import DestinationError
from streamsave.units import KiB, MiB

HEAD = b"h" * (8 * KiB)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


def pieces(size: int) -> Iterator[bytes]:
    random = Random(size)
    while size:
        piece = min(size, random.choice([1, 100, 4096, 300_000, 2 * MiB]))
        yield random.randbytes(piece)
        size -= piece


def refuse(monkeypatch: pytest.MonkeyPatch, fd: int, first: int = 1, number: int = errno.EINVAL) -> None:
    """The file system takes the flag, but from the ``first`` write on none with it."""
    write, count = os.write, [0]

    def fail(to: int, data: Any) -> int:
        count[0] += 1
        if to == fd and is_direct(fd) and count[0] >= first:
            raise OSError(number, os.strerror(number))
        return write(to, data)

    monkeypatch.setattr(os, "write", fail)


SIZES = [
    0,
    1,
    BLOCK_SIZE - 1,
    BLOCK_SIZE,
    BLOCK_SIZE + 1,
    BUFFER_SIZE,
    BUFFER_SIZE + 1,
    3 * BUFFER_SIZE + 5 * BLOCK_SIZE + 77,
]


@pytest.mark.parametrize("how", ["direct", "refused at once", "refused by a write", "refused later"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_written(size: int, how: str, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if how.startswith("refused by") or how == "refused later":
        refuse(monkeypatch, fd, 1 if how.startswith("refused by") else 2)
    if how == "refused at once":
        monkeypatch.setattr(fcntl, "fcntl", raising(OSError(errno.EINVAL, "Invalid argument")))
    writer = DirectWriter(fd, 0, lambda: None)
    monkeypatch.undo() if how == "refused at once" else None
    assert bool(writer.refusal) == (how == "refused at once")
    data = list(pieces(size))
    for start in range(0, len(data), 3):
        writer.write(data[start : start + 3])
    writer.finish()
    assert not is_direct(fd)
    assert os.pread(fd, size + 1, 0) == b"".join(data)


def raising(error: OSError) -> Any:
    def fail(*_: object) -> int:
        raise error

    return fail


def test_whole_blocks_go_past_the_cache_and_the_tail_does_not(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[tuple[bool, int, int]] = []
    write = os.write

    def look(to: int, data: memoryview) -> int:
        if to == fd:
            writes.append((is_direct(fd), os.lseek(fd, 0, os.SEEK_CUR), len(data)))
        return write(to, data)

    monkeypatch.setattr(os, "write", look)
    writer = DirectWriter(fd, 0, lambda: None)
    writer.write([bytes(BUFFER_SIZE + 3 * BLOCK_SIZE + 5)])
    writer.finish()
    first, second, tail = writes
    assert first == (True, 0, BUFFER_SIZE)
    assert second == (True, BUFFER_SIZE, 3 * BLOCK_SIZE)
    assert tail == (False, BUFFER_SIZE + 3 * BLOCK_SIZE, 5)


def test_a_file_system_that_takes_a_part_of_a_block(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows is at no offset and in no memory for it: it may refuse that, and here it does."""
    write, parts = os.write, iter([1000])

    def take(to: int, data: memoryview) -> int:
        if to == fd and is_direct(fd):
            if not (part := next(parts, 0)):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
            taken = write(to, data[:part])
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
            return taken
        return write(to, data)

    monkeypatch.setattr(os, "write", take)
    writer = DirectWriter(fd, 0, lambda: None)
    data = b"".join(pieces(BUFFER_SIZE + 3 * BLOCK_SIZE + 5))
    writer.write([data])
    writer.finish()
    assert not is_direct(fd)
    assert os.pread(fd, len(data) + 1, 0) == data


def test_an_offset_that_is_no_block(fd: int) -> None:
    writer = DirectWriter(fd, 300, lambda: None)
    assert "begins at 300" in writer.refusal
    assert not is_direct(fd)


def write_image(path: Path) -> tuple[NewImage, bytes]:
    image = NewImage(path, HEAD)
    image.bypass_cache()
    data = b"".join(pieces(9 * MiB + 1234))
    for start in range(0, len(data), 700_001):
        image.write([data[start : start + 300_000], data[start + 300_000 : start + 700_001]])
    assert image.size == len(HEAD) + len(data)
    return image, HEAD + data


def test_an_image(tmp_path: Path) -> None:
    image, expected = write_image(tmp_path / "image")
    with image:
        image.flush()
        assert not is_direct(image.fileno())
        image.commit(b"H" * 92, b"P" * 92)
    assert (tmp_path / "image").read_bytes() == b"H" * 92 + expected[92:]
    assert image.notes == []


@pytest.mark.parametrize("size", [MiB + 1, 9 * MiB + 1234], ids=["seen at the end", "seen early"])
@pytest.mark.parametrize(("the_flag", "why"), [(True, "it (not here)"), (False, "such writes (Invalid argument)")])
def test_a_file_system_that_refuses(
    the_flag: bool, why: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = NewImage(tmp_path / "image", HEAD)
    with image:
        if the_flag:
            monkeypatch.setattr(fcntl, "fcntl", raising(OSError(errno.EINVAL, "not here")))
        else:
            refuse(monkeypatch, image.fileno())
        image.bypass_cache()
        data = b"".join(pieces(size))
        for start in range(0, len(data), 700_001):
            image.write([data[start : start + 700_001]])
        image.flush()
        image.commit(b"H" * 92, b"P" * 92)
    assert (tmp_path / "image").read_bytes() == b"H" * 92 + HEAD[92:] + data
    assert image.notes == [f"the page cache was not bypassed: this file system refuses {why}"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = NewImage(tmp_path / "image", HEAD)
    with image:
        image.bypass_cache()
        refuse(monkeypatch, image.fileno(), number=errno.ENOSPC)  # and would take it in the other way
        with pytest.raises(DestinationError, match=r"cannot write at offset [0-9]+: No space left on device; free some"):
            image.write([bytes(2 * BUFFER_SIZE)])
    assert image.notes == []


def test_the_flag_is_off_again_whatever_happens(tmp_path: Path) -> None:
    image, _ = write_image(tmp_path / "image")
    own = os.dup(image.fileno())  # as a caller's descriptor shares it
    try:
        assert is_direct(own)
        image.discard()
        assert not is_direct(own)
    finally:
        os.close(own)


def test_an_aborted_image_writes_no_more(tmp_path: Path) -> None:
    image, _ = write_image(tmp_path / "image")
    with image:
        image.abort()
        with pytest.raises(DestinationError, match="cancel"):
            image.flush()
