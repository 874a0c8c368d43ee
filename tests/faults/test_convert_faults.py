"""Conversions that fail at the worst moment: the source stays, nothing else is left, nobody waits, and the cause is told."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import codecs
from streamsave.endpoints.file import NewImage
from streamsave.errors import (
    Aborted,
    CodecError,
    CorruptImageError,
    DestinationError,
    SourceError,
    StreamsaveError,
    TimeLimitError,
    TruncatedImageError,
)
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.options import CompressOptions
from streamsave.pipeline.decompress import Decompression
from streamsave.types import Progress
from streamsave.units import MiB

from ..kit.cli import Run
from ..kit.images import flip, long_stream, made_up_stream, save_bytes, save_pieces
from ..kit.unfinished import unfinished_size
from ..kit.waiting import until

pytestmark = pytest.mark.timeout(40)
NAMES = tuple(codecs())


@pytest.fixture(scope="module")
def long_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128 MiB of stream, zstd. Only to be read."""
    path = tmp_path_factory.mktemp("images") / "long.save"
    save_pieces(long_stream(128 * MiB), path, format="zstd")
    return path


@pytest.fixture
def copy(long_image: Path, tmp_path: Path) -> Path:
    """The same, to be converted in place."""
    path = tmp_path / "copy.save"
    path.write_bytes(long_image.read_bytes())
    return path


def only(path: Path, before: bytes) -> None:
    """``path`` is as it was, and there is nothing beside it."""
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def fails(kind: type[StreamsaveError], match: str, path: Path, **options: Any) -> StreamsaveError:
    """A conversion in place to raw fails and leaves everything as it was."""
    before = path.read_bytes()
    with pytest.raises(kind, match=match) as caught:
        convert(path, path, CompressOptions(format="raw", threads=2, timeout_s=options.pop("timeout_s", None)), **options)
    only(path, before)
    return caught.value


