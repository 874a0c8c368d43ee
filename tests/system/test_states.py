"""The guest's state before and after: running, paused or never started, over every ``then``, and QEMU's settings with it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from streamsave.errors import DestinationError, GuestError
from streamsave.operations.image import read_info
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import GuestState, RestoreOptions, SaveOptions, Then, Transport
from streamsave.types import Progress
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.qemu import RunningQemu, demo_guest

pytestmark = pytest.mark.qemu

GUEST = demo_guest(16 * MiB)
STATES: tuple[str, ...] = ("running", "paused", "prelaunch")
THENS: tuple[Then, ...] = ("quit", "resume", "pause")
WANTED: tuple[GuestState | None, ...] = (None, "running", "paused")
TRANSPORTS: tuple[Transport, ...] = ("fd", "unix")

Settings = dict[str, Any]


def in_state(launch: Launch, state: str) -> RunningQemu:
    """A guest that runs, was paused after a while, or has not run at all (``-S``)."""
    qemu = launch(GUEST, paused=state == "prelaunch")
    if state != "prelaunch":
        qemu.boot().wait_for_ticks()
    with qemu.qmp() as qmp:
        if state == "paused":
            qmp.execute("stop")
        assert qmp.status() == state
    return qemu


def let_run(qemu: RunningQemu) -> None:
    with qemu.qmp() as qmp:
        qmp.execute("cont")


# -- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", THENS)
@pytest.mark.parametrize("state", STATES)
def test_guest_after_a_save(launch: Launch, image: Path, state: str, then: Then) -> None:
    qemu = in_state(launch, state)
    report = save(qemu.monitor, image, SaveOptions(then=then))
    assert (report.was_running, report.then) == (state == "running", then)
    assert (report.stopped_s > 0) == (state == "running")
    assert read_info(image).header.was_running == (state == "running")
    counter = qemu.counter()
    if then == "quit":
        assert qemu.wait() == 0
        assert report.warnings == ()
    elif then == "resume" and state == "running":
        assert qemu.status() == "running"
        qemu.wait_for_counter(counter + 2)
        assert "the image fits its disks only as they were" in report.warnings[0]
    else:
        assert qemu.status() == "postmigrate"  # QEMU's word for a guest that is paused because it was migrated
        assert "cont" in report.warnings[0]
        assert qemu.is_still(0.5)
        let_run(qemu)
        qemu.wait_for_counter(counter + 2)
    assert qemu.console.seamless()


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("state", STATES)
def test_guest_after_a_restore(launch: Launch, image: Path, state: str, wanted: GuestState | None) -> None:
    source = in_state(launch, state)
    save(source.monitor, image)
    source.wait()
    counter = source.counter()
    waiting = launch(GUEST, incoming=True, paused=wanted == "running", after=source)  # -S of its own decides nothing
    waiting.qmp().close()
    report = restore(image, monitor=waiting.monitor, options=RestoreOptions(state=wanted))
    runs = wanted == "running" or (wanted is None and state == "running")
    assert report.running == runs
    assert (waiting.status() == "running") == runs
    if not runs:
        assert waiting.is_still(0.5)
        assert waiting.counter() == counter
        let_run(waiting)
    waiting.wait_for_counter(counter + 2)
    assert waiting.console.seamless()


def test_guest_is_saved_again_and_again(launch: Launch, image: Path) -> None:
    qemu = in_state(launch, "running")
    for _ in range(3):
        save(qemu.monitor, image, SaveOptions(then="resume"))
        qemu.wait_for_ticks()
    assert qemu.console.seamless()


# -- settings ---------------------------------------------------------------------------------------------------------

THEIR_CAPABILITIES = ("xbzrle", "pause-before-switchover", "release-ram", "auto-converge")
THEIR_PARAMETERS: Settings = {"max-bandwidth": 1 * MiB, "downtime-limit": 123, "xbzrle-cache-size": 2 * MiB}
"""Each of the capabilities, and this bandwidth, would spoil the save or make it last half a minute."""


def set_theirs(qemu: RunningQemu) -> Settings:
    """Settings for migrations of their own, as somebody who owns this QEMU may have made. Returns all of them."""
    with qemu.qmp() as qmp:
        states = [{"capability": name, "state": True} for name in THEIR_CAPABILITIES]
        qmp.execute("migrate-set-capabilities", capabilities=states)
        qmp.execute("migrate-set-parameters", **THEIR_PARAMETERS)
    settings = settings_of(qemu)
    assert settings["xbzrle"]
    assert settings["max-bandwidth"] == 1 * MiB
    return settings


def settings_of(qemu: RunningQemu) -> Settings:
    with qemu.qmp() as qmp:
        capabilities = {each["capability"]: each["state"] for each in qmp.execute("query-migrate-capabilities")}
        return {**capabilities, **qmp.execute("query-migrate-parameters")}


@pytest.mark.parametrize(
    ("state", "then", "transport"),
    [("running", "resume", "fd"), ("running", "resume", "unix"), ("running", "pause", "unix"), ("paused", "resume", "fd")],
)
def test_settings_survive_a_save(launch: Launch, image: Path, state: str, then: Then, transport: Transport) -> None:
    qemu = in_state(launch, state)
    theirs = set_theirs(qemu)
    report = save(qemu.monitor, image, SaveOptions(format="raw", then=then, transport=transport))
    assert report.rate > 10, "their bandwidth was in force"
    assert settings_of(qemu) == theirs
    waiting = launch(GUEST, incoming=True)
    waiting.qmp().close()
    assert restore(image, monitor=waiting.monitor).running == (state == "running"), "a stream that not every QEMU loads"


@pytest.mark.parametrize(
    ("moment", "state", "transport"),
    [
        ("in the stream", "running", "fd"),
        ("in the stream", "running", "unix"),
        ("in the stream", "paused", "fd"),
        ("at the commit", "running", "fd"),
        ("at the commit", "paused", "unix"),
        ("at the commit", "prelaunch", "fd"),
    ],
)
def test_failed_save_changes_nothing(
    launch: Launch, image: Path, monkeypatch: pytest.MonkeyPatch, moment: str, state: str, transport: Transport
) -> None:
    qemu = in_state(launch, state)
    theirs = set_theirs(qemu)
    seen: list[Progress] = []
    caught: pytest.ExceptionInfo[Exception]

    def fail(progress: Progress) -> None:
        seen.append(progress)
        raise RuntimeError("injected")

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if moment == "in the stream":
        options = SaveOptions(format="bzip2", threads=1, transport=transport)
        with pytest.raises(RuntimeError, match="injected") as caught:
            save(qemu.monitor, image, options, progress=fail)
        assert seen[0].fraction < 1, "it was the end of the stream already"
    else:
        monkeypatch.setattr(os, "rename", full)
        with pytest.raises(DestinationError, match="No space left") as caught:
            save(qemu.monitor, image, SaveOptions(transport=transport))
    after = qemu.status()
    notes = getattr(caught.value, "__notes__", [])
    if after == "postmigrate":  # what QEMU makes of a paused guest, whether its migration failed or not
        assert state != "running"
        assert "but in QEMU's state postmigrate: send cont" in notes.pop(0)
    else:
        assert after == state
    assert not notes, "more than that went wrong"
    assert settings_of(qemu) == theirs
    assert list(image.parent.iterdir()) == []
    counter = qemu.counter()
    if state == "running":
        assert qemu.status() == "running"
    else:
        assert qemu.is_still(0.3)
        let_run(qemu)
    qemu.wait_for_counter(counter + 2)
    assert qemu.console.seamless()
    monkeypatch.undo()
    save(qemu.monitor, image)
    assert read_info(image).header.complete


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_settings_survive_a_restore(launch: Launch, image: Path, transport: Transport) -> None:
    save(in_state(launch, "running").monitor, image)
    waiting = launch(GUEST, incoming=True)
    theirs = set_theirs(waiting)
    restore(image, monitor=waiting.monitor, options=RestoreOptions(transport=transport))
    assert settings_of(waiting) == theirs
    waiting.wait_for_ticks()


def test_settings_survive_a_restore_that_fails(launch: Launch, image: Path) -> None:
    """Into a QEMU that has a guest already."""
    save(in_state(launch, "running").monitor, image)
    running = in_state(launch, "running")
    theirs = set_theirs(running)
    with pytest.raises(GuestError, match="does not wait for a stream"):
        restore(image, monitor=running.monitor)
    assert settings_of(running) == theirs
    assert running.status() == "running"
