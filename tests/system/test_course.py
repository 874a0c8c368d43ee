"""What a supervisor sees of an operation: each stage while it runs, and a whole account at the end, whatever the end is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.errors import Aborted, CodecError, DestinationError, GuestError, UsageError
from streamsave.format.metadata import Metadata
from streamsave.operations.course import COMMIT, Course
from streamsave.operations.image import read_info
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream
from streamsave.operations.reports import STREAM
from streamsave.operations.restore import HAND_OVER, restore
from streamsave.operations.save import save
from streamsave.options import CompressOptions, SaveOptions
from streamsave.types import Progress
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.qemu import RunningQemu, demo_guest

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"
STREAM_OFFSET = 67148
RAW = SaveOptions(format="raw", then="resume")


def stages(looks: list[Progress]) -> list[str]:
    """Each stage once, in order."""
    return list(dict.fromkeys(look.stage for look in looks))


# A save and a restore


@pytest.mark.qemu
def test_a_save_and_its_restore(guest: RunningQemu, launch: Launch, image: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "streamsave")
    looks: list[Progress] = []
    report = save(guest.monitor, image, RAW, progress=looks.append)
    last = looks[-1]
    assert stages(looks) == [STREAM, COMMIT, "resume"]
    assert [look.outcome for look in looks] == [""] * (len(looks) - 1) + ["done"]
    assert (last.bytes_in, last.bytes_out) == (report.stream_size, report.payload_size)
    assert last.frame_count == report.frame_count
    assert last.stage_s == report.stage_s
    assert list(report.stage_s) == ["prepare", STREAM, COMMIT, "resume"]
    assert sum(report.stage_s.values()) == pytest.approx(last.total_s, abs=0.1)
    assert 0 < last.stopped_s == report.stopped_s < report.total_s
    assert last.fraction == 1.0
    assert all(record.image == str(image) for record in caplog.records if record.name == "streamsave.save")  # type: ignore[attr-defined]
    said = [record.getMessage().removeprefix(f"{image}: ") for record in caplog.records if record.name == "streamsave.save"]
    assert said[0] == "save begun"
    assert said[1].startswith("save watched by guardian ")
    assert [line.split(" took ")[0] for line in said[2:-1]] == [f"save {stage}" for stage in report.stage_s]
    assert said[-1] == "save done"
    assert caplog.records[-1].bytes_in == report.stream_size  # type: ignore[attr-defined]
    commands = [record.command for record in caplog.records if record.name == "streamsave.qmp"]  # type: ignore[attr-defined]
    assert {"stop", "migrate", "cont"} <= set(commands)

    caplog.clear()
    looks.clear()
    waiting = launch(demo_guest(16 * MiB), incoming=True)
    waiting.qmp().close()
    restored = restore(image, monitor=waiting.monitor, progress=looks.append)
    assert stages(looks) == [STREAM, HAND_OVER]
    assert looks[-1].outcome == "done"
    assert looks[-1].stage_s == restored.stage_s
    assert looks[-1].bytes_out == restored.stream_size
    assert [r.getMessage() for r in caplog.records if r.name == "streamsave.restore"][-1] == f"{image}: restore done"


@pytest.mark.qemu
def test_where_a_save_failed(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    looks: list[Progress] = []
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(DestinationError) as caught:
        save(guest.monitor, image, RAW, progress=looks.append)
    account = caught.value.progress
    assert account is looks[-1]
    assert (account.stage, account.outcome, account.fraction) == (COMMIT, "failed", 1.0)
    assert list(account.stage_s) == ["prepare", STREAM, COMMIT]
    assert account.bytes_out > 0
    assert 0 < account.stopped_s < account.total_s
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING and each.name == "streamsave.save"]
    assert record.getMessage().startswith(f"{image}: save failed in stage commit: {image}: cannot make the image durable")
    assert (record.error, record.stage) == ("DestinationError", COMMIT)  # type: ignore[attr-defined]
    guest.wait_for_ticks(1, 10)


@pytest.mark.qemu
def test_a_save_that_did_not_even_begin(guest: RunningQemu, image: Path) -> None:
    with guest.qmp() as qmp:  # a guest in postmigrate is one that cannot be saved
        qmp.execute("stop")
    save(guest.monitor, image, SaveOptions(format="raw", then="pause"))
    with pytest.raises(GuestError) as caught:
        save(guest.monitor, image, RAW)
    assert caught.value.progress is not None
    assert (caught.value.progress.stage, caught.value.progress.bytes_in, caught.value.progress.stopped_s) == (
        "prepare",
        0,
        0,
    )
    with guest.qmp() as qmp:
        qmp.execute("cont")


@pytest.mark.qemu
def test_what_a_callback_raises_after_the_commit_changes_nothing(
    guest: RunningQemu, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The guest is to be let go, and it is."""

    def raise_late(look: Progress) -> None:
        if look.stage == "resume":
            raise KeyError("mine")

    assert save(guest.monitor, image, RAW, progress=raise_late).image_size == image.stat().st_size
    assert read_info(image).header.complete
    guest.wait_for_ticks(1, 10)
    late = [record for record in caplog.records if "after the fact" in record.getMessage()]
    assert len(late) == 2, "with the stage, and with the end"
    assert all(record.exc_info is not None for record in late)