def after_writes(count: int, act: Callable[[NewImage], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """``act`` before the write number ``count`` to the new image."""
    write, calls = NewImage.write, iter(range(1, 1 << 30))

    def writing(image: NewImage, parts: Any) -> None:
        if next(calls) == count:
            act(image)
        write(image, parts)

    monkeypatch.setattr(NewImage, "write", writing)


def disk_full(_image: NewImage) -> None:
    raise DestinationError("injected: the disk is full")


@pytest.mark.parametrize("count", [2, 3, 20])
def test_a_full_disk_is_the_one_cause(count: int, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_writes(count, disk_full, monkeypatch)
    error = fails(DestinationError, "injected: the disk is full", copy)
    assert not getattr(error, "__notes__", []), "the other side only stopped"


def test_a_limit_of_the_file_size(long_image: Path, tmp_path: Path) -> None:
    run = Run(["convert", long_image, tmp_path / "new", "--format", "raw"], prefix=("prlimit", f"--fsize={20 * MiB}"))
    done = run.finish()
    assert done.status == 42
    assert "raise the limit on the size of files" in done.error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_damage_in_the_middle_of_the_source(part: float, copy: Path) -> None:
    info = read_info(copy)
    for bit in range(8):  # some of a frame's bits may be flipped without harm
        flip(copy, info.payload_offset + int(part * info.payload_size), bit)
    error = fails(CorruptImageError, r"the zstd payload is damaged in frame \d+ at offset \d+", copy)
    assert not getattr(error, "__notes__", [])


@pytest.mark.parametrize("name", NAMES)
def test_a_source_that_was_cut(name: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.save"
    save_bytes(made_up_stream(), path, format=name)
    info = read_info(path)
    path.write_bytes(path.read_bytes()[: info.payload_offset + info.payload_size // 2])
    fails(TruncatedImageError, "the file ends inside frame|are not all|ends too early", path)


def test_bytes_that_change_between_the_two_sides(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came out of the decoders is compared once more, by what goes into the encoders."""
    put = Decompression._put

    def putting(pipeline: Decompression, parts: list[Any]) -> None:
        if pipeline.stats.bytes_out > 50 * MiB:
            part = bytearray(parts[0])
            part[100_000] ^= 1
            parts = [part, *parts[1:]]
        put(pipeline, parts)

    monkeypatch.setattr(Decompression, "_put", putting)
    fails(CorruptImageError, "the stream that was decoded is not the one that was saved", copy)


def test_an_encoder_that_fails(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamsave.codecs.raw import RawEncoder

    monkeypatch.setattr(RawEncoder, "encode", lambda _self, _chunk: 1 / 0)
    fails(CodecError, "raw failed to compress chunk 0", copy)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_cancelled_in_the_middle(count: int, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Cancellation()
    after_writes(count, lambda _image: cancel.cancel("enough"), monkeypatch)
    fails(Aborted, "enough", copy, cancel=cancel)


def test_a_time_limit(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_writes(2, lambda _image: time.sleep(0.4), monkeypatch)
    fails(TimeLimitError, "not converted within 0.2 s", copy, timeout_s=0.2)


def test_progress_that_raises(copy: Path) -> None:
    class Enough(Exception):
        pass

    def stop(_progress: Progress) -> None:
        raise Enough

    before = copy.read_bytes()
    with pytest.raises(Enough):
        convert(copy, copy, CompressOptions(format="raw"), progress=stop)
    only(copy, before)


def stalled(data: bytes) -> tuple[int, int]:
    """A pipe with ``data`` in it, and a writer that neither writes nor closes."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, MiB)
    os.write(writer, data)
    return reader, writer


@pytest.mark.parametrize("size", [10, 92, 1000, 100_000])
def test_a_source_that_stalls_can_be_cancelled(size: int, long_image: Path, tmp_path: Path) -> None:
    reader, writer = stalled(long_image.read_bytes()[:size])
    cancel = Cancellation()
    timer = threading.Timer(0.3, cancel.cancel, ["enough"])
    timer.start()
    try:
        with pytest.raises(Aborted, match="enough"):
            convert(reader, tmp_path / "new", CompressOptions(format="raw"), cancel=cancel)
    finally:
        timer.join()
        os.close(reader)
        os.close(writer)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_ends_a_source_that_stalls(long_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader waits in the pipe, and nothing that it waits for will ever come."""
    reader, writer = stalled(long_image.read_bytes()[: MiB - 10_000])
    after_writes(3, disk_full, monkeypatch)
    try:
        with pytest.raises(DestinationError, match="injected"):
            convert(reader, tmp_path / "new", CompressOptions(format="raw"))
    finally:
        os.close(reader)
        os.close(writer)
    assert os.listdir(tmp_path) == []


def test_a_destination_that_stalls_can_be_cancelled(long_image: Path) -> None:
    reader, writer = os.pipe()
    cancel = Cancellation()
    timer = threading.Timer(0.3, cancel.cancel, ["enough"])
    timer.start()
    try:
        with pytest.raises(Aborted, match="enough"):
            convert(long_image, writer, CompressOptions(format="raw"), cancel=cancel)
    finally:
        timer.join()
        os.close(reader)
        os.close(writer)


def test_a_reader_that_goes_away(long_image: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(DestinationError, match="Broken pipe"):
            convert(long_image, writer, CompressOptions(format="raw"))
    finally:
        os.close(writer)


def test_descriptors_that_are_none(long_image: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="descriptor 999 cannot be read"):
        convert(999, tmp_path / "new")
    with pytest.raises(DestinationError, match="descriptor 999 cannot be written"):
        convert(long_image, 999)
    assert os.listdir(tmp_path) == []


def in_the_middle(copy: Path) -> Run:
    """A conversion in place that has written something and will not end soon."""
    run = Run(["convert", copy, "--in-place", "--format", "lzop", "--level", "9", "--threads", "1"])

    until(lambda: unfinished_size(run.process.pid, copy.parent) > MiB // 4)
    return run


def test_interrupted(copy: Path) -> None:
    before = copy.read_bytes()
    run = in_the_middle(copy)
    run.process.send_signal(signal.SIGINT)
    done = run.finish()
    assert (done.status, done.error) == (130, "interrupted by SIGINT")
    only(copy, before)


def test_killed(copy: Path) -> None:
    before = copy.read_bytes()
    run = in_the_middle(copy)
    run.kill()
    assert copy.read_bytes() == before
    assert os.listdir(copy.parent) == [copy.name], "it had no name yet"
