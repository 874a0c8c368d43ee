"""Migrations with a real QEMU: may it be saved, settings, both transports, both directions, and how they end."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamsave.choices import Transport
from streamsave.errors import (
    CommandError,
    GuestError,
    IncomingError,
    MigrationError,
    MonitorLostError,
    SourceError,
)
from streamsave.qemu.migration import (
    GuestStatus,
    MigrationSettings,
    check_savable,
    start_incoming,
    start_outgoing,
    wait_incoming,
    wait_outgoing,
)
from streamsave.qemu.monitor import Monitor
from streamsave.qemu.recovery import carry_out, free_guest
from streamsave.qemu.settings import CAPABILITIES
from streamsave.qemu.transport import BUFFER_SIZE, _private_path

from ..fakes.qmp import FakeQmp, Talk
from ..kit.missing import missing
from ..kit.qemu import RunningQemu
from ..kit.waiting import until
from .machines import FIRMWARE, drained

TRANSPORTS: tuple[Transport, ...] = ("fd", "unix")


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with RunningQemu(FIRMWARE) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            yield monitor


def run_state(monitor: Monitor) -> str:
    return str(monitor.execute("query-status")["status"])


def capabilities(monitor: Monitor) -> dict[str, bool]:
    return {each["capability"]: each["state"] for each in monitor.execute("query-migrate-capabilities")}


def set_capabilities(monitor: Monitor, **states: bool) -> None:
    listed = [{"capability": name, "state": state} for name, state in states.items()]
    monitor.execute("migrate-set-capabilities", {"capabilities": listed})


def save(monitor: Monitor, transport: Transport = "fd") -> bytes:
    """The whole stream of a stopped guest, completed."""
    MigrationSettings(monitor).neutralise()
    monitor.execute("stop")
    with start_outgoing(monitor, transport) as sock:
        stream = drained(sock.recv)
    wait_outgoing(monitor, 10)
    return stream


def slow_down(monitor: Monitor) -> None:
    """Make the next migration last: the stream of a machine without a system fits into the socket's buffer."""
    monitor.execute("migrate-set-parameters", {"max-bandwidth": 1000})


def test_a_private_path_goes_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be none left when all is done."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(24, os.strerror(24))

    with _private_path(SourceError) as path:
        path.touch()
        assert path.parent.stat().st_mode & 0o777 == 0o700
        monkeypatch.setattr(os, "open", refuse)
        monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.undo()
    assert not path.parent.exists()


# May it be saved


@pytest.mark.qemu
def test_running_and_paused_guests_can_be_saved(monitor: Monitor) -> None:
    assert check_savable(monitor) == GuestStatus("running", True)
    monitor.execute("stop")
    assert check_savable(monitor) == GuestStatus("paused", False)


@pytest.mark.qemu
def test_a_guest_that_never_ran_can_be_saved() -> None:
    with RunningQemu(FIRMWARE, paused=True) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            assert check_savable(monitor) == GuestStatus("prelaunch", False)
            assert save(monitor).startswith(b"QEVM")


@pytest.mark.qemu
def test_an_incoming_qemu_cannot_be_saved() -> None:
    with RunningQemu(FIRMWARE, incoming=True) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor, pytest.raises(GuestError, match="waits for an incoming migration") as raised:
            check_savable(monitor)
        assert raised.value.status == "inmigrate"


@pytest.mark.qemu
def test_postmigrate_says_what_to_do(monitor: Monitor) -> None:
    save(monitor)
    with pytest.raises(GuestError, match=r"postmigrate.*send cont first"):
        check_savable(monitor)
    monitor.execute("cont")
    assert check_savable(monitor).was_running


@pytest.mark.qemu
def test_a_migration_under_way(monitor: Monitor) -> None:
    slow_down(monitor)
    with start_outgoing(monitor, "fd"):
        until(lambda: monitor.execute("query-migrate")["status"] == "active")
        with pytest.raises(GuestError, match="migrating already"):
            check_savable(monitor)
    until(lambda: monitor.execute("query-migrate")["status"] == "failed")
    assert check_savable(monitor).was_running


