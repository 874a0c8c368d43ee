"""A domain's save and restore at their worst moments, against a libvirt that is played in this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import streamsave
from streamsave.endpoints import file
from streamsave.endpoints.file import NewImage
from streamsave.errors import (
    DestinationError,
    GuestError,
    LibvirtError,
    MigrationError,
    ResourceError,
    StreamsaveError,
    TimeLimitError,
    TruncatedImageError,
    UsageError,
)
from streamsave.format.metadata import Metadata
from streamsave.format.save_format import SaveFormat
from streamsave.libvirt import passage, probe
from streamsave.libvirt.passage import DescriptorPassage, FifoPassage
from streamsave.operations import inflow
from streamsave.operations.commit import Commit
from streamsave.units import MiB

from ..fakes.libvirt import COOKIE, PAUSED, RUNNING, SHUT_OFF, XML, FakeDaemon, FakeError
from ..kit.images import flip, made_up_stream
from ..kit.waiting import until
from .saving import COMMIT, FOLDER, HEADER, IO_ERROR, OLDER, PAYLOAD, failing

pytestmark = pytest.mark.timeout(60)
GZIP = streamsave.SaveOptions(format="gzip")
MORE_FSYNCS = 2
"""Than a save of a guest has: of the folder in the trial before the domain is touched, of the image before the end."""
BEFORE_END = PAYLOAD - 1


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    daemon = FakeDaemon(made_up_stream())
    daemon.install(monkeypatch)
    return daemon


@pytest.fixture(params=[DescriptorPassage, FifoPassage])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each kind of passage; nothing of it is left."""
    base = tmp_path / "run"
    monkeypatch.setattr(passage, "runtime_folder", lambda: base)
    monkeypatch.setattr(probe, "KINDS", (request.param,))
    yield
    assert not base.exists() or list(base.iterdir()) == []


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """An older image that a failed save must leave alone."""
    folder = tmp_path / "images"
    folder.mkdir()
    path = folder / "fake.save"
    path.write_bytes(OLDER)
    return path


def save(destination: Path, options: streamsave.SaveOptions = GZIP, **others: Any) -> streamsave.SaveReport:
    return streamsave.save_domain("fake", destination, options, **others)


def assert_nothing_happened(daemon: FakeDaemon, destination: Path) -> None:
    assert daemon.state == RUNNING
    assert destination.read_bytes() == OLDER
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("looks", [0, 1, 3])
@pytest.mark.parametrize("page_count", [5, 900])
def test_there_and_back(daemon: FakeDaemon, destination: Path, looks: int, page_count: int) -> None:
    daemon.stream, daemon.looks = made_up_stream(page_count), looks
    report = save(destination)
    assert (report.was_running, report.stream_size, report.warnings) == (True, len(daemon.stream), ())
    assert daemon.state == SHUT_OFF
    assert streamsave.read_info(destination).metadata == Metadata(XML, COOKIE)
    restored = streamsave.restore_domain(destination)
    assert (restored.running, daemon.state) == (True, RUNNING)
    ((header, metadata, stream),) = daemon.restored
    assert (header.complete, header.was_running, header.format) == (True, True, SaveFormat.RAW)
    assert metadata == Metadata(XML, COOKIE)
    assert stream == daemon.stream


@pytest.mark.usefixtures("way")
def test_the_image_exists_before_libvirt_ends_the_domain(
    daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt stands before the gate for as long as the disk takes, and finds the image when it has passed."""
    seen: list[bytes] = []
    slow, written = threading.Event(), threading.Event()
    commit = NewImage.commit

    def slow_commit(file: NewImage, *arguments: bytes) -> None:
        assert slow.wait(20)
        seen.append(destination.read_bytes()[:16])
        assert not written.wait(0.2), "the header is held up"
        commit(file, *arguments)

    whole_write = FakeDaemon._write

    def write(self: FakeDaemon, path: str, number: SaveFormat) -> None:
        whole_write(self, path, number)
        written.set()
        seen.append(destination.read_bytes()[:16])

    monkeypatch.setattr(NewImage, "commit", slow_commit)
    monkeypatch.setattr(FakeDaemon, "_write", write)
    daemon.before_header = slow.set
    save(destination)
    assert seen == [OLDER, b"LibvirtQemudSave"]
    assert daemon.state == SHUT_OFF


def test_what_comes_before_the_end_is_on_disk_before_libvirt_is_held_up(
    daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, while the reader keeps libvirt from the end of the stream: at the gate only the rest is waited for."""
    daemon.stream = made_up_stream(2000)
    syncs: list[tuple[str, bool]] = []
    ended = threading.Event()
    sync = NewImage.sync

    def look(file: NewImage) -> None:
        syncs.append((threading.current_thread().name, ended.wait(0.3)))
        sync(file)

    daemon.before_header = ended.set
    monkeypatch.setattr(NewImage, "sync", look)
    monkeypatch.setattr(inflow, "NEAR_END", 8 * MiB)
    save(destination)
    assert syncs == [("streamsave-reader", False), ("streamsave-writer", True)]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("call", [BEFORE_END, PAYLOAD, COMMIT, HEADER, FOLDER])
def test_a_disk_that_fails_at_an_fsync(
    daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, call + MORE_FSYNCS))
    with pytest.raises(DestinationError, match="cannot make the image durable: Input/output error") as caught:
        save(destination)
    assert_nothing_happened(daemon, destination)
    assert not hasattr(caught.value, "__notes__"), "the domain was back at once"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("owner", "name", "call"), [(file, "exchange", 1), (os, "writev", 4), (os, "pwrite", 1)])
