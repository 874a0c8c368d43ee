"""What can fail in mid-restore: the error says what, nothing of ours is left, and the image stays as it is."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import find_codec
from streamsave.endpoints.file import FileSource
from streamsave.endpoints.socket import SocketSink
from streamsave.errors import (
    Aborted,
    CodecError,
    CommandError,
    CorruptImageError,
    ImageError,
    IncomingError,
    MonitorLostError,
    ProcessError,
    SourceError,
    StreamsaveError,
    TruncatedImageError,
)
from streamsave.operations.image import read_info
from streamsave.operations.outflow import restore_stream
from streamsave.operations.reports import RestoreReport
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import GuestState, RestoreOptions, SaveOptions
from streamsave.pipeline.decompress import Decompression
from streamsave.qemu.conversation import Conversation
from streamsave.qemu.migration import MigrationSettings
from streamsave.qemu.process import QemuProcess
from streamsave.types import Buffer, Progress
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.qemu import RunningQemu, demo_guest

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]
GUEST: Final = demo_guest(16 * MiB)
SLOW: Final = RestoreOptions(threads=1)
GLOBALS: Final = restore.__globals__
"""The module's names: as an attribute of the package ``restore`` is the function."""


@pytest.fixture(scope="module")
def booted(qemu: str) -> Iterator[RunningQemu]:
    with RunningQemu(GUEST) as running:
        running.boot().qmp().close()
        yield running


