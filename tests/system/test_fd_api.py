"""The descriptor-level API keeps its word to callers that drive QMP themselves: nothing exists unless all of it is there."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsave.cancel import Cancellation
from streamsave.errors import Aborted, DestinationError, MigrationError, SourceError, TruncatedImageError
from streamsave.format.metadata import Metadata
from streamsave.format.migration import StreamMap
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream
from streamsave.operations.restore import restore
from streamsave.options import RestoreOptions
from streamsave.types import Progress
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.qemu import demo_guest
from ..kit.waiting import until

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"
STREAM = GOLDEN.read_bytes()[67148:]
METADATA = Metadata("<domain><name>x</name></domain>")
WAYS = ("pipe", "socket")
AT_ONCE_S = 0.5


@contextmanager
def pair(way: str) -> Iterator[tuple[int, int]]:
    """A reading and a writing descriptor, both closed at the end."""
    if way == "socket":
        left, right = socket.socketpair()
        with left, right:
            yield left.fileno(), right.fileno()
        return
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def save_bytes(data: bytes, image: Path, confirm: Callable[[StreamMap], None] | None = None) -> None:
    path = image.parent.parent / "input"
    path.write_bytes(data)
    with path.open("rb") as file:
        save_stream(file.fileno(), image, METADATA, was_running=True, confirm=confirm)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """In a folder of its own, so that one sees what is left there."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images" / "guest.save"


def nothing_there(image: Path) -> bool:
    return list(image.parent.iterdir()) == []