def test_a_disk_that_is_full(
    daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int
) -> None:
    monkeypatch.setattr(owner, name, failing(getattr(owner, name), call, error=OSError(28, os.strerror(28))))
    with pytest.raises(DestinationError, match="No space left on device") as caught:
        save(destination)
    assert_nothing_happened(daemon, destination)
    assert not hasattr(caught.value, "__notes__"), "the domain was back at once"


def test_a_disk_that_hangs_in_the_commit_does_not_keep_the_domain(
    daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    commit = NewImage.commit

    def hanging(file: NewImage, *arguments: bytes) -> None:
        hangs.set()
        assert goes_on.wait(20)
        commit(file, *arguments)

    monkeypatch.setattr(NewImage, "commit", hanging)
    cancel = streamsave.Cancellation()

    def watch() -> None:
        assert hangs.wait(20)
        cancel.cancel()
        for _ in range(2000):
            if daemon.state == RUNNING:
                break
            threading.Event().wait(0.01)
        states.append(daemon.state)
        goes_on.set()

    states: list[int] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(streamsave.Aborted):
        save(destination, cancel=cancel)
    watcher.join()
    assert states == [RUNNING], "it ran before the disk went on"
    assert_nothing_happened(daemon, destination)


@pytest.mark.parametrize("limits", [{"timeout_s": 0.5}, {"max_stopped_s": 0.5}])
def test_a_time_limit(daemon: FakeDaemon, destination: Path, limits: dict[str, float]) -> None:
    over = threading.Event()
    daemon.before_header = lambda: None
    stream, daemon.stream = daemon.stream, daemon.stream[:-1]
    original = daemon._write

    def write(path: str, number: SaveFormat) -> None:
        with open(path, "wb", buffering=0):
            assert over.wait(20)
        original(path, number)

    daemon._write = write  # type: ignore[method-assign]
    threading.Timer(1, over.set).start()
    with pytest.raises(TimeLimitError):
        save(destination, streamsave.SaveOptions(format="gzip", **limits))  # type: ignore[arg-type]
    assert_nothing_happened(daemon, destination)
    assert stream


@pytest.mark.usefixtures("way")
def test_libvirt_gives_up_at_the_last_moment(daemon: FakeDaemon, destination: Path) -> None:
    """The stream was whole, so the image is; the domain runs on all the same, and we say so."""

    def give_up() -> None:
        raise OSError(5, "I/O error")

    daemon.before_header = give_up
    with pytest.raises(LibvirtError) as caught:
        save(destination)
    assert daemon.state == RUNNING
    notes = getattr(caught.value, "__notes__", [])
    if notes:
        assert notes == [f"the image {destination} is complete; libvirt only did not end the domain for it"]
        assert streamsave.read_info(destination).header.complete
    else:
        assert_nothing_happened(daemon, destination)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "cut",
    [
        lambda stream: stream[:-1],
        lambda stream: stream[: len(stream) // 2],
        lambda stream: b"",
        lambda stream: stream + b"x",
    ],
)
def test_a_stream_that_is_not_whole(daemon: FakeDaemon, destination: Path, cut: Callable[[bytes], bytes]) -> None:
    daemon.stream = cut(daemon.stream)
    with pytest.raises((MigrationError, LibvirtError)):
        save(destination)
    assert_nothing_happened(daemon, destination)


def test_a_daemon_that_would_compress(daemon: FakeDaemon, destination: Path) -> None:
    daemon.takes_format, daemon.format = False, SaveFormat.XZ
    with pytest.raises(LibvirtError, match=r'compresses with xz itself.*save_image_format = "raw"'):
        save(destination)
    assert_nothing_happened(daemon, destination)
    daemon.format = SaveFormat.RAW
    save(destination)
    assert daemon.state == SHUT_OFF


def test_a_daemon_that_is_asked_for_raw(daemon: FakeDaemon, destination: Path) -> None:
    daemon.format = SaveFormat.ZSTD
    assert save(destination).stream_size == len(daemon.stream)


def test_a_libvirt_that_does_not_restore_the_format(daemon: FakeDaemon, destination: Path) -> None:
    daemon.version = 9000000
    (warning,) = save(destination, streamsave.SaveOptions(format="zstd")).warnings
    assert warning.startswith("this libvirt (9.0) does not restore zstd images, 10.4 and later do; here streamsave restore")
    for format_name in ("gzip", "snappy"):  # of those that no libvirt restores the report tells anyway
        daemon.state = RUNNING
        assert save(destination, streamsave.SaveOptions(format=format_name)).warnings == ()


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_callback_that_raises(daemon: FakeDaemon, destination: Path, kind: type[BaseException]) -> None:
    def callback(progress: streamsave.Progress) -> None:
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        save(destination, progress=callback)
    assert_nothing_happened(daemon, destination)


def test_cancelled_at_the_last_moment(daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the stream is in the image, which does not exist yet."""
    cancel = streamsave.Cancellation()
    check_end = inflow.Inflow.check_end

    def cancel_and_check(self: inflow.Inflow) -> None:
        check_end(self)
        cancel.cancel("enough")

    monkeypatch.setattr(inflow.Inflow, "check_end", cancel_and_check)
    monkeypatch.setattr(NewImage, "commit", None)
    with pytest.raises(streamsave.Aborted, match="enough"):
        save(destination, cancel=cancel)
    assert_nothing_happened(daemon, destination)


def test_interrupted_right_after_the_commit(daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image exists, so the domain has to end."""
    run = Commit.run

    def run_and_interrupt(self: Commit, cancel: streamsave.Cancellation) -> None:
        run(self, cancel)
        raise KeyboardInterrupt

    monkeypatch.setattr(Commit, "run", run_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(destination)
    assert daemon.state == SHUT_OFF
    assert streamsave.read_info(destination).header.complete


@pytest.mark.parametrize("what", ["save", "restore"])
def test_a_libvirt_that_does_not_answer(daemon: FakeDaemon, destination: Path, what: str) -> None:
    """The call is left behind; should it ever succeed, its connection is closed."""
    if what == "restore":
        save(destination)
    closed, answers = daemon.closed, threading.Event()
    daemon.before_connect = lambda: (answers.wait(20), None)[1]
    cancel = streamsave.Cancellation()
    timer = threading.Timer(0.3, cancel.cancel)
    timer.start()
    operation = save if what == "save" else streamsave.restore_domain
    with pytest.raises(streamsave.Aborted):
        operation(destination, cancel=cancel)
    timer.join()
    assert daemon.closed == closed
    answers.set()
    until(lambda: daemon.closed == closed + 1, what="the late connection's end")


def test_refused_before_the_domain_is_touched(
    daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(path: str, number: SaveFormat) -> None:
        raise AssertionError("touched")

    monkeypatch.setattr(daemon, "save", touched)
    with pytest.raises(LibvirtError, match="does not know the domain 'other'"):
        streamsave.save_domain("other", destination)
    with pytest.raises(UsageError, match="another host"):
        save(destination, connect="qemu+tls://host/system")
    with pytest.raises(UsageError, match="then"):
        save(destination, streamsave.SaveOptions(then="resume"))
    with pytest.raises(DestinationError, match="does not exist"):
        save(Path("/nowhere/image"))
    daemon.state = SHUT_OFF
    with pytest.raises(GuestError, match="is shut off"):
        save(destination)
    daemon.state = PAUSED
    monkeypatch.setattr(FakeDaemon, "look", _blind)
    with pytest.raises(LibvirtError, match=r"cannot open a pipe of ours \(/proc/.*no such file.*Run streamsave where"):
        save(destination)
    daemon.state = RUNNING
    assert_nothing_happened(daemon, destination)


def _blind(self: FakeDaemon, path: str) -> None:
    raise FakeError(f"Failed to open file '{path}': no such file")


def test_no_binding(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(UsageError, match=r"install streamsave\[libvirt\], which needs libvirt-dev"):
        save(destination)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("looks", [0, 1])
def test_libvirt_refuses_a_restore(daemon: FakeDaemon, destination: Path, looks: int) -> None:
    save(destination)
    image = destination.read_bytes()
    daemon.looks, daemon.refusal = looks, "domain 'fake' is already active"
    with pytest.raises(LibvirtError, match="libvirt did not restore the domain: domain 'fake' is already active"):
        streamsave.restore_domain(destination)
    assert daemon.state == SHUT_OFF
    assert destination.read_bytes() == image


@pytest.mark.usefixtures("way")
def test_a_damaged_image_is_the_reason_that_is_told(daemon: FakeDaemon, destination: Path) -> None:
    save(destination)
    flip(destination, destination.stat().st_size // 2)
    with pytest.raises(streamsave.StreamsaveError, match="frame") as caught:
        streamsave.restore_domain(destination)
    assert not isinstance(caught.value, LibvirtError)
    assert daemon.state == SHUT_OFF


def test_a_payload_without_its_end(daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole frames, an index that fits them, but not the end of a stream: QEMU's failure is ours to explain."""
    from streamsave.operations.inflow import Inflow

    monkeypatch.setattr(Inflow, "check_end", lambda self: None)
    whole, daemon.stream = daemon.stream, daemon.stream[: len(daemon.stream) // 2]
    save(destination)
    daemon.stream = whole
    with pytest.raises(TruncatedImageError, match="migration stream are not all"):
        streamsave.restore_domain(destination)
    assert daemon.state == SHUT_OFF


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_restore_that_is_cancelled(daemon: FakeDaemon, destination: Path, moment: str) -> None:
    save(destination)
    cancel = streamsave.Cancellation()
    if moment == "before":
        cancel.cancel()
    else:
        daemon.before_stream = cancel.cancel
    with pytest.raises(streamsave.Aborted):
        streamsave.restore_domain(destination, cancel=cancel)
    assert daemon.state == SHUT_OFF
    daemon.before_stream = lambda: None
    streamsave.restore_domain(destination)
    assert daemon.state == RUNNING


def test_a_cancel_that_comes_too_late_is_none(daemon: FakeDaemon, destination: Path) -> None:
    """libvirt has all of the stream: what it makes of it cannot be stopped, only told."""
    save(destination)
    cancel = streamsave.Cancellation()

    def at_the_end(look: streamsave.Progress) -> None:
        if look.fraction == 1.0:
            cancel.cancel()

    assert streamsave.restore_domain(destination, cancel=cancel, progress=at_the_end).running
    assert daemon.state == RUNNING


def test_a_callback_that_raises_too_late(daemon: FakeDaemon, destination: Path) -> None:
    save(destination)

    def at_the_end(look: streamsave.Progress) -> None:
        if look.fraction == 1.0 and not look.outcome:
            raise RuntimeError("late")

    with pytest.raises(RuntimeError, match="late") as caught:
        streamsave.restore_domain(destination, progress=at_the_end)
    assert daemon.state == RUNNING
    assert caught.value.__notes__ == ["the domain is restored all the same: libvirt had the whole stream already"]


def test_what_libvirt_is_told_for_a_restore(daemon: FakeDaemon, destination: Path) -> None:
    save(destination)
    options = streamsave.RestoreOptions(state="paused")
    assert not streamsave.restore_domain(destination, options, xml="<other/>", reset_nvram=True).running
    assert (daemon.flags, daemon.xml) == (4 | 8, "<other/>")
    daemon.state = SHUT_OFF
    streamsave.restore_domain(destination, streamsave.RestoreOptions(state="running"))
    assert (daemon.flags, daemon.xml) == (2, None)


def test_a_guest_that_libvirt_did_not_know_needs_an_xml(daemon: FakeDaemon, tmp_path: Path) -> None:
    from streamsave.format.description import GuestDescription, encode_description
    from streamsave.operations.inflow import save_stream

    image = tmp_path / "guest.save"
    description = GuestDescription("guest", "", 1 << 20, 1, "pc", "x86_64", "qemu")
    fd = os.memfd_create("stream")
    os.write(fd, daemon.stream)
    os.lseek(fd, 0, os.SEEK_SET)
    save_stream(fd, image, Metadata(encode_description(description)), was_running=True)
    os.close(fd)
    with pytest.raises(UsageError, match="--xml"):
        streamsave.restore_domain(image)
    streamsave.restore_domain(image, xml=XML)
    ((_, metadata, _),) = daemon.restored
    assert (daemon.xml, metadata) == (None, Metadata(XML)), "libvirt has nothing to compare it with"


def test_no_thread_for_the_call(daemon: FakeDaemon, destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "streamsave-libvirt":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ResourceError, match="raise the limit on processes"):
        save(destination)
    assert_nothing_happened(daemon, destination)


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(LibvirtError, StreamsaveError)
    assert IO_ERROR.errno == 5
