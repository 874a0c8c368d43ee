"""Descriptors that are odd: whose other end is gone, that belong to somebody else, or that end while they are woken."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsave.endpoints.descriptor import DescriptorSink, DescriptorSource
from streamsave.errors import DestinationError, MigrationError, SourceError
from streamsave.format.metadata import Metadata
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream

pytestmark = pytest.mark.timeout(20)
GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"
METADATA = Metadata("<domain><name>x</name></domain>")


def fifo_with(data: bytes, folder: Path) -> int:
    """The reading end of a FIFO whose writer wrote ``data`` and went away."""
    os.mkfifo(folder / "fifo")
    reader_fd = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    (folder / "fifo").write_bytes(data)
    os.set_blocking(reader_fd, True)
    return reader_fd


@pytest.mark.parametrize("size", [0, 1000])
def test_a_fifo_whose_writer_has_gone_is_at_its_end(size: int, tmp_path: Path) -> None:
    reader_fd = fifo_with(bytes(size), tmp_path)
    try:
        with pytest.raises(MigrationError, match=f"migration stream of {size} bytes"):
            save_stream(reader_fd, tmp_path / "image", METADATA, was_running=True)
    finally:
        os.close(reader_fd)


@pytest.fixture
def pipe_of_another_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """Pipes that may be used but not opened."""
    open_file = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).startswith("/proc/self/fd/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    return os.pipe


def test_a_pipe_of_another_user_is_read(pipe_of_another_user: Callable[[], tuple[int, int]]) -> None:
    reader_fd, writer_fd = pipe_of_another_user()
    source = DescriptorSource(reader_fd)
    os.write(writer_fd, b"abc")
    os.close(writer_fd)
    data = bytearray(5)
    assert source.readinto(memoryview(data)) == 3
    source.close()
    os.close(reader_fd)
    assert data == b"abc\0\0"


def test_a_pipe_of_another_user_wakes(pipe_of_another_user: Callable[[], tuple[int, int]]) -> None:
    reader_fd, writer_fd = pipe_of_another_user()
    source = DescriptorSource(reader_fd)
    timer = threading.Timer(0.1, source.abort)
    timer.start()
    with pytest.raises(SourceError, match="aborted"):
        source.readinto(memoryview(bytearray(5)))
    timer.join()
    source.close()
    os.close(reader_fd)
    os.close(writer_fd)


def test_a_pipe_of_another_user_is_not_written(pipe_of_another_user: Callable[[], tuple[int, int]]) -> None:
    """A write to it could block where nothing wakes it."""
    reader_fd, writer_fd = pipe_of_another_user()
    with pytest.raises(DestinationError, match=f"descriptor {writer_fd} cannot be written: .*Permission denied"):
        restore_stream(GOLDEN, writer_fd)
    os.close(reader_fd)
    os.close(writer_fd)


def test_two_readers_of_one_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    reader_fd, writer_fd = os.pipe()
    source = DescriptorSource(reader_fd)
    readv = os.readv
    stolen: list[bytes] = []

    def steal_and_read(fd: int, views: list[memoryview]) -> int:
        if not stolen:
            stolen.append(os.read(reader_fd, 100))
            threading.Timer(0.1, os.write, [writer_fd, b"second"]).start()
        return readv(fd, views)

    monkeypatch.setattr(os, "readv", steal_and_read)
    os.write(writer_fd, b"first")
    data = bytearray(6)
    assert source.readinto(memoryview(data)) == 6
    assert (stolen, bytes(data)) == ([b"first"], b"second")
    source.close()
    os.close(reader_fd)
    os.close(writer_fd)


@pytest.mark.parametrize("make", [DescriptorSource, DescriptorSink])
def test_nothing_is_closed_while_it_is_woken(
    make: Callable[[int], DescriptorSource | DescriptorSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = os.pipe()
    end = make(pipe[make is DescriptorSink])
    eventfd_write = os.eventfd_write
    closing = threading.Thread(target=end.close)

    def close_and_write(fd: int, value: int) -> None:
        closing.start()
        closing.join(0.2)
        os.fstat(fd)
        eventfd_write(fd, value)

    monkeypatch.setattr(os, "eventfd_write", close_and_write)
    end.abort()
    closing.join(10)
    end.abort()  # closed: nobody to wake
    end.close()
    for fd in pipe:
        os.close(fd)


def test_a_file_system_that_takes_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert read_info(GOLDEN).format == "raw"


def test_a_block_device_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ``fstat`` does not know."""
    fstat = os.fstat

    def as_a_device(fd: int) -> os.stat_result:
        status = list(fstat(fd))
        status[stat.ST_MODE], status[stat.ST_SIZE] = stat.S_IFBLK | 0o600, 0
        return os.stat_result(status)

    size = GOLDEN.stat().st_size
    monkeypatch.setattr(os, "fstat", as_a_device)
    assert read_info(GOLDEN).file_size == size