@pytest.mark.qemu
def test_what_blocks_a_migration_is_named(tmp_path: Path) -> None:
    drive = f"if=none,id=d,format=raw,file=fat:rw:{tmp_path}"
    with RunningQemu(FIRMWARE, "-drive", drive) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            with pytest.raises(GuestError, match="cannot be saved while it has what QEMU cannot migrate") as raised:
                check_savable(monitor)
            assert len(raised.value.reasons) == 2
            assert all(reason in str(raised.value) for reason in raised.value.reasons)
            assert run_state(monitor) == "running"


@pytest.mark.parametrize("state", ["suspended", "io-error", "shutdown", "guest-panicked", "something-new"])
def test_other_run_states_are_refused_by_name(state: str) -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.answer("query-migrate", {})
        talk.answer("query-status", {"status": state, "running": False})
        talk.hold()

    with FakeQmp(script) as address, Monitor(address) as monitor, pytest.raises(GuestError, match=state) as raised:
        check_savable(monitor)
    assert raised.value.status == state


# Settings


@pytest.mark.qemu
def test_settings_that_are_as_wanted_are_not_written(monitor: Monitor) -> None:
    settings = MigrationSettings(monitor)
    assert settings.undo_commands() == [
        ("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": False}]}),
        ("migrate-set-parameters", {"max-bandwidth": 128 << 20}),
    ]
    settings.neutralise()
    assert MigrationSettings(monitor).undo_commands() == []


@pytest.mark.qemu
@pytest.mark.parametrize(
    "states",
    [
        {"multifd": True, "zero-copy-send": True},
        {"xbzrle": True, "auto-converge": True, "validate-uuid": True, "return-path": True},
        {"compress": True},
        {"postcopy-ram": True, "postcopy-preempt": True, "release-ram": True},
        {"background-snapshot": True},
        {"x-ignore-shared": True, "pause-before-switchover": True, "dirty-bitmaps": True, "events": True},
    ],
)
def test_settings_go_and_come_back(monitor: Monitor, states: dict[str, bool]) -> None:
    if not set(states) <= set(capabilities(monitor)):
        missing(f"this QEMU does not know all of {', '.join(states)}")
    try:
        set_capabilities(monitor, **states)
    except CommandError as error:  # background-snapshot and postcopy need userfaultfd
        missing(str(error))
    monitor.execute("migrate-set-parameters", {"max-bandwidth": 5 << 20, "downtime-limit": 77})
    before = (capabilities(monitor), monitor.execute("query-migrate-parameters"))
    settings = MigrationSettings(monitor)
    settings.neutralise()
    during = capabilities(monitor)
    assert {name: state for name, state in during.items() if name in CAPABILITIES} == {
        name: CAPABILITIES[name] for name in during if name in CAPABILITIES
    }
    assert monitor.execute("query-migrate-parameters")["max-bandwidth"] == 0
    assert monitor.execute("query-migrate-parameters")["downtime-limit"] == 77
    settings.restore()
    assert (capabilities(monitor), monitor.execute("query-migrate-parameters")) == before


@pytest.mark.qemu
def test_tls_goes_and_comes_back(monitor: Monitor) -> None:
    monitor.execute("migrate-set-parameters", {"tls-creds": "none-such"})
    settings = MigrationSettings(monitor)
    settings.neutralise()
    assert monitor.execute("query-migrate-parameters")["tls-creds"] == ""
    settings.restore()
    assert monitor.execute("query-migrate-parameters")["tls-creds"] == "none-such"


def test_a_newer_qemu_has_a_mode_and_no_compress() -> None:
    written: list[Any] = []

    class Newer:
        def execute(self, command: str, arguments: Any = None) -> Any:
            if command == "query-migrate-capabilities":
                return [{"capability": "mapped-ram", "state": True}, {"capability": "events", "state": True}]
            if command == "query-migrate-parameters":
                return {"mode": "cpr-reboot", "max-bandwidth": 0, "direct-io": False}
            written.append((command, arguments))
            return {}

    settings = MigrationSettings(Newer())
    settings.neutralise()
    settings.restore()
    assert written == [
        ("migrate-set-capabilities", {"capabilities": [{"capability": "mapped-ram", "state": False}]}),
        ("migrate-set-parameters", {"mode": "normal"}),
        ("migrate-set-capabilities", {"capabilities": [{"capability": "mapped-ram", "state": True}]}),
        ("migrate-set-parameters", {"mode": "cpr-reboot"}),
    ]