@pytest.mark.qemu
def test_what_a_callback_raises_before_the_commit_cancels(guest: RunningQemu, image: Path) -> None:
    def raise_early(look: Progress) -> None:
        if look.stage == COMMIT:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        save(guest.monitor, image, RAW, progress=raise_early)
    assert list(image.parent.iterdir()) == []
    guest.wait_for_ticks(1, 10)


def test_streams_too(tmp_path: Path) -> None:
    looks: list[Progress] = []
    image = tmp_path / "guest.save"
    with GOLDEN.open("rb") as file:
        os.lseek(file.fileno(), STREAM_OFFSET, os.SEEK_SET)
        report = save_stream(file.fileno(), image, Metadata("<domain/>"), was_running=False, progress=looks.append)
    assert stages(looks) == [STREAM, COMMIT]
    assert (looks[-1].outcome, looks[-1].bytes_in) == ("done", report.stream_size)
    looks.clear()
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(DestinationError) as caught:
            restore_stream(image, writing, progress=looks.append)
    finally:
        os.close(writing)
    assert caught.value.progress is looks[-1]
    assert (looks[-1].stage, looks[-1].outcome) == (STREAM, "failed")


# The course itself


def course_of(progress: Callable[[Progress], None] | None = None) -> Course:
    return Course("save", "guest.save", ("one", STREAM, COMMIT, "four"), progress)


def look_of(**values: Any) -> Callable[[float], Progress]:
    return lambda elapsed_s: Progress(STREAM, 10, 5, 20, 0.5, elapsed_s, 1.0, 0.5, **values)


def test_stages_follow_each_other() -> None:
    course = course_of()
    seen = [course.stage]
    for stage in ("one", STREAM, COMMIT, "four"):
        course.end(stage)
        seen.append(course.stage)
    assert seen == ["one", STREAM, COMMIT, "four", "four"]
    assert list(course.stage_s) == ["one", STREAM, COMMIT, "four"]


def test_an_error_that_is_not_ours_is_told_and_stays_as_it_is() -> None:
    looks: list[Progress] = []
    with pytest.raises(KeyError), course_of(looks.append):
        raise KeyError("x")
    assert [look.outcome for look in looks] == ["failed"]


def test_the_time_until_a_failure_counts_to_its_stage() -> None:
    course = course_of()
    course.end("one")
    course.follow(look_of())
    with pytest.raises(CodecError) as caught, course:
        raise CodecError("broken")
    account = caught.value.progress
    assert account is not None
    assert list(account.stage_s) == ["one", STREAM]
    assert (account.stage, account.bytes_in, account.fraction) == (STREAM, 10, 0.5)


def test_how_long_a_guest_stood_still() -> None:
    course = course_of()
    assert course.stopped_s == 0.0
    course.guest_is_free()
    assert course.stopped_s == 0.0, "it never stopped"
    course = course_of()
    course.guest_stops()
    first = course.stopped_s
    course.guest_is_free()
    frozen = course.stopped_s
    course.guest_is_free()
    assert 0 < first <= frozen == course.stopped_s


def test_nothing_is_printed_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """A library's warnings go to stderr if nobody takes them."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        with pytest.raises(UsageError), course_of():
            raise UsageError("x")
    finally:
        root.handlers = handlers
    assert capfd.readouterr() == ("", "")


def test_cancelled_is_an_end_like_others(tmp_path: Path) -> None:
    cancel = Cancellation()
    cancel.cancel("enough")
    reading, writing = os.pipe()
    try:
        with pytest.raises(Aborted) as caught:
            save_stream(reading, tmp_path / "x", Metadata("<a/>"), CompressOptions(), was_running=False, cancel=cancel)
    finally:
        os.close(reading)
        os.close(writing)
    assert caught.value.progress is not None
    assert caught.value.progress.outcome == "failed"
