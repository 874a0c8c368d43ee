"""Devices, given files and pipes that fail or are given up last of all: nothing that looks complete is left, durably."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamsave.cancel import Cancellation
from streamsave.endpoints.image_pipe import ImagePipe
from streamsave.endpoints.image_sink import ImageSink
from streamsave.endpoints.in_place import InPlaceImage
from streamsave.errors import DestinationError
from streamsave.format.header import HEADER_SIZE, MAGIC_COMPLETE, MAGIC_PARTIAL
from streamsave.format.metadata import Metadata
from streamsave.operations.inflow import save_stream
from streamsave.options import CompressOptions
from streamsave.units import MiB

from ..kit.device import block_device
from ..kit.images import made_up_stream
from .saving import noting

ZSTD = CompressOptions(format="zstd")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    with block_device(tmp_path / "backing", bytes(8 * MiB)) as path:
        yield path


@pytest.fixture
def stream_fd() -> Iterator[int]:
    fd = os.memfd_create("stream")
    os.write(fd, made_up_stream())
    os.lseek(fd, 0, os.SEEK_SET)
    yield fd
    os.close(fd)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What is written at the start of a file, and what is synced; the fsync behind the complete header fails."""
    calls: list[tuple[str, bytes]] = []
    pwrite, fsync = os.pwrite, os.fsync

    def noted_pwrite(fd: int, data: bytes, offset: int) -> int:
        if offset == 0:
            calls.append(("pwrite", bytes(data[:16])))
        return pwrite(fd, data, offset)

    def noted_fsync(fd: int) -> None:
        calls.append(("fsync", b""))
        if calls[-2:-1] == [("pwrite", MAGIC_COMPLETE)]:
            raise OSError(5, os.strerror(5))
        fsync(fd)

    monkeypatch.setattr(os, "pwrite", noted_pwrite)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    return calls


@pytest.mark.parametrize("kind", ["device", "given file"])
def test_what_may_not_be_durable_is_marked_as_partial_durably(
    kind: str, device: Path, tmp_path: Path, stream_fd: int, calls: list[tuple[str, bytes]]
) -> None:
    with (tmp_path / "given").open("w+b") as file:
        destination = device if kind == "device" else file.fileno()
        with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error"):
            save_stream(stream_fd, destination, Metadata("<domain/>"), ZSTD, was_running=True)
    fsync = ("fsync", b"")
    assert calls[-4:] == [("pwrite", MAGIC_COMPLETE), fsync, ("pwrite", MAGIC_PARTIAL), fsync]


