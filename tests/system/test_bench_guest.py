"""A sample of a real guest's memory: the guest goes on as it was, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streamsave._native.scan import StreamScanner
from streamsave.bench import guest as bench_guest
from streamsave.bench.guest import sample_guest
from streamsave.bench.sample import Sample
from streamsave.cancel import Cancellation
from streamsave.errors import Aborted, GuestError, MonitorError
from streamsave.operations.save import save
from streamsave.options import SaveOptions
from streamsave.qemu.monitor import Monitor
from streamsave.units import KiB, MiB

from ..conftest import Launch
from ..kit.qemu import RunningQemu, demo_guest
from ..kit.waiting import until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(90)]


def settings_of(guest: RunningQemu) -> tuple[Any, Any]:
    with guest.qmp() as qmp:
        return qmp.execute("query-migrate-parameters"), qmp.execute("query-migrate-capabilities")


def test_a_running_guest_runs_on(demo: RunningQemu, image: Path) -> None:
    before = settings_of(demo)
    sample = sample_guest(demo.monitor, 8 * MiB, Cancellation())
    assert demo.status() == "running"
    assert settings_of(demo) == before
    assert len(sample.data) >= 4 * MiB
    assert sample.source_rate > 0
    demo.wait_for_ticks()
    sample_guest(demo.monitor, 8 * MiB, Cancellation())  # and once more
    report = save(demo.monitor, image, SaveOptions(then="resume"))
    assert 0.7 * report.stream_size < sample.stream_size < 1.4 * report.stream_size
    demo.wait_for_ticks(1)


@pytest.mark.parametrize("state", ["paused", "prelaunch"])
def test_one_that_does_not_run_is_left_alone(state: str, launch: Launch, image: Path) -> None:
    guest = launch(demo_guest(), paused=state == "prelaunch")
    if state == "paused":
        guest.boot()
        with guest.qmp() as qmp:
            qmp.execute("stop")
    else:
        guest.qmp().close()
    with pytest.raises(GuestError, match=f"is {state}: only of one that runs a sample can be taken"):
        sample_guest(guest.monitor, 8 * MiB, Cancellation())
    assert guest.status() == state
    save(guest.monitor, image, SaveOptions(then="resume"))


def test_a_guest_that_gets_to_its_end_runs_on(demo: RunningQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one with nothing but zeros in its memory does, which does nothing: here by a limit that lets QEMU stop it."""
    before = settings_of(demo)
    monkeypatch.setattr(bench_guest, "PARAMETERS", {"downtime-limit": 2_000_000})
    monkeypatch.setattr(bench_guest, "UNREAD", -1.0)
    assert sample_guest(demo.monitor, 64 * MiB, Cancellation()).data
    assert demo.status() == "running"
    assert settings_of(demo) == before
    demo.wait_for_ticks()


def test_a_qemu_that_waits_for_its_reader(demo: RunningQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its stream's end, with the guest stopped, it answers nobody until what it writes is read, or cannot be."""
    before, read = settings_of(demo), bench_guest._read
    monitors: list[Monitor] = []

    def connect(*arguments: Any, **options: Any) -> Monitor:
        monitors.append(Monitor(*arguments, **options))
        return monitors[0]

    def read_until_it_stops(sock: Any, size: int, cancel: Cancellation) -> Sample:
        sample = read(sock, size, cancel)
        while not monitors[0].wait_event(lambda event: event["event"] == "STOP", timeout_s=0.02):
            sock.recv(256 * KiB)
        time.sleep(0.2)
        return sample

    monkeypatch.setattr(bench_guest, "PARAMETERS", {"downtime-limit": 2_000_000})
    monkeypatch.setattr(bench_guest, "UNREAD", 0.9)
    monkeypatch.setattr(bench_guest, "_read", read_until_it_stops)
    monkeypatch.setattr(bench_guest, "Monitor", connect)
    assert sample_guest(demo.monitor, 64 * MiB, Cancellation()).data
    assert demo.status() == "running"
    assert settings_of(demo) == before
    demo.wait_for_ticks()


def test_a_guest_that_is_too_small(launch: Launch) -> None:
    guest = launch(demo_guest(16 * MiB)).boot()
    guest.qmp().close()
    with pytest.raises(GuestError, match="of memory is too small: save it, and name the image"):
        sample_guest(guest.monitor, 8 * MiB, Cancellation())
    assert guest.status() == "running"


def test_cancelled(demo: RunningQemu) -> None:
    before, cancel = settings_of(demo), Cancellation()

    class Scanner(StreamScanner):
        def feed(self, data: Any) -> None:
            super().feed(data)
            cancel.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_guest, "StreamScanner", Scanner)
        with pytest.raises(Aborted):
            sample_guest(demo.monitor, 8 * MiB, cancel)
    assert demo.status() == "running"
    assert settings_of(demo) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MonitorError("no answer")], ids=["Ctrl-C", "no answer"])
def test_the_guardian_frees_the_guest_where_we_cannot(
    error: BaseException, demo: RunningQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings_of(demo)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(bench_guest, "free_guest", fail)
    with pytest.raises(type(error)):
        sample_guest(demo.monitor, 8 * MiB, Cancellation())
    assert demo.status() == "running"
    assert settings_of(demo) == before
    demo.wait_for_ticks(1)


def test_kill_9(demo: RunningQemu) -> None:
    """The guardian ends the migration and puts the settings back."""
    before = settings_of(demo)
    program = (
        "import sys, time\n"
        "from streamsave.bench import guest\n"
        "from streamsave.cancel import Cancellation\n"
        "guest._read = lambda *_: (print('reading', flush=True), time.sleep(60))\n"
        "guest.sample_guest(sys.argv[1], 1 << 23, Cancellation())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, demo.monitor], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: settings_of(demo) == before, timeout_s=10, what="the settings' return")
    assert demo.status() == "running"
    demo.wait_for_ticks(1)
