"""What can fail around a save fails at the worst moment, in our own process: the guest runs on, and no image is left."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import find_codec
from streamsave.endpoints import file
from streamsave.endpoints.exchange import exchange
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX
from streamsave.endpoints.socket import SocketSource
from streamsave.errors import (
    Aborted,
    CodecError,
    CommandError,
    DestinationError,
    GuestError,
    MigrationError,
    MonitorBusyError,
    MonitorError,
    MonitorLostError,
    ProcessError,
)
from streamsave.format.header import HEADER_SIZE, MAGIC_COMPLETE
from streamsave.operations.image import read_info
from streamsave.operations.save import _GuestSave, save
from streamsave.options import SaveOptions
from streamsave.qemu.migration import MigrationSettings
from streamsave.qemu.monitor import Monitor
from streamsave.types import Buffer, Progress
from streamsave.units import MiB

from ..kit.disk import mounted_disk
from ..kit.qemu import RunningQemu
from ..kit.unfinished import without_nameless_files
from .saving import (
    COMMIT,
    FOLDER,
    GLOBALS,
    HEADER,
    IO_ERROR,
    OLDER,
    PAYLOAD,
    RAW,
    TAKEN_BACK,
    Fails,
    failing,
    goes_on,
    state_of,
)

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]

# The end of the image


def test_a_folder_that_takes_no_fsync_is_refused_at_once(fails: Fails, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 1))
    monkeypatch.setattr(_GuestSave, "_stop", failing(_GuestSave._stop, 1, error=AssertionError("too late")))
    assert f"{image}: cannot make names durable in {image.parent}: Input" in str(fails(DestinationError))


def test_a_folder_that_does_not_tell_its_space(fails: Fails, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", failing(os.statvfs, 1))
    assert f"{image}: cannot ask for the free space there: Input/output error" in str(fails(DestinationError))


def test_the_disk_begins_while_the_rest_is_written(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, int]] = []
    monkeypatch.setattr("streamsave.endpoints.image_sink.WRITEBACK_SIZE", 1000)
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, *arguments: told.append(arguments))
    with NewImage(image, bytes(300)) as file:
        for size in (600, 400, 999, 2):
            file.write([bytes(size)])
    assert told == [(0, 1300, os.POSIX_FADV_DONTNEED), (1300, 1001, os.POSIX_FADV_DONTNEED)]


@pytest.mark.parametrize("number", [PAYLOAD, COMMIT, HEADER], ids=["payload", "commit", "header"])
def test_fsync_fails(number: int, fails: Fails, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number))
    assert f"{image}: cannot make the image durable: Input/output error" in str(fails(DestinationError))


@pytest.mark.parametrize("number", range(2, 6), ids=["payload", "commit", "header", "folder"])
def test_fsync_fails_under_a_temporary_name(number: int, fails: Fails, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_nameless_files(monkeypatch)
    monkeypatch.setattr(os, "fsync", failing(os.fsync, number))
    assert f"{image}: cannot make the image durable: Input/output error" in str(fails(DestinationError))


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("error", [IO_ERROR, OSError(18, os.strerror(18))])
def test_naming_fails(error: OSError, exchanges: bool, fails: Fails, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if exchanges:
        monkeypatch.setattr(file, "exchange", failing(exchange, 1, error=error))
    else:
        monkeypatch.setattr(NewImage, "_change_places", lambda _: False)
        monkeypatch.setattr(os, "rename", failing(os.rename, 1, error=error))
    assert f"{image}: cannot make the image durable: {error.strerror}" in str(fails(DestinationError))


def test_the_header_cannot_be_rewritten(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 12)
    assert "short write of the header" in str(fails(DestinationError))


@pytest.mark.parametrize("numbers", [(FOLDER,), (FOLDER, TAKEN_BACK)], ids=["once", "for good"])
def test_fsync_of_the_folder_fails(numbers: Sequence[int], fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older image has its name again."""
    monkeypatch.setattr(os, "fsync", failing(os.fsync, *numbers))
    assert "cannot make the image durable: Input/output error" in str(fails(DestinationError))