@pytest.mark.parametrize("size", [0, 4, 1000, len(STREAM) // 2, len(STREAM) - 44264, len(STREAM) - 1])
def test_stream_that_breaks_off_is_not_saved(image: Path, size: int) -> None:
    asked: list[StreamMap] = []
    with pytest.raises(MigrationError, match=f"migration stream of {size} bytes.*nothing was saved"):
        save_bytes(STREAM[:size], image, confirm=asked.append)
    assert asked == [], "there is nothing to confirm"
    assert nothing_there(image)


def test_more_than_a_stream_is_not_saved(image: Path) -> None:
    with pytest.raises(MigrationError):
        save_bytes(STREAM + b"\0", image)
    assert nothing_there(image)


def test_what_is_no_stream_is_not_saved(image: Path) -> None:
    with pytest.raises(MigrationError, match="nothing was saved"):
        save_bytes(b"LibvirtQemudSave" * 1000, image)
    assert nothing_there(image)


def test_caller_has_the_last_word(image: Path) -> None:
    class NotCompleted(Exception):
        pass

    def refuse(stream: StreamMap) -> None:
        assert (stream.machine, stream.size) == ("pc-q35-7.2", len(STREAM))
        assert nothing_there(image), "it has no name yet"
        raise NotCompleted

    with pytest.raises(NotCompleted):
        save_bytes(STREAM, image, confirm=refuse)
    assert nothing_there(image)
    save_bytes(STREAM, image, confirm=lambda _stream: None)
    assert [path.name for path in image.parent.iterdir()] == [image.name]
    assert read_info(image).header.complete


def test_cancelled_at_the_last_moment(image: Path) -> None:
    """QEMU says that all of it is there, and somebody changes their mind while it says so."""
    cancel = Cancellation()
    path = image.parent.parent / "input"
    path.write_bytes(STREAM)
    with path.open("rb") as file, pytest.raises(Aborted, match="enough"):
        save_stream(
            file.fileno(), image, METADATA, was_running=True, confirm=lambda _: cancel.cancel("enough"), cancel=cancel
        )
    assert nothing_there(image)


def test_descriptor_stays_the_callers(image: Path) -> None:
    with pair("pipe") as (reading, writing):
        os.set_blocking(reading, True)
        feeder = threading.Thread(target=os.write, args=(writing, STREAM[:1000]))
        feeder.start()
        cancel = Cancellation()
        saving = Saving(reading, image, cancel)
        feeder.join()
        until(lambda: readable_bytes(reading) == 0, what="the reading")
        cancel.cancel()
        saving.join()
        assert os.get_blocking(reading)
        os.write(writing, b"more")
        assert os.read(reading, 10) == b"more"
    with (image.parent.parent / "output").open("w+b") as file:
        restore_stream(GOLDEN, file.fileno())
        file.write(b"more")
        file.seek(0)
        assert file.read() == STREAM + b"more"


def readable_bytes(fd: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


class Saving:
    """A ``save_stream`` in a thread."""

    def __init__(self, fd: int, image: Path, cancel: Cancellation) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(fd, image, cancel))
        self._thread.start()

    def _run(self, fd: int, image: Path, cancel: Cancellation) -> None:
        try:
            save_stream(fd, image, METADATA, was_running=True, cancel=cancel)
        except BaseException as error:
            self.error = error

    def runs(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("way", WAYS)
def test_cancel_wakes_a_blocked_read_at_once(image: Path, way: str) -> None:
    with pair(way) as (reading, writing):
        cancel = Cancellation()
        saving = Saving(reading, image, cancel)
        os.write(writing, STREAM[:4096])
        until(lambda: readable_bytes(reading) == 0, what="the reading")
        time.sleep(0.1)  # now it waits for more
        assert saving.runs()
        began = time.monotonic()
        cancel.cancel("enough")
        saving.join()
        assert time.monotonic() - began < AT_ONCE_S
    assert isinstance(saving.error, Aborted)
    assert str(saving.error) == "enough"
    assert nothing_there(image)


@pytest.mark.parametrize("way", WAYS)
def test_cancel_wakes_a_blocked_write_at_once(way: str) -> None:
    cancel = Cancellation()
    caught: list[BaseException] = []

    def run(fd: int) -> None:
        try:
            restore_stream(GOLDEN, fd, cancel=cancel)
        except BaseException as error:
            caught.append(error)

    with pair(way) as (reading, writing):
        thread = threading.Thread(target=run, args=(writing,))
        thread.start()
        until(lambda: readable_bytes(reading) > 0, what="the first write")
        time.sleep(0.2)  # nobody reads: now it is full
        began = time.monotonic()
        cancel.cancel("enough")
        thread.join(20)
        assert time.monotonic() - began < AT_ONCE_S
    assert [str(error) for error in caught] == ["enough"]


@pytest.mark.timeout(20)
def test_a_callback_that_raises_wakes_a_blocked_write() -> None:
    def progress(_: Progress) -> None:
        raise KeyError("mine")

    with pair("pipe") as (_reading, writing), pytest.raises(KeyError, match="mine"):
        restore_stream(GOLDEN, writing, progress=progress)


@pytest.mark.timeout(20)
def test_cancelled_before_it_began(image: Path) -> None:
    cancel = Cancellation()
    cancel.cancel("never mind")
    with pair("socket") as (reading, _writing), pytest.raises(Aborted, match="never mind"):
        save_stream(reading, image, METADATA, was_running=True, cancel=cancel)
    assert nothing_there(image)


@pytest.mark.parametrize("way", WAYS)
def test_reader_that_goes_away_is_an_error(way: str) -> None:
    with pair(way) as (reading, writing):
        with open(os.devnull, "rb") as other:
            os.dup2(other.fileno(), reading, inheritable=False)  # so that the end of the pair is closed
        with pytest.raises(DestinationError, match="Broken pipe"):
            restore_stream(GOLDEN, writing)


def test_descriptor_that_is_none(image: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(SourceError, match=f"descriptor {reading} cannot be read"):
        save_stream(reading, image, METADATA, was_running=True)
    assert nothing_there(image)
    with pytest.raises(DestinationError, match=f"descriptor {writing} cannot be written"):
        restore_stream(GOLDEN, writing)


def test_image_that_breaks_off_is_an_error_after_what_there_is(tmp_path: Path) -> None:
    cut = tmp_path / "cut.save"
    cut.write_bytes(GOLDEN.read_bytes()[:-1000])
    output = tmp_path / "output"
    with output.open("wb") as file, pytest.raises(TruncatedImageError, match=r"cut\.save"):
        restore_stream(cut, file.fileno())
    assert STREAM.startswith(output.read_bytes())


@pytest.mark.qemu
@pytest.mark.parametrize("way", WAYS)
def test_caller_that_drives_qemu_itself(launch: Launch, image: Path, way: str) -> None:
    guest = launch(demo_guest(16 * MiB)).boot().wait_for_ticks()
    with guest.qmp() as qmp:

        def confirm(_stream: StreamMap) -> None:
            until(lambda: qmp.execute("query-migrate")["status"] == "completed", what="the migration")

        qmp.execute("stop")
        with pair(way) as (reading, writing):
            qmp.give(writing, "stream")
            os.dup2(reading, writing)  # QEMU's is the only one that is left
            qmp.execute("migrate", uri="fd:stream")
            save_stream(reading, image, METADATA, was_running=True, confirm=confirm)
        qmp.execute("quit")
    assert guest.wait() == 0
    waiting = launch(guest.guest, incoming=True, after=guest)
    counter = guest.counter()
    with waiting.qmp() as qmp:
        with pair(way) as (reading, writing):
            qmp.give(reading, "stream")
            qmp.execute("migrate-incoming", uri="fd:stream")
            restore_stream(image, writing)
        until(lambda: qmp.execute("query-migrate").get("status") == "completed", what="the loading")
        qmp.execute("cont")
    waiting.wait_for_counter(counter + 2)
    assert waiting.console.seamless()


@pytest.mark.qemu
def test_a_guest_whose_stream_says_that_it_runs(launch: Launch, image: Path) -> None:
    """It was not stopped before: QEMU would start it by itself as soon as all of it is there."""
    guest = launch(demo_guest(16 * MiB)).boot().wait_for_ticks()
    with guest.qmp() as qmp, pair("pipe") as (reading, writing):
        qmp.execute("migrate-set-parameters", max_bandwidth=0)
        qmp.give(writing, "stream")
        os.dup2(reading, writing)
        qmp.execute("migrate", uri="fd:stream")
        save_stream(reading, image, METADATA, was_running=True)
    guest.kill()
    waiting = launch(guest.guest, incoming=True, after=guest)
    waiting.qmp().close()
    restore(image, monitor=waiting.monitor, options=RestoreOptions(state="paused"))
    assert waiting.status() == "paused"
    assert waiting.is_still(0.5)
    with waiting.qmp() as qmp:
        qmp.execute("cont")
    waiting.wait_for_ticks(1, 10)