def test_a_new_file_too(tmp_path: Path, stream_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its name goes: the removal may not be durable either."""
    calls: list[str] = []
    fsync = os.fsync

    def failing_once(fd: int) -> None:
        if calls[-1:] == ["rename"]:
            calls.clear()
            raise OSError(5, os.strerror(5))
        fsync(fd)
        calls.append("fsync")

    monkeypatch.setattr(os, "fsync", failing_once)
    for name in ("pwrite", "unlink", "rename"):
        monkeypatch.setattr(os, name, noting(getattr(os, name), calls, name))
    with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error"):
        save_stream(stream_fd, tmp_path / "image", Metadata("<domain/>"), ZSTD, was_running=True)
    assert calls == ["pwrite", "fsync", "unlink"]


def test_a_device_that_takes_half_a_cover(device: Path, stream_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data) - 1)
    with pytest.raises(DestinationError, match="short write behind the payload"):
        save_stream(stream_fd, device, Metadata("<domain/>"), ZSTD, was_running=True)
    assert device.read_bytes()[:16] == MAGIC_PARTIAL


def cover_nothing(_size: int) -> Iterator[tuple[int, bytes]]:
    raise ValueError("2 bytes")


def given_file(folder: Path, cover: Callable[[int], Iterator[tuple[int, bytes]]] = cover_nothing) -> InPlaceImage:
    """A new file that is written in place."""
    fd = os.open(folder / "given", os.O_RDWR | os.O_CREAT)
    return InPlaceImage(folder / "given", fd, bytes(HEADER_SIZE), cover=cover, needs_zeros=False, cancel=Cancellation())


def test_a_device_with_too_little_behind_the_image(tmp_path: Path) -> None:
    """Two bytes, and a head that says that they are to be skipped has eight."""
    image = given_file(tmp_path)
    image._is_device = True  # a file will do, but a device would have to be of just that size
    with (
        image,
        pytest.raises(DestinationError, match=r"too few bytes are left behind the image \(2 bytes\); save to a larger"),
    ):
        image.commit(MAGIC_COMPLETE, MAGIC_PARTIAL)


def test_given_up_while_the_rest_of_a_device_is_covered(tmp_path: Path) -> None:
    def cover(_size: int) -> Iterator[tuple[int, bytes]]:
        yield 0, b"first"
        image.abort()
        yield 9, b"second"

    image = given_file(tmp_path, cover)
    image._is_device = True
    with image, pytest.raises(DestinationError, match="Operation canceled"):
        image.commit(MAGIC_COMPLETE, MAGIC_PARTIAL)
    assert (tmp_path / "given").read_bytes() == bytes(HEADER_SIZE) + b"first"


def test_a_disk_that_fails_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first error is the one that is told."""
    image = given_file(tmp_path)
    count = iter(range(1, 10))

    def fail(fd: int) -> None:
        if (number := next(count)) > 1:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with image, pytest.raises(DestinationError, match=os.strerror(2)):
        image.commit(MAGIC_COMPLETE, MAGIC_PARTIAL)
    assert next(count) == 4, "the second error was of the partial header"


def test_interrupted_in_the_commit_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = given_file(tmp_path)
    pwrite = os.pwrite

    def write_and_interrupt(fd: int, data: bytes, offset: int) -> int:
        size = pwrite(fd, data, offset)
        if data == MAGIC_COMPLETE:
            raise KeyboardInterrupt
        return size

    monkeypatch.setattr(os, "pwrite", write_and_interrupt)
    with image, pytest.raises(KeyboardInterrupt):
        image.commit(MAGIC_COMPLETE, MAGIC_PARTIAL)
    assert (tmp_path / "given").read_bytes()[:16] == MAGIC_PARTIAL


def test_a_device_that_cannot_be_made_zeros(device: Path, stream_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(fcntl, "ioctl", fail)
    with pytest.raises(DestinationError, match="cannot be written in place: Input/output error; the disk may be failing"):
        save_stream(stream_fd, device, Metadata("<domain/>"), CompressOptions(format="gzip"), was_running=True)


# Streams


def test_a_stream_into_a_file_is_durable(tmp_path: Path, stream_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for as a stream, and is a file all the same: the guest may be ended for it."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    with (tmp_path / "image").open("wb") as file:
        options = CompressOptions(format="zstd", stream=True)
        save_stream(stream_fd, file.fileno(), Metadata("<domain/>"), options, was_running=True)
    assert synced == [str(tmp_path / "image")]


def test_a_stream_into_a_file_that_cannot_be_made_durable(
    tmp_path: Path, stream_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "fsync", fail)
    with (tmp_path / "image").open("wb") as file:
        options = CompressOptions(format="zstd", stream=True)
        with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error"):
            save_stream(stream_fd, file.fileno(), Metadata("<domain/>"), options, was_running=True)


def test_a_stream_that_is_given_up_last_of_all() -> None:
    """All of it is written: but it does not count, so the guest is not ended for it."""
    reading, writing = os.pipe()
    try:
        with ImagePipe(writing, b"head") as image:
            image.write([b"payload"])
            image.abort()
            with pytest.raises(DestinationError, match="cannot finish the image: Operation canceled"):
                image.commit(b"HEAD", b"head")
            assert not image.committed
        assert os.read(reading, 100) == b"headpayload"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_sink_of_any_kind_is_closed_twice(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "piped", os.O_RDWR | os.O_CREAT)
    sinks: list[ImageSink] = [given_file(tmp_path), ImagePipe(fd, b"head")]
    for sink in sinks:
        sink.close()
        sink.close()
        sink.discard()
    os.fstat(fd)  # the caller's, still open
    os.close(fd)