@pytest.mark.parametrize("numbers", [(FOLDER,), (FOLDER, TAKEN_BACK)], ids=["once", "for good"])
def test_fsync_of_the_folder_fails_where_no_image_was(
    numbers: Sequence[int], guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that looks complete may stay, whatever the disk makes durable."""
    before = state_of(guest)
    seen: list[bytes] = []
    unlink = os.unlink

    def look_and_unlink(path: Any, **options: Any) -> None:
        seen.append(Path(path).read_bytes()[:HEADER_SIZE])
        unlink(path, **options)

    monkeypatch.setattr(os, "fsync", failing(os.fsync, *numbers))
    monkeypatch.setattr(os, "unlink", look_and_unlink)
    with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error"):
        save(guest.monitor, image, RAW)
    monkeypatch.undo()
    assert [head.startswith(MAGIC_COMPLETE) for head in seen] == [False], "it was removed as a partial image"
    assert list(image.parent.iterdir()) == []
    goes_on(guest, before)


def test_an_older_image_that_cannot_be_removed(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no name any more that anybody knows: a warning tells it."""
    image.write_bytes(OLDER)
    unlink = os.unlink

    def refuse(path: Any, **options: Any) -> None:
        if Path(path).name.endswith(TEMPORARY_SUFFIX):
            raise IO_ERROR
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)
    report = save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
    monkeypatch.undo()
    (older,) = (each for each in image.parent.iterdir() if each != image)
    assert f"{older} is the older image, and could not be removed (Input/output error)" in report.warnings
    assert older.read_bytes() == OLDER
    assert read_info(image).header.complete