# Out and in


@pytest.mark.qemu
@pytest.mark.parametrize("outgoing", TRANSPORTS)
@pytest.mark.parametrize("incoming", TRANSPORTS)
def test_there_and_back(monitor: Monitor, outgoing: Transport, incoming: Transport) -> None:
    folders = set(os.listdir(tempfile.gettempdir()))
    stream = save(monitor, outgoing)
    assert stream.startswith(b"QEVM")
    assert run_state(monitor) == "postmigrate"
    with RunningQemu(FIRMWARE, incoming=True) as other:
        other.qmp().close()
        with Monitor(other.monitor) as second:
            MigrationSettings(second).neutralise()
            with start_incoming(second, incoming) as sock:
                sock.sendall(stream)
            wait_incoming(second, 10)
            assert run_state(second) == "paused", "whether it runs is not QEMU's to decide"
            second.execute("cont")
            assert run_state(second) == "running"
    left = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("streamsave-")} - folders
    assert not left


@pytest.mark.qemu
def test_buffers_are_raised(monitor: Monitor) -> None:
    with start_outgoing(monitor, "fd") as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 200 * 1024
        if os.geteuid() == 0:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= BUFFER_SIZE


@pytest.mark.qemu
def test_a_refused_migration_leaves_no_descriptor_in_qemu(monitor: Monitor) -> None:
    pid = monitor.peer_pid
    slow_down(monitor)
    with start_outgoing(monitor, "fd"):
        before = set(os.listdir(f"/proc/{pid}/fd"))
        with pytest.raises(CommandError, match="migrat"):
            start_outgoing(monitor, "fd")
        assert set(os.listdir(f"/proc/{pid}/fd")) == before


@pytest.mark.qemu
def test_start_outgoing_when_qemu_is_gone() -> None:
    with RunningQemu(FIRMWARE) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            qemu.kill()
            with pytest.raises(MonitorLostError):
                start_outgoing(monitor, "fd")


