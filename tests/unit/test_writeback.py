"""What is written goes to the disk early, and with ``keep_pace`` the writer waits for it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from streamsave.endpoints import image_sink, writeback
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.image_sink import BACKLOG_SIZE, WRITEBACK_SIZE
from streamsave.endpoints.writeback import begin_writeback, wait_for_writeback
from streamsave.errors import DestinationError
from streamsave.units import KiB, MiB


def test_a_file_with_a_disk_behind_it(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        os.write(file.fileno(), bytes(MiB))
        begin_writeback(file.fileno(), 0, MiB)
        wait_for_writeback(file.fileno(), 0, MiB)


def test_what_has_no_disk_is_not_waited_for() -> None:
    reader, writer = os.pipe()
    memory = os.memfd_create("file")
    try:
        for fd in (writer, memory):
            begin_writeback(fd, 0, MiB)
            wait_for_writeback(fd, 0, MiB)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            wait_for_writeback(-1, 0, MiB)
        assert caught.value.errno == errno.EBADF
    finally:
        for fd in (reader, writer, memory):
            os.close(fd)


def test_a_c_library_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeback, "_sync_file_range", lambda: None)
    wait_for_writeback(-1, 0, MiB)


def write(image: NewImage, size: int) -> None:
    for _ in range(size // MiB):
        image.write([bytes(MiB)])


def test_the_backlog_is_bounded_where_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[int, int]] = []
    monkeypatch.setattr(image_sink, "wait_for_writeback", lambda _fd, offset, size: waits.append((offset, offset + size)))
    with NewImage(tmp_path / "image", bytes(4 * KiB)) as image:
        write(image, 2 * BACKLOG_SIZE)
        assert waits == []
        image.keep_pace()
        write(image, 2 * BACKLOG_SIZE)
        starts, ends = zip(*waits, strict=True)
        assert starts == (0, *ends[:-1]), "all of it, and nothing twice"
        assert image.size - BACKLOG_SIZE - WRITEBACK_SIZE <= ends[-1] <= image.size - BACKLOG_SIZE


def test_a_disk_that_fails_while_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(image_sink, "wait_for_writeback", fail)
    with NewImage(tmp_path / "image", bytes(4 * KiB)) as image:
        image.keep_pace()
        with pytest.raises(DestinationError, match=r"cannot write at offset [0-9]+: Input/output error; the disk may be"):
            write(image, 2 * BACKLOG_SIZE)
