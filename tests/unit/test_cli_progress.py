import fcntl
import io
import json
import os
import pty
import sys
import threading
import time
from dataclasses import replace

import pytest

from streamsave.cli.output import Output
from streamsave.cli.progress import JsonProgress, describe, showing_progress
from streamsave.types import Progress
from streamsave.units import MiB

F_GETPIPE_SZ = 1032


def progress(stage: str = "stream", fraction: float = 0.25, **changes: float) -> Progress:
    values = {"bytes_in": 128 * MiB, "bytes_out": 32 * MiB, "total_estimate": 512 * MiB, "elapsed_s": 1.0} | changes
    return Progress(stage=stage, fraction=fraction, rate_in=128.0, rate_out=32.0, **values)  # type: ignore[arg-type]


def test_nobody_looking_means_no_callback() -> None:
    with showing_progress(Output()) as callback:
        assert callback is None
    with showing_progress(Output(quiet=True)) as callback:
        assert callback is None


def test_json_progress_is_limited_but_tells_every_stage(capfd: pytest.CaptureFixture[str]) -> None:
    now_s = 100.0
    callback = JsonProgress(clock=lambda: now_s)
    for step in range(20):  # two seconds, ten looks a second
        now_s = 100.0 + step / 10
        callback(progress(fraction=step / 20))
    callback(progress(stage="commit", fraction=1.0))
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event["fraction"] for event in events] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert events[-1]["stage"] == "commit"
    assert events[1] == {
        "event": "progress", "stage": "stream", "bytes_in": 128 * MiB, "bytes_out": 32 * MiB, "total_estimate": 512 * MiB,
        "fraction": 0.25, "elapsed_s": 1.0, "rate_in": 128.0, "rate_out": 32.0,
        "frame_count": 0, "level": None, "read_s": 0.0, "write_s": 0.0, "cpu_s": 0.0, "total_s": 0.0, "stopped_s": 0.0,
        "stage_s": {}, "job": {}, "outcome": "",
    }  # fmt: skip


def test_json_leaves_the_end_to_the_last_event(capfd: pytest.CaptureFixture[str]) -> None:
    callback = JsonProgress()
    callback(replace(progress(stage="commit"), outcome="done"))
    callback(replace(progress(), outcome="failed"))
    assert capfd.readouterr().out == ""


def test_a_report_that_cannot_be_written_does_not_end_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with showing_progress(Output(json=True)) as callback:
            assert callback is not None
            callback(progress())


@pytest.mark.parametrize(
    ("look", "text"),
    [
        (progress(), "128 MiB of 512 MiB, 128 MiB/s, 3.0 s left"),
        (progress(fraction=0.001), "128 MiB of 512 MiB, 128 MiB/s"),
        (progress(fraction=1.0, total_estimate=0), "128 MiB, 128 MiB/s"),
        (progress(fraction=1.0, total_estimate=1), "128 MiB of 128 MiB, 128 MiB/s"),
    ],
)
def test_the_numbers_beside_the_bar(look: Progress, text: str) -> None:
    assert describe(look) == text


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    master_fd, slave_fd = pty.openpty()
    with os.fdopen(master_fd, "rb", buffering=0) as master, os.fdopen(slave_fd, "w") as slave:
        with monkeypatch.context() as patch:
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", "120")
            patch.setattr(sys, "stderr", slave)
            stdout = io.StringIO()
            patch.setattr(sys, "stdout", stdout)
            with showing_progress(Output()) as callback:
                assert callback is not None
                callback(progress(stage="str[eam]"))
            assert stdout.getvalue() == ""
        slave.write("END")
        slave.flush()
        drawn = ""
        while not drawn.endswith("END"):  # a terminal hands over what it likes
            drawn += master.read(65536).decode()
    assert "str[eam]" in drawn
    assert "25%" in drawn
    assert "128 MiB of 512 MiB" in drawn
    assert drawn.endswith("\x1b[2KEND")  # the line is erased


def test_a_dumb_terminal_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    master_fd, slave_fd = pty.openpty()
    with os.fdopen(master_fd, "rb"), os.fdopen(slave_fd, "w") as slave, monkeypatch.context() as patch:
        patch.setenv("TERM", "dumb")
        patch.setattr(sys, "stderr", slave)
        with showing_progress(Output()) as callback:
            assert callback is None


def test_the_newest_look_is_shown_before_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    with showing_progress(Output(json=True)) as callback:
        assert callback is not None
        callback(progress(fraction=0.5))
    assert json.loads(capfd.readouterr().out)["fraction"] == 0.5


def test_nobody_who_does_not_read_holds_up_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    reader_fd, writer_fd = os.pipe()
    with os.fdopen(reader_fd, "rb") as reader, os.fdopen(writer_fd, "w") as writer, monkeypatch.context() as patch:
        os.write(writer_fd, bytes(fcntl.fcntl(writer_fd, F_GETPIPE_SZ)))
        patch.setattr(sys, "stdout", writer)
        began = time.monotonic()
        with showing_progress(Output(json=True)) as callback:
            assert callback is not None
            callback(progress())
            callback(progress(stage="next"))
            assert time.monotonic() - began < 0.5
        assert 0.9 < time.monotonic() - began < 5, "a bounded wait for the last look"
        reader.read(4096 * 4)
        for thread in threading.enumerate():
            if thread.name == "streamsave-progress":
                thread.join(10)