@pytest.mark.qemu
def test_no_room_for_a_private_directory(monitor: Monitor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(SourceError, match="set TMPDIR"):
        start_outgoing(monitor, "unix")
    assert os.listdir(deep) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(SourceError, match="set TMPDIR"):
        start_outgoing(monitor, "unix")
    assert run_state(monitor) == "running"


def test_a_qemu_that_cannot_reach_our_directory() -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.answer("migrate", {})
        talk.answer("query-migrate", {"status": "failed", "error-desc": "Permission denied"})
        talk.hold()

    refusal = pytest.raises(MigrationError, match=r"Permission denied.*try the other transport, fd")
    with FakeQmp(script) as address, Monitor(address) as monitor, refusal:
        start_outgoing(monitor, "unix")


@pytest.mark.qemu
def test_restoring_into_a_guest_that_runs_leaves_it_running(monitor: Monitor) -> None:
    with pytest.raises(GuestError, match=r"does not wait for a stream.*-incoming defer"):
        start_incoming(monitor, "fd")
    assert run_state(monitor) == "running"


@pytest.mark.qemu
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_stream_that_does_not_load(monitor: Monitor, damage: str) -> None:
    stream = save(monitor)
    stream = stream[: len(stream) // 2] if damage == "cut" else b"not a stream at all" * 100
    with RunningQemu(FIRMWARE, incoming=True) as other:
        other.qmp().close()
        with Monitor(other.monitor) as second:
            sock = start_incoming(second, "fd")
            try:
                sock.sendall(stream)
            except BrokenPipeError:
                pass  # it ended before it read everything
            sock.close()
            with pytest.raises(IncomingError):
                wait_incoming(second, 10)


# How it ends


@pytest.mark.qemu
def test_a_reader_that_dies_is_a_failed_migration(monitor: Monitor) -> None:
    monitor.execute("stop")
    slow_down(monitor)
    sock = start_outgoing(monitor, "fd")
    assert sock.recv(4) == b"QEVM"
    sock.close()
    with pytest.raises(MigrationError, match="failed"):
        wait_outgoing(monitor, 10)


@pytest.mark.qemu
def test_a_cancelled_migration(monitor: Monitor) -> None:
    monitor.execute("stop")
    slow_down(monitor)
    with start_outgoing(monitor, "fd"):
        monitor.execute("migrate_cancel")
        with pytest.raises(MigrationError, match="cancel"):
            wait_outgoing(monitor, 10)


@pytest.mark.qemu
def test_a_migration_that_does_not_end_in_time(monitor: Monitor) -> None:
    monitor.execute("stop")
    slow_down(monitor)
    with start_outgoing(monitor, "fd"):
        with pytest.raises(MigrationError, match=r"not done after 0\.3 s"):
            wait_outgoing(monitor, 0.3)
        free_guest(monitor, was_running=True, undo=[])


@pytest.mark.qemu
def test_the_event_wakes_who_waits(monitor: Monitor) -> None:
    MigrationSettings(monitor).neutralise()
    monitor.execute("stop")
    sock = start_outgoing(monitor, "fd")
    ended: list[float] = []

    def read() -> None:
        time.sleep(0.3)
        drained(sock.recv)
        ended.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    wait_outgoing(monitor, 20)
    woken = time.monotonic()
    reader.join()
    sock.close()
    assert woken - ended[0] < 0.5


def test_a_missed_event_is_made_up_for() -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.answer("query-migrate", {"status": "active"})
        talk.answer("query-migrate", {"status": "completed"})
        talk.hold()

    with FakeQmp(script) as address, Monitor(address) as monitor:
        began = time.monotonic()
        wait_outgoing(monitor, 10)
        assert time.monotonic() - began < 9, "it asked again"


def test_qemus_reason_is_in_the_message() -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.answer("query-migrate", {"status": "failed", "error-desc": "Unable to write to socket: Broken pipe"})
        talk.hold()

    refusal = pytest.raises(MigrationError, match=r"failed: Unable to write to socket.*; try again")
    with FakeQmp(script) as address, Monitor(address) as monitor, refusal:
        wait_outgoing(monitor, 10)


# Giving the guest back


@pytest.mark.qemu
@pytest.mark.parametrize("point", ["nothing happened", "stopped", "mid-stream", "reader gone", "completed"])
@pytest.mark.parametrize("was_running", [True, False])
def test_free_guest(monitor: Monitor, point: str, was_running: bool) -> None:
    if not was_running:
        monitor.execute("stop")
    before = (capabilities(monitor), monitor.execute("query-migrate-parameters"))
    settings = MigrationSettings(monitor)
    settings.neutralise()
    sock: socket.socket | None = None
    if point != "nothing happened":
        monitor.execute("stop")
    if point in ("mid-stream", "reader gone"):
        slow_down(monitor)
    if point in ("mid-stream", "reader gone", "completed"):
        sock = start_outgoing(monitor, "fd")
    if point == "reader gone" and sock:
        assert sock.recv(4) == b"QEVM"
        sock.close()
    if point == "completed" and sock:
        drained(sock.recv)
        wait_outgoing(monitor, 10)
    began = time.monotonic()
    for _ in range(2):  # it may be repeated
        free_guest(monitor, was_running=was_running, undo=settings.undo_commands())
    assert time.monotonic() - began < 2
    assert monitor.execute("query-status")["running"] is was_running
    assert (capabilities(monitor), monitor.execute("query-migrate-parameters")) == before
    if sock:
        sock.close()


@pytest.mark.qemu
@pytest.mark.parametrize(("then", "state"), [("resume", "running"), ("pause", "postmigrate")])
def test_carry_out(monitor: Monitor, then: str, state: str) -> None:
    before = capabilities(monitor)
    undo = MigrationSettings(monitor).undo_commands()
    save(monitor)
    for _ in range(2):
        carry_out(monitor, then, was_running=True, undo=undo)
    assert run_state(monitor) == state
    assert capabilities(monitor) == before


@pytest.mark.qemu
def test_carry_out_quit() -> None:
    with RunningQemu(FIRMWARE) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            monitor.execute("stop")  # as after a save; a guest that runs is not ended
            carry_out(monitor, "quit", was_running=True, undo=[])
            assert qemu.wait() == 0
            with pytest.raises(MonitorLostError):  # gone, or behind a broken connection: that is for the caller to find out
                carry_out(monitor, "quit", was_running=True, undo=[])
