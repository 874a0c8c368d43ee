"""Moments of a save that lie between two others: what is known to whom just then, and what a cancel or Ctrl-C does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.endpoints.socket import SocketSource
from streamsave.errors import Aborted, DestinationError, MigrationError, SourceError
from streamsave.guardian.parent import Guardian
from streamsave.guardian.plan import COMMITTED, DISARM, MIGRATING, STOPPING
from streamsave.operations.commit import Commit
from streamsave.operations.image import read_info
from streamsave.operations.save import save
from streamsave.options import SaveOptions
from streamsave.qemu.conversation import Conversation
from streamsave.qemu.migration import MigrationSettings
from streamsave.qemu.monitor import Monitor

from ..kit.qemu import RunningQemu
from .saving import HEADER, Fails, failing

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]


def test_cancelled_before_the_stop_stops_nothing(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = Cancellation()
    neutralise, execute = MigrationSettings.neutralise, Monitor.execute
    sent: list[str] = []

    def cancel_and_neutralise(settings: MigrationSettings) -> None:
        cancel.cancel("enough")
        neutralise(settings)

    def noted(monitor: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        sent.append(command)
        return execute(monitor, command, *arguments, **options)

    monkeypatch.setattr(MigrationSettings, "neutralise", cancel_and_neutralise)
    monkeypatch.setattr(Monitor, "execute", noted)
    assert str(fails(Aborted, cancel=cancel)) == "enough"
    assert "migrate-set-parameters" in sent
    assert "stop" not in sent


def test_the_guardian_hears_of_everything_before_it_is_so(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever we are killed, it knows what of the guest's state is our doing; and it is told to go only at the end."""
    said: list[object] = []
    say, execute = Guardian.say, Monitor.execute

    def noted_say(guardian: Guardian, what: bytes) -> None:
        said.append(what)
        say(guardian, what)

    def noted(monitor: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        if command in ("stop", "migrate", "cont"):
            said.append(command)
        return execute(monitor, command, *arguments, **options)

    monkeypatch.setattr(Guardian, "say", noted_say)
    monkeypatch.setattr(Monitor, "execute", noted)
    save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
    assert said == [STOPPING, "stop", MIGRATING, "migrate", COMMITTED, "cont", DISARM]


def test_cancelled_while_the_guest_is_given_back(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk failed, and somebody has had enough just when the guest is told to go on: it does, and the disk is why."""
    cancel = Cancellation()
    execute = Conversation.execute
    sent: list[str] = []

    async def cancel_and_execute(talk: Conversation, name: str, arguments: dict[str, object] | None) -> object:
        if name == "cont":
            cancel.cancel("enough")
        sent.append(name)
        return await execute(talk, name, arguments)

    monkeypatch.setattr(Conversation, "execute", cancel_and_execute)
    monkeypatch.setattr(os, "fsync", failing(os.fsync, HEADER))
    monkeypatch.setattr(Guardian, "hand_over", None)
    fails(DestinationError, cancel=cancel)
    assert sent[sent.index("cont") + 1] == "query-status", "it was seen running"


def test_qemu_says_why_its_socket_broke(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that we see is a read that failed; the root cause is what QEMU knows."""
    execute = Monitor.execute
    broken: list[bool] = []

    def break_off(_source: SocketSource, _view: memoryview) -> int:
        broken.append(True)
        raise SourceError("reading the migration socket failed")

    def answer(monitor: Monitor, command: str, *arguments: Any, **options: Any) -> Any:
        result = execute(monitor, command, *arguments, **options)
        if command == "query-migrate" and broken and result["status"] == "failed":
            return {"status": "failed", "error-desc": "the devices refused"}
        return result

    monkeypatch.setattr(SocketSource, "readinto", break_off)
    monkeypatch.setattr(Monitor, "execute", answer)
    error = fails(MigrationError)
    assert "did not migrate the guest: failed: the devices refused" in str(error)
    assert isinstance(error.__cause__, SourceError)


def test_interrupted_right_after_the_commit_lets_go(
    guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image exists: what was asked for is done with the guest, which does not run on."""
    run = Commit.run

    def run_and_interrupt(commit: Commit, cancel: Cancellation) -> None:
        run(commit, cancel)
        raise KeyboardInterrupt

    monkeypatch.setattr(Commit, "run", run_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(guest.monitor, image, SaveOptions(format="raw", then="pause"))
    assert read_info(image).header.complete
    with guest.qmp() as qmp:
        assert qmp.status() == "postmigrate"
        qmp.execute("cont")
    guest.wait_for_ticks(1, 10)


def test_a_guardian_that_died_meanwhile_is_told(guest: RunningQemu, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Commit.run

    def kill_and_run(commit: Commit, cancel: Cancellation) -> None:
        guardians[0]._process.kill()
        guardians[0]._process.wait()
        run(commit, cancel)

    guardians: list[Guardian] = []
    start = Guardian.__init__

    def noted(guardian: Guardian, *arguments: Any, **options: Any) -> None:
        guardians.append(guardian)
        start(guardian, *arguments, **options)

    monkeypatch.setattr(Guardian, "__init__", noted)
    monkeypatch.setattr(Commit, "run", kill_and_run)
    report = save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
    assert report.warnings[0] == "the guardian ended during the save; nothing came of it"
