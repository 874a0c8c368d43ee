"""Recovery against a QEMU that is difficult: everything here is what one step may meet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from streamsave.errors import CommandError, GuestError, MonitorError, MonitorLostError
from streamsave.qemu import recovery
from streamsave.qemu.recovery import Command, carry_out, free_guest


class Difficult:
    """A guest in run state ``state``, with a migration in each of ``migrations`` in turn, that does not like ``cont``."""

    def __init__(
        self,
        state: str = "paused",
        *,
        migrations: tuple[str, ...] = ("none",),
        refuse_cont: int = 0,
        ignore_cont: int = 0,
        refuse_settings: bool = False,
        after_cont: str = "running",
        quits: bool = True,
    ) -> None:
        self.state = state
        self.migrations = list(migrations)
        self.refuse_cont = refuse_cont
        self.ignore_cont = ignore_cont
        self.refuse_settings = refuse_settings
        self.after_cont = after_cont
        self.quits = quits
        self.seen: list[str] = []

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float | None = None) -> Any:
        self.seen.append(command)
        if self.state == "gone":
            raise MonitorLostError("QEMU is gone")
        if command == "query-migrate":
            status = self.migrations.pop(0) if len(self.migrations) > 1 else self.migrations[0]
            return {} if status == "none" else {"status": status}
        if command == "query-status":
            return {"status": self.state, "running": self.state == "running"}
        if command == "quit" and self.quits:
            self.state = "gone"
        if command == "cont":
            if self.refuse_cont:
                self.refuse_cont -= 1
                raise CommandError("not now", command="cont")
            if self.ignore_cont:
                self.ignore_cont -= 1
            else:
                self.state = self.after_cont
        if command.startswith("migrate-set") and self.refuse_settings:
            raise CommandError("There's a migration process in progress", command=command)
        if command == "migrate_cancel" and self.migrations == ["failed"]:
            raise CommandError("too late", command=command)
        return {}


UNDO: list[Command] = [("migrate-set-capabilities", {"capabilities": []}), ("migrate-set-parameters", {"max-bandwidth": 1})]


def test_a_guest_that_was_paused_is_left_alone() -> None:
    qemu = Difficult()
    free_guest(qemu, was_running=False, undo=UNDO)
    assert qemu.seen == ["query-migrate", "migrate-set-capabilities", "migrate-set-parameters"]


def test_a_guest_that_runs_is_left_alone() -> None:
    qemu = Difficult("running")
    free_guest(qemu, was_running=True, undo=[])
    assert "cont" not in qemu.seen


def test_no_cont_while_the_migration_is_being_cancelled() -> None:
    qemu = Difficult(migrations=("active", "cancelling", "cancelling", "cancelled"))
    free_guest(qemu, was_running=True, undo=UNDO)
    assert qemu.state == "running"
    assert qemu.seen.index("cont") > max(index for index, command in enumerate(qemu.seen) if command == "query-migrate")


def test_a_migration_that_ends_in_between() -> None:
    qemu = Difficult(migrations=("active", "failed"))
    free_guest(qemu, was_running=True, undo=[])
    assert qemu.state == "running"


def test_a_cancelling_that_never_ends_does_not_keep_the_guest() -> None:
    qemu = Difficult(migrations=("cancelling",), refuse_settings=True)
    with pytest.raises(CommandError, match="in progress"):
        free_guest(qemu, was_running=True, undo=UNDO, patience_s=0.4)
    assert qemu.state == "running"


@pytest.mark.parametrize("how", ["refuse_cont", "ignore_cont"])
def test_cont_is_tried_again(how: str) -> None:
    qemu = Difficult(**{how: 5})  # type: ignore[arg-type]  # either of two counts
    free_guest(qemu, was_running=True, undo=[])
    assert qemu.state == "running"


def test_patience_ends() -> None:
    qemu = Difficult("io-error", refuse_cont=10**9)
    began = time.monotonic()
    with pytest.raises(GuestError, match=r"stays io-error.*not now.*send cont yourself") as raised:
        free_guest(qemu, was_running=True, undo=[], patience_s=0.3)
    assert raised.value.status == "io-error"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("end", ["shutdown", "guest-panicked", "internal-error", "suspended"])
def test_a_guest_that_ends_by_itself_is_nobodys_fault(end: str) -> None:
    qemu = Difficult(after_cont=end)
    free_guest(qemu, was_running=True, undo=[])
    assert qemu.seen.count("cont") == 1


def test_a_refused_setting_does_not_keep_the_others() -> None:
    qemu = Difficult(refuse_settings=True)
    with pytest.raises(CommandError):
        free_guest(qemu, was_running=True, undo=UNDO)
    assert qemu.seen[-2:] == ["migrate-set-capabilities", "migrate-set-parameters"]
    assert qemu.state == "running"


def test_qemu_is_gone() -> None:
    with pytest.raises(MonitorLostError):
        free_guest(Difficult("gone"), was_running=True, undo=[])
    for then in ("quit", "resume"):
        with pytest.raises(MonitorLostError):
            carry_out(Difficult("gone"), then, was_running=True, undo=[])


def test_resume_of_a_paused_guest_is_no_cont() -> None:
    qemu = Difficult("postmigrate")
    carry_out(qemu, "resume", was_running=False, undo=UNDO)
    assert "cont" not in qemu.seen
    assert qemu.seen[-1] == "migrate-set-parameters"


def test_a_migration_that_is_not_ours_is_left_alone() -> None:
    qemu = Difficult(migrations=("active",))
    free_guest(qemu, was_running=True, migrating=False, undo=[])
    assert qemu.seen == ["query-status", "cont", "query-status"]
    assert qemu.state == "running"


def test_quit_is_over_when_the_connection_is() -> None:
    qemu = Difficult()
    assert carry_out(qemu, "quit", was_running=True, undo=UNDO)
    assert qemu.seen == ["query-status", "quit", "query-status"]


@pytest.mark.parametrize("answers", [True, False])
def test_a_quit_that_takes_too_long(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "QUIT_S", 0.1)

    class Slow(Difficult):
        def execute(self, command: str, *arguments: Any, timeout_s: float | None = None) -> Any:
            if "quit" in self.seen and not answers:
                raise MonitorError(f"no answer within {timeout_s} s")
            return super().execute(command, *arguments)

    qemu = Slow(quits=False)
    assert not carry_out(qemu, "quit", was_running=True, undo=UNDO)
    assert (qemu.seen[:3] == ["query-status", "quit", "query-status"]) is answers


def test_a_guest_that_somebody_resumed_is_not_ended() -> None:
    qemu = Difficult("running")
    with pytest.raises(GuestError, match="somebody else resumed it"):
        carry_out(qemu, "quit", was_running=True, undo=UNDO)
    assert qemu.seen == ["query-status", "migrate-set-capabilities", "migrate-set-parameters"]