@pytest.fixture(scope="module")
def saved(booted: RunningQemu, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Images of it: one that takes long to restore, and others."""
    path = tmp_path_factory.mktemp("saved") / "image"
    images = {}
    for name in ("bzip2", "gzip", "zstd", "raw"):
        save(booted.monitor, path, SaveOptions(format=name, then="resume"))
        images[name] = path.read_bytes()
    return images


@pytest.fixture
def command(booted: RunningQemu) -> list[str]:
    """Of the same machine, without the sockets and files of the other one."""
    return [*booted.command[: booted.command.index("-chardev")], "-serial", "null"]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[QemuProcess]]:
    """Every QEMU that the test starts; none is left after it."""
    processes: list[QemuProcess] = []

    def start(*arguments: Any, **options: Any) -> QemuProcess:
        processes.append(QemuProcess(*arguments, **options))
        return processes[-1]

    monkeypatch.setitem(GLOBALS, "QemuProcess", start)
    yield processes
    for process in processes:
        assert not Path(f"/proc/{process.pid}").exists()


def fails(kind: type[StreamsaveError], image: Path, **others: Any) -> StreamsaveError:
    """A restore that ends with ``kind``, names the image, and leaves it alone."""
    before = hashlib.sha256(image.read_bytes()).digest()
    with pytest.raises(kind) as caught:
        restore(image, **others)
    assert hashlib.sha256(image.read_bytes()).digest() == before
    return caught.value


def once(act: Callable[[], object]) -> Callable[[Progress], None]:
    """A progress callback that acts the first time that it is called."""
    done: list[object] = []

    def progress(_: Progress) -> None:
        if not done:
            done.append(act())

    return progress


# Cancelled


@pytest.mark.parametrize("with_process", [True, False], ids=["ours", "theirs"])
def test_cancelled_in_mid_restore(
    with_process: bool, saved: dict[str, bytes], command: list[str], launch: Launch, image: Path
) -> None:
    image.write_bytes(saved["bzip2"])
    cancel = Cancellation()
    options = {"options": SLOW, "cancel": cancel, "progress": once(lambda: cancel.cancel("enough"))}
    if with_process:
        error = fails(Aborted, image, command=command, **options)
    else:
        waiting = launch(GUEST, incoming=True)
        waiting.qmp().close()
        error = fails(Aborted, image, monitor=waiting.monitor, **options)
        assert waiting.wait() != 0  # as a QEMU until 9.0 does when its stream ends too early
    assert str(error) == "enough"


def test_cancelled_before_it_began(saved: dict[str, bytes], command: list[str], launch: Launch, image: Path) -> None:
    image.write_bytes(saved["zstd"])
    cancel = Cancellation()
    cancel.cancel("enough")
    fails(Aborted, image, command=command, cancel=cancel)
    waiting = launch(GUEST, incoming=True)
    waiting.qmp().close()
    fails(Aborted, image, monitor=waiting.monitor, cancel=cancel)
    assert waiting.status() == "inmigrate"
    restore(image, monitor=waiting.monitor)
    waiting.wait_for_ticks(1, 20)


def test_cancelled_while_qemu_starts(saved: dict[str, bytes], image: Path) -> None:
    """A program that never greets."""
    image.write_bytes(saved["zstd"])
    cancel = Cancellation()
    timer = threading.Timer(0.3, cancel.cancel, ["enough"])
    timer.start()
    began = time.monotonic()
    try:
        fails(Aborted, image, command=["sh", "-c", "exec sleep 60"], cancel=cancel)
    finally:
        timer.join()
    assert time.monotonic() - began < 5


def test_cancelled_while_qemu_does_not_read(
    saved: dict[str, bytes], command: list[str], image: Path, started: list[QemuProcess]
) -> None:
    """QEMU stands still with a full socket; it is ended all the same."""
    image.write_bytes(saved["raw"])
    cancel = Cancellation()
    write = SocketSink.write
    timer = threading.Timer(0.3, cancel.cancel, ["enough"])

    def stall_and_write(sink: SocketSink, parts: Sequence[Buffer]) -> None:
        if not timer.is_alive():
            started[0].send_signal(19)
            timer.start()
        write(sink, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SocketSink, "write", stall_and_write)
        fails(Aborted, image, command=command, cancel=cancel)
    timer.join()


@pytest.mark.parametrize("with_process", [True, False], ids=["ours", "theirs"])
def test_cancelled_while_the_disk_hangs(
    with_process: bool,
    saved: dict[str, bytes],
    command: list[str],
    launch: Launch,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read from it cannot be woken. QEMU does not wait for that: ours is ended, another one gets its settings back."""
    image.write_bytes(saved["raw"])
    cancel, disk_is_back = Cancellation(), threading.Event()
    answered: list[bool] = []
    readinto_at, terminate, put_back = FileSource.readinto_at, QemuProcess.terminate, GLOBALS["_put_back"]

    def hang(source: FileSource, view: memoryview, offset: int) -> int:
        if offset > 2 * MiB:
            cancel.cancel("enough")
            answered.append(disk_is_back.wait(10))
        return readinto_at(source, view, offset)

    def then(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = act(*arguments)
            disk_is_back.set()
            return result

        return call

    monkeypatch.setattr(FileSource, "readinto_at", hang)
    if with_process:
        monkeypatch.setattr(QemuProcess, "terminate", then(terminate))
        fails(Aborted, image, command=command, cancel=cancel)
    else:
        monkeypatch.setitem(GLOBALS, "_put_back", then(put_back))
        waiting = launch(GUEST, incoming=True)
        waiting.qmp().close()
        fails(Aborted, image, monitor=waiting.monitor, cancel=cancel)
    assert answered
    assert all(answered)


# The guest is loaded: it is not thrown away any more


@pytest.fixture(params=["ours", "theirs"])
def loaded(
    request: pytest.FixtureRequest, saved: dict[str, bytes], command: list[str], launch: Launch, image: Path
) -> Callable[..., RestoreReport]:
    """``loaded()`` restores into a QEMU of either kind; its guest has to run then."""
    image.write_bytes(saved["zstd"])

    def load(**options: Any) -> RestoreReport:
        if request.param == "theirs":
            waiting = launch(GUEST, incoming=True)
            waiting.qmp().close()
            report = restore(image, monitor=waiting.monitor, **options)
            assert waiting.status() == "running"
            waiting.wait_for_ticks(1, 20)
            return report
        report = restore(image, command=command, **options)
        assert report.process is not None
        assert report.process.wait(0.5) is None
        report.process.terminate()
        return report

    return load


@pytest.mark.parametrize("at", ["cont", "migrate-set-parameters"])
def test_cancelled_too_late(at: str, loaded: Callable[..., RestoreReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """While QEMU answers the command; ``migrate-set-parameters`` is sent twice, and puts back the second time."""
    cancel = Cancellation()
    sent: list[str] = []
    execute = Conversation.execute

    async def cancel_and_execute(talk: Conversation, name: str, arguments: dict[str, object] | None) -> object:
        if name == at and (at == "cont" or "cont" in sent):
            cancel.cancel("too late")
        sent.append(name)
        return await execute(talk, name, arguments)

    monkeypatch.setattr(Conversation, "execute", cancel_and_execute)
    assert loaded(cancel=cancel).running
    with pytest.raises(Aborted, match="too late"):
        cancel.check()


def test_settings_that_cannot_be_put_back_are_a_warning(
    loaded: Callable[..., RestoreReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_settings: MigrationSettings) -> None:
        raise CommandError("QEMU refused", command="migrate-set-parameters")

    monkeypatch.setattr(MigrationSettings, "restore", refuse)
    report = loaded()
    assert report.running
    assert [warning.partition(";")[0] for warning in report.warnings] == [
        "QEMU's migration settings could not be put back: QEMU refused"
    ]


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_monitor_that_breaks_when_all_is_done(
    state: GuestState, saved: dict[str, bytes], launch: Launch, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU may be gone with it, or not: that is an error, which says that the guest had come back."""
    image.write_bytes(saved["zstd"])

    def hang_up(settings: MigrationSettings) -> None:
        raise MonitorLostError("QEMU hung up")

    monkeypatch.setattr(MigrationSettings, "restore", hang_up)
    waiting = launch(GUEST, incoming=True)
    waiting.qmp().close()
    error = fails(MonitorLostError, image, monitor=waiting.monitor, options=RestoreOptions(state=state))
    was = {"running": "ran", "paused": "was paused"}[state]
    assert error.__notes__ == [f"the guest is restored, and {was} until then; QEMU's migration settings were not put back"]
    assert waiting.status() == state


def test_a_progress_callback_that_raises(saved: dict[str, bytes], command: list[str], image: Path) -> None:
    image.write_bytes(saved["bzip2"])

    def progress(_: Progress) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        restore(image, command=command, progress=progress, options=SLOW)


# The image changes while it is read


@pytest.mark.parametrize("name", ["bzip2", "gzip", "zstd", "raw"])
def test_the_image_is_truncated_while_it_is_read(
    name: str, saved: dict[str, bytes], command: list[str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.write_bytes(saved[name])
    change_when_half_is_read(image, monkeypatch, lambda: os.truncate(image, int(image.stat().st_size * 0.7) - 12345))
    with pytest.raises(TruncatedImageError) as caught:
        restore(image, command=command)
    assert str(image) in str(caught.value)


@pytest.mark.parametrize("name", ["bzip2", "gzip", "zstd"])
def test_the_image_is_overwritten_while_it_is_read(
    name: str, saved: dict[str, bytes], command: list[str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.write_bytes(saved[name])

    def overwrite() -> None:
        with image.open("r+b") as file:
            file.seek(int(len(saved[name]) * 0.7))
            file.write(bytes(100_000))

    change_when_half_is_read(image, monkeypatch, overwrite)
    with pytest.raises(ImageError) as caught:
        restore(image, command=command)
    assert str(image) in str(caught.value)
    assert isinstance(caught.value, CorruptImageError | TruncatedImageError)


def change_when_half_is_read(image: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """``change`` comes before anything of the second half is read, but for the index: threads overtake each other."""
    size = image.stat().st_size
    readinto_at = FileSource.readinto_at
    lock, changes = threading.Lock(), [change]

    def read_and_change(source: FileSource, view: memoryview, offset: int) -> int:
        with lock:
            if changes and offset < size * 0.9 and offset + len(view) > size * 0.5:
                changes.pop()()
        return readinto_at(source, view, offset)

    monkeypatch.setattr(FileSource, "readinto_at", read_and_change)


def test_an_image_that_cannot_be_read_any_further(
    saved: dict[str, bytes], command: list[str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.write_bytes(saved["zstd"])
    preadv = os.preadv
    payload_at = read_info(image).payload_offset

    def fail(fd: int, views: Sequence[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") == str(image) and offset > payload_at + MiB:
            raise OSError(5, os.strerror(5))
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", fail)
    error = fails(SourceError, image, command=command)
    assert str(error) == f"{image}: cannot be read: Input/output error"


def test_an_image_that_is_removed_while_it_is_read(
    saved: dict[str, bytes], booted: RunningQemu, command: list[str], image: Path
) -> None:
    """It is open: nothing is missing."""
    image.write_bytes(saved["bzip2"])
    report = restore(image, command=command, progress=once(image.unlink))
    assert report.process is not None
    report.process.terminate()


# QEMU


def test_qemu_is_not_there(saved: dict[str, bytes], image: Path) -> None:
    image.write_bytes(saved["zstd"])
    error = fails(ProcessError, image, command=["no-such-qemu", "-m", "16M"])
    assert "there is no program no-such-qemu; install QEMU" in str(error)


@pytest.mark.parametrize("name", ["bzip2", "raw"])
def test_qemu_dies_in_mid_restore(
    name: str, saved: dict[str, bytes], command: list[str], image: Path, started: list[QemuProcess]
) -> None:
    image.write_bytes(saved[name])
    write = SocketSink.write
    count = 0

    def kill_and_write(sink: SocketSink, parts: Sequence[Buffer]) -> None:
        nonlocal count
        count += 1
        if count == 2:
            os.kill(started[0].pid, 9)
        write(sink, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SocketSink, "write", kill_and_write)
        error = fails(IncomingError, image, command=command, options=SLOW)
    assert f"QEMU did not load the stream of a machine pc-i440fx-7.2 from {image}" in str(error)


def test_qemu_dies_after_the_last_byte(
    saved: dict[str, bytes], command: list[str], image: Path, started: list[QemuProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    image.write_bytes(saved["zstd"])
    wait = GLOBALS["wait_incoming"]

    def kill_and_wait(*arguments: Any) -> None:
        os.kill(started[0].pid, 9)
        wait(*arguments)

    monkeypatch.setitem(GLOBALS, "wait_incoming", kill_and_wait)
    error = fails(IncomingError, image, command=command)
    assert "QEMU did not load the stream of a machine pc-i440fx-7.2" in str(error)


def test_a_decoder_that_raises(
    saved: dict[str, bytes], command: list[str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.write_bytes(saved["gzip"])

    def decoder(_: object) -> None:
        raise MemoryError("no memory for a context")

    monkeypatch.setattr(type(find_codec("gzip")), "decoder", decoder)
    with pytest.raises(MemoryError):
        restore(image, command=command)


@pytest.mark.parametrize("name", ["gzip", "raw"])
@pytest.mark.parametrize("by_frames", [True, False])
def test_a_decoder_that_fails_on_good_input(
    by_frames: bool, name: str, saved: dict[str, bytes], command: list[str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage it would call damage; whatever else it raises is its own trouble, and the image is not to blame."""
    image.write_bytes(saved[name])
    codec = type(find_codec(name))

    class Broken:
        def decode(self, frame: object, room: object) -> None:
            raise ValueError("its own trouble")

        def readinto(self, room: object) -> None:
            raise ValueError("its own trouble")

    monkeypatch.setattr(codec, "decoder", lambda _self: Broken())
    if not by_frames:
        monkeypatch.setattr(codec, "stream_reader", lambda _self, _read: Broken())
        monkeypatch.setattr("streamsave.pipeline.decompress.Decompression._read", Decompression._read_sequentially)
    error = fails(CodecError, image, command=command)
    assert f"{image}: {name} failed to decompress the payload at offset " in str(error)
    assert "its own trouble" in str(error)


def test_no_memory_for_the_slots(
    saved: dict[str, bytes], command: list[str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket to QEMU is there already; that it does not stay is seen by ``_nothing_left``."""
    image.write_bytes(saved["zstd"])
    made: list[object] = []

    def no_memory(_source: object, sink: object, *_: object, **__: object) -> None:
        made.append(sink)
        raise MemoryError("no memory for the slots")

    monkeypatch.setattr("streamsave.operations.outflow.Decompression", no_memory)
    with pytest.raises(MemoryError, match="slots"):
        restore(image, command=command)
    (sink,) = made
    assert isinstance(sink, SocketSink)
    assert sink._sock.fileno() == -1


# Into a descriptor


def test_a_reader_that_goes_away(saved: dict[str, bytes], image: Path) -> None:
    image.write_bytes(saved["zstd"])
    reader_fd, writer_fd = os.pipe()

    def read_and_leave() -> None:
        os.read(reader_fd, 65536)
        os.close(reader_fd)

    try:
        reader = threading.Thread(target=read_and_leave)
        reader.start()
        with pytest.raises(StreamsaveError, match=r"writing the given descriptor failed: .*Broken pipe"):
            restore_stream(image, writer_fd)
        reader.join()
    finally:
        os.close(writer_fd)