@pytest.mark.parametrize("nameless", [True, False])
def test_a_disk_that_becomes_read_only(
    nameless: bool, guest: RunningQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stays; what has a name is told, and is no image once the disk works again."""
    if not nameless:
        without_nameless_files(monkeypatch)
    before = state_of(guest)
    failed: list[bool] = []
    with mounted_disk(tmp_path) as disk:
        image = disk.folder / "images" / "guest.save"
        image.parent.mkdir()

        def fail(progress: Progress) -> None:
            if progress.bytes_out and not failed:
                failed.append(True)
                disk.make_read_only()

        with pytest.raises(DestinationError, match="Read-only file system") as caught:
            save(guest.monitor, image, RAW, progress=fail)
        if nameless:
            assert list(image.parent.iterdir()) == []
        else:
            (left,) = image.parent.iterdir()
            assert caught.value.__notes__ == [
                f"{left} could not be removed (Read-only file system): it is of no use, for the guest runs on"
            ]
            assert left.name.endswith(TEMPORARY_SUFFIX)
        goes_on(guest, before)
        disk.mend()
        save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
        assert list(image.parent.iterdir()) == [image]


def test_a_disk_that_takes_no_change_any_more(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last fsync fails, and nothing can be taken back then: both images are there, and the error says which is which."""
    before = state_of(guest)
    image.write_bytes(OLDER)
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(os, "fsync", failing(os.fsync, *range(FOLDER, 20)))
    monkeypatch.setattr(file, "exchange", failing(exchange, *range(2, 20), error=read_only))
    with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error") as caught:
        save(guest.monitor, image, RAW)
    monkeypatch.undo()
    (older,) = (each for each in image.parent.iterdir() if each != image)
    assert caught.value.__notes__ == [f"{image} could not be taken back: it is complete, and {older} is the older image"]
    assert older.read_bytes() == OLDER
    assert read_info(image).header.complete
    goes_on(guest, before)


def test_interrupted_between_rename_and_the_folders_fsync(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(guest)
    monkeypatch.setattr(os, "fsync", failing(os.fsync, FOLDER, error=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(guest.monitor, image, RAW)
    assert list(image.parent.iterdir()) == []
    goes_on(guest, before)


@pytest.mark.parametrize("older", [b"", OLDER], ids=["no image", "an image"])
def test_interrupted_right_after_the_naming(
    older: bytes, guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter delivers a SIGINT when the call has returned: the image has its name then."""
    before = state_of(guest)
    if older:
        image.write_bytes(older)
    owner, name = (file, "exchange") if older else (os, "rename")
    wrapped = getattr(owner, name)

    def name_and_interrupt(*arguments: Any) -> None:
        wrapped(*arguments)
        if image.read_bytes().startswith(MAGIC_COMPLETE):
            raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, name_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(guest.monitor, image, RAW)
    assert [(each, each.read_bytes()) for each in image.parent.iterdir()] == [(image, older)] * bool(older)
    goes_on(guest, before)


def test_the_unfinished_image_is_removed(fails: Fails, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_nameless_files(monkeypatch)
    write = NewImage.write

    def remove_and_write(file: NewImage, parts: Sequence[Buffer]) -> None:
        if file.size > MiB and file.temporary.exists():
            assert file.temporary.name.endswith(TEMPORARY_SUFFIX)
            file.temporary.unlink()
        write(file, parts)

    monkeypatch.setattr(NewImage, "write", remove_and_write)
    assert f"{image}: somebody removed the unfinished image" in str(fails(DestinationError))


def test_cancelled_while_the_disk_takes_its_time(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload's fsync lasts as long as the disk likes; the guest does not wait for it."""
    before = state_of(guest)
    cancel, disk_is_done = Cancellation(), threading.Event()
    fsync, count = os.fsync, iter(range(1, 100))
    freed: list[bool] = []
    went_on: list[bool] = []
    free_guest = GLOBALS["free_guest"]

    def slow(fd: int) -> None:
        if next(count) == PAYLOAD:
            cancel.cancel("enough")
            went_on.append(disk_is_done.wait(10))
        fsync(fd)

    def free(*arguments: Any, **options: Any) -> None:
        free_guest(*arguments, **options)
        freed.append(not disk_is_done.is_set())
        disk_is_done.set()

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setitem(GLOBALS, "free_guest", free)
    with pytest.raises(Aborted, match="enough"):
        save(guest.monitor, image, RAW, cancel=cancel)
    assert (freed, went_on) == ([True], [True]), "the guest was freed while the disk took its time"
    assert list(image.parent.iterdir()) == []
    goes_on(guest, before)


# In mid-stream


def test_a_codec_that_raises(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
            raise RuntimeError("the codec broke")

    monkeypatch.setattr(type(find_codec("gzip")), "encoder", lambda self, level: Broken())
    error = fails(CodecError, SaveOptions(format="gzip", threads=1))
    assert "gzip failed to compress chunk 0 (stream offset 0): the codec broke" in str(error)


def test_a_codec_without_memory(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    def encoder(*_: object) -> None:
        raise MemoryError("no memory for a context")

    monkeypatch.setattr(type(find_codec("gzip")), "encoder", encoder)
    with pytest.raises(MemoryError):
        fails(DestinationError, SaveOptions(format="gzip"))


def test_a_progress_callback_that_raises(guest: RunningQemu, image: Path) -> None:
    before = state_of(guest)

    def progress(_: Progress) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        save(guest.monitor, image, RAW, progress=progress)
    assert list(image.parent.iterdir()) == []
    goes_on(guest, before)


@pytest.mark.parametrize("size", [0, 100, 5 * MiB])
def test_a_stream_that_is_not_all(size: int, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU says completed and the socket ended in order, but the last bytes are not the end of a stream."""

    class Short(SocketSource):
        left = size

        def readinto(self, view: memoryview) -> int:
            got = super().readinto(view[: self.left])
            self.left -= got
            if not self.left:
                while super().readinto(memoryview(bytearray(MiB))):
                    pass
            return got

    monkeypatch.setitem(GLOBALS, "SocketSource", Short)
    assert f"the migration stream of {size} bytes is not all of one: " in str(fails(MigrationError))


def test_a_whole_stream_that_qemu_calls_failed(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the stream is not success: only QEMU's word is."""
    execute = Monitor.execute

    def answer(monitor: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        result = execute(monitor, command, *arguments, **options)
        if command == "query-migrate" and result.get("status") == "completed":
            return {"status": "failed", "error-desc": "the devices refused"}
        return result

    monkeypatch.setattr(Monitor, "execute", answer)
    assert "did not migrate the guest: failed: the devices refused" in str(fails(MigrationError))


def test_qemu_refuses_to_migrate(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Monitor.execute

    def refuse(monitor: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        if command == "migrate":
            raise CommandError("QEMU refused migrate: not today", command=command)
        return execute(monitor, command, *arguments, **options)

    monkeypatch.setattr(Monitor, "execute", refuse)
    assert "not today" in str(fails(CommandError))


def test_a_descriptor_that_cannot_be_passed(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    error = MonitorError("no descriptors here")
    monkeypatch.setattr(Monitor, "send_fd", failing(Monitor.send_fd, 1, error=error))
    assert fails(MonitorError) is error


@pytest.mark.parametrize("after", ["neutralise", "stop", "migrate", "wait"])
def test_cancelled_at_every_step(after: str, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Cancellation()
    target: tuple[Any, str] = {
        "neutralise": (GLOBALS["MigrationSettings"], "neutralise"),
        "stop": (Monitor, "execute"),
        "migrate": (GLOBALS["Inflow"], "run"),
        "wait": (GLOBALS["Inflow"], "check_end"),
    }[after]
    wrapped = getattr(*target)

    def call(*arguments: Any, **options: Any) -> Any:
        if after != "stop":
            cancel.cancel("enough")
        elif arguments[1] == "stop":
            threading.Timer(0.01, cancel.cancel, ["enough"]).start()
        return wrapped(*arguments, **options)

    monkeypatch.setattr(*target, call)
    assert str(fails(Aborted, cancel=cancel)) == "enough"


def test_a_guardian_that_does_not_start(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert "the guardian" in str(fails(ProcessError))


# Somebody else at the same guest


def test_a_migration_of_somebody_else_goes_on(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts between our look and our ``migrate``: it is not ours to cancel, and the guest is ours to start again."""
    start_outgoing, execute = GLOBALS["start_outgoing"], Monitor.execute
    seen: list[str] = []

    def start(qmp: Monitor, transport: str) -> object:
        execute(qmp, "migrate-set-parameters", {"max-bandwidth": 1000})
        execute(qmp, "migrate", {"uri": "exec:cat >/dev/null"})
        monkeypatch.setattr(Monitor, "execute", watched)
        return start_outgoing(qmp, transport)

    def watched(qmp: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        seen.append(command)
        return execute(qmp, command, *arguments, **options)

    monkeypatch.setitem(GLOBALS, "start_outgoing", start)
    with pytest.raises(CommandError, match="migrat"):
        save(guest.monitor, image, RAW)
    assert "migrate" in seen
    assert "cont" in seen
    assert "migrate_cancel" not in seen
    assert list(image.parent.iterdir()) == []
    with guest.qmp() as qmp:
        qmp.execute("migrate_cancel")
        while qmp.execute("query-migrate")["status"] not in ("cancelled", "completed"):
            pass
        qmp.execute("cont")
    guest.wait_for_ticks(1, 10)


def test_a_guest_that_ends_while_it_is_stopped(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Monitor.execute
    stopped: list[bool] = []

    def answer(qmp: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        result = execute(qmp, command, *arguments, **options)
        if command == "stop":
            stopped.append(True)
        if command == "query-status" and stopped:
            stopped.clear()
            return {"status": "guest-panicked", "running": False}
        assert command != "migrate"
        return result

    monkeypatch.setattr(Monitor, "execute", answer)
    assert "is in run state guest-panicked all of a sudden" in str(fails(GuestError))


def test_a_paused_guest_that_somebody_resumes_before(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neutralise = MigrationSettings.neutralise

    def resume(settings: MigrationSettings) -> None:
        neutralise(settings)
        settings._monitor.execute("cont")

    with guest.qmp() as qmp:
        qmp.execute("stop")
    monkeypatch.setattr(MigrationSettings, "neutralise", resume)
    with pytest.raises(GuestError, match="is in run state running all of a sudden"):
        save(guest.monitor, image, RAW)
    guest.wait_for_ticks(1, 10)


def test_a_guest_that_somebody_else_stops_is_left_stopped(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that fails before its own ``stop`` has none to undo."""

    def stop_and_fail(settings: MigrationSettings) -> None:
        settings._monitor.execute("stop")
        raise CommandError("no", command="migrate-set-capabilities")

    monkeypatch.setattr(MigrationSettings, "neutralise", stop_and_fail)
    with pytest.raises(CommandError):
        save(guest.monitor, image, RAW)
    with guest.qmp() as qmp:
        assert qmp.status() == "paused"
        qmp.execute("cont")
    guest.wait_for_ticks(1, 10)


def test_a_guest_that_somebody_resumes_after(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out = GLOBALS["carry_out"]

    def resume_and_carry_out(qmp: Monitor, then: str, **options: Any) -> bool:
        qmp.execute("cont")
        return bool(carry_out(qmp, then, **options))

    monkeypatch.setitem(GLOBALS, "carry_out", resume_and_carry_out)
    with pytest.raises(GuestError, match="it was not ended") as caught:
        save(guest.monitor, image, RAW)
    assert caught.value.__notes__ == [f"the image {image} is complete; only --then quit failed"]
    assert read_info(image).header.complete
    guest.wait_for_ticks(1, 10)


def test_a_qemu_that_takes_its_time_to_quit(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out = GLOBALS["carry_out"]

    def not_yet(qmp: Monitor, then: str, **options: Any) -> bool:
        return bool(carry_out(qmp, "resume", **options)) and then != "quit"

    monkeypatch.setitem(GLOBALS, "carry_out", not_yet)
    assert save(guest.monitor, image, RAW).warnings == (
        "QEMU was told to quit but has not ended yet: it may still hold its disks",
    )


# Where the guardian takes over


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def lost(*_: object, **__: object) -> None:
    raise MonitorLostError("the connection broke")


def closed(qmp: Any, **_: object) -> None:
    """QEMU does not see that: the guardian has the connection too."""
    qmp._qmp.close()
    lost()


@pytest.mark.parametrize(
    ("free_guest", "by_socket"), [(interrupted, False), (lost, True), (closed, False)], ids=["Ctrl-C", "socket", "busy"]
)
def test_the_guardian_frees_the_guest_where_we_cannot(
    free_guest: Callable[..., None], by_socket: bool, guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(guest)
    monkeypatch.setitem(GLOBALS, "free_guest", free_guest)
    monkeypatch.setattr(os, "fsync", failing(os.fsync, HEADER))
    monitor: Path | socket.socket = guest.monitor
    if by_socket:
        monitor = socket.socket(socket.AF_UNIX)
        monitor.connect(str(guest.monitor))
    with pytest.raises(KeyboardInterrupt if free_guest is interrupted else DestinationError):
        save(monitor, image, RAW)
    assert list(image.parent.iterdir()) == []
    goes_on(guest, before)


def test_the_guardian_resumes_the_guest_where_we_are_interrupted(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(guest)
    monkeypatch.setitem(GLOBALS, "carry_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
    assert read_info(image).header.complete
    goes_on(guest, before)


# Two at a time


def test_a_second_save_of_the_same_guest(guest: RunningQemu, image: Path, tmp_path: Path) -> None:
    started = threading.Event()
    reports = []

    def first() -> None:
        options = SaveOptions(format="lzop", level=9, threads=1, then="resume")
        reports.append(save(guest.monitor, image, options, progress=lambda _: started.set()))

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert started.wait(30)
        second = tmp_path / "second.save"
        with pytest.raises(MonitorBusyError, match="another client holds the monitor"):
            save_impatiently(guest.monitor, second)
        assert not second.exists()
    finally:
        thread.join()
    assert read_info(image).header.complete
    assert reports[0].image_size == image.stat().st_size
    guest.wait_for_ticks(1, 10)


def save_impatiently(monitor: Path, image: Path) -> None:
    """The first save may be over before the usual three seconds are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GLOBALS, "Monitor", lambda address, cancel: Monitor(address, greeting_s=0.2, cancel=cancel))
        save(monitor, image, RAW)


def test_two_saves_to_the_same_file_one_after_the_other(guest: RunningQemu, image: Path) -> None:
    for name in ("raw", "gzip"):
        save(guest.monitor, image, SaveOptions(format=name, then="resume"))
        assert read_info(image).format == name
    assert [each.name for each in image.parent.iterdir()] == [image.name]
