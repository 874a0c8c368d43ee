"""The monitor, against a fake that misbehaves as told and against a real QEMU."""

from __future__ import annotations

import asyncio
import builtins
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import QMPClient, Runstate, StateError

from streamsave.errors import (
    Aborted,
    CommandError,
    MonitorBusyError,
    MonitorConnectError,
    MonitorError,
    MonitorLostError,
    ResourceError,
)
from streamsave.qemu.monitor import Monitor

from ..fakes.qmp import FakeQmp, Talk
from ..kit.qemu import RunningQemu
from ..kit.waiting import until
from .machines import FIRMWARE


@pytest.fixture(autouse=True)
def _clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    gc.collect()  # asyncio complains of exceptions that nobody fetched when their tasks go
    said = [each.getMessage() for phase in ("call", "teardown") for each in caplog.get_records(phase)]  # text begins anew
    assert said == [], "qemu.qmp and asyncio must be quiet"


@pytest.fixture(scope="module")
def qemu() -> Iterator[RunningQemu]:
    with RunningQemu(FIRMWARE) as running:
        running.qmp().close()
        yield running


def served(*steps: Callable[[Talk], None]) -> FakeQmp:
    """A fake that greets, takes the steps, and then holds the line."""

    def script(talk: Talk) -> None:
        talk.greet()
        for step in steps:
            step(talk)
        talk.hold()

    return FakeQmp(script)


def in_background(call: Callable[[], Any], meanwhile: Callable[[], Any], *, after_s: float = 0.2) -> Any:
    """``call()`` here, and ``meanwhile()`` in another thread a little later."""
    timer = threading.Timer(after_s, meanwhile)
    timer.start()
    try:
        return call()
    finally:
        timer.join()


# Connecting


def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(MonitorConnectError, match=r"no such socket.*-qmp unix:") as raised:
        Monitor(tmp_path / "none")
    assert raised.value.address == str(tmp_path / "none")
    assert isinstance(raised.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_not_a_socket(tmp_path: Path, kind: str) -> None:
    path = tmp_path
    if kind == "file":
        path = tmp_path / "file"
        path.touch()
    with pytest.raises(MonitorConnectError, match="it is not a socket"):
        Monitor(path)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "s"))
    with pytest.raises(MonitorConnectError, match="nobody listens there"):
        Monitor(tmp_path / "s")


def test_a_datagram_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "s"))
        with pytest.raises(MonitorConnectError, match="wrong type"):
            Monitor(tmp_path / "s")


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(MonitorConnectError, match="longer than the 107 bytes"):
        Monitor(tmp_path / ("x" * 120))


def test_permission_denied(tmp_path: Path) -> None:
    is_root = os.geteuid() == 0
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(private / "s"))
        listener.listen(1)
        if not is_root:
            private.chmod(0)
        code = ("import os; os.setgid(65534); os.setuid(65534)\n" if is_root else "") + (
            "from streamsave.qemu.monitor import Monitor\n"
            "from streamsave.errors import MonitorConnectError\n"
            f"try: Monitor({str(private / 's')!r})\n"
            "except MonitorConnectError as error: print(error)\n"
        )
        # the modules are imported before the rights are dropped: the checkout may be private too
        imports = "import streamsave.qemu.monitor, json, socket\n"
        done = subprocess.run([sys.executable, "-c", imports + code], capture_output=True, text=True, timeout=30)
        private.chmod(0o700)
    assert "permission denied; run as root" in done.stdout, done


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak QMP"),
        (b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ", "for people"),
        (b'{"hello": 1}\n', "does not speak QMP"),
        (b"[1]\n", "does not speak QMP"),
        (b"{" + b"x" * 5000, "does not speak QMP"),
        (b"\xff\x00\xfe", "does not speak QMP"),
    ],
)
def test_something_else_listens(data: bytes, what: str) -> None:
    def script(talk: Talk) -> None:
        talk.raw(data)
        talk.hold()

    with FakeQmp(script) as address, pytest.raises(MonitorConnectError, match=what):
        Monitor(address)


def test_no_memory_is_left_for_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is where most is loaded: what fails there is told to whoever waits, and to nobody else."""

    def load(name: str, *rest: Any) -> Any:
        if name == "asyncio" and threading.current_thread().name == "streamsave-qmp":
            raise MemoryError
        return real(name, *rest)

    def script(talk: Talk) -> None:
        talk.greet()
        talk.hold()

    real = builtins.__import__
    with FakeQmp(script) as address, monkeypatch.context() as patch:
        patch.setattr("builtins.__import__", load)
        with pytest.raises(ResourceError, match="not enough memory"):
            Monitor(address)


def test_half_a_greeting() -> None:
    def script(talk: Talk) -> None:
        talk.raw(b'{"QMP": {')
        talk.hold()

    with FakeQmp(script) as address, pytest.raises(MonitorConnectError, match="does not speak QMP"):
        Monitor(address, greeting_s=0.3)


def test_a_greeting_in_pieces() -> None:
    def script(talk: Talk) -> None:
        talk.raw(b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2,')
        time.sleep(0.2)
        talk.raw(b' "micro": 0}, "package": ""}, "capabilities": []}}\r\n')
        talk.answer("qmp_capabilities", {})
        talk.answer("query-name", {"name": "x"})

    with FakeQmp(script) as address, Monitor(address) as monitor:
        assert monitor.execute("query-name") == {"name": "x"}


def test_it_closes_at_once() -> None:
    with FakeQmp(lambda talk: None) as address, pytest.raises(MonitorConnectError, match="closes the connection at once"):
        Monitor(address)


def test_it_never_greets() -> None:
    began = time.monotonic()
    with FakeQmp(Talk.hold) as address, pytest.raises(MonitorBusyError, match="another client holds the monitor"):
        Monitor(address, greeting_s=0.4)
    assert 0.3 < time.monotonic() - began < 3


def test_the_queue_of_waiting_clients_is_full() -> None:
    with FakeQmp(Talk.hold, backlog=0) as address:
        waiting = []
        try:
            for _ in range(3):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                waiting.append(client)
                try:
                    client.connect(address)
                except BlockingIOError:
                    break
            with pytest.raises(MonitorBusyError, match="another client holds the monitor"):
                Monitor(address, greeting_s=0.4)
        finally:
            for client in waiting:
                client.close()


def test_it_greets_and_answers_nothing() -> None:
    def script(talk: Talk) -> None:
        talk.raw(b'{"QMP": {"version": {}, "capabilities": []}}\n')
        talk.hold()

    with FakeQmp(script) as address, pytest.raises(MonitorBusyError, match="greets but does not answer"):
        Monitor(address, greeting_s=0.3)


def test_it_breaks_in_the_negotiation() -> None:
    def script(talk: Talk) -> None:
        talk.raw(b'{"QMP": {"version": {}, "capabilities": []}}\n')
        talk.read()

    with FakeQmp(script) as address, pytest.raises(MonitorConnectError, match="the conversation broke"):
        Monitor(address)


def test_an_interrupted_start_leaves_nothing() -> None:
    with FakeQmp(Talk.hold) as address, pytest.raises(KeyboardInterrupt):
        in_background(lambda: Monitor(address, greeting_s=20), lambda: os.kill(os.getpid(), signal.SIGINT))


# Calls


def test_arguments_are_passed_as_they_are() -> None:
    def check(talk: Talk) -> None:
        talk.answer("migrate-set-parameters", {})
        assert talk.seen[-1]["arguments"] == {"max-bandwidth": 0}

    with served(check) as address, Monitor(address) as monitor:
        assert monitor.execute("migrate-set-parameters", {"max-bandwidth": 0}) == {}


def test_a_refusal_has_qemus_words() -> None:
    with served(lambda talk: talk.refuse("cont", "no way", "DeviceNotFound")) as address, Monitor(address) as monitor:
        with pytest.raises(CommandError, match="refused cont: no way") as raised:
            monitor.execute("cont")
        assert (raised.value.command, raised.value.error_class, raised.value.description) == (
            "cont",
            "DeviceNotFound",
            "no way",
        )


def test_arguments_that_are_no_json_harm_nobody() -> None:
    with served(lambda talk: talk.answer("query-name", {})) as address, Monitor(address) as monitor:
        with pytest.raises(TypeError):
            monitor.execute("x", {"a": object()})
        assert monitor.execute("query-name") == {}


def test_the_connection_breaks_during_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.read()

    with FakeQmp(script) as address, Monitor(address) as monitor:
        with pytest.raises(MonitorLostError, match="migrate"):
            monitor.execute("migrate", {"uri": "x"})
        with pytest.raises(MonitorLostError, match="query-status"):
            monitor.execute("query-status")
        with pytest.raises(MonitorLostError):
            monitor.wait_event(lambda event: True)
        with pytest.raises(MonitorLostError):
            monitor.fileno()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [StateError("disconnecting", Runstate.DISCONNECTING, Runstate.RUNNING), BrokenPipeError()])
def test_the_connection_breaks_before_a_descriptor_is_passed(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.hold()

    def broken(*_: object) -> None:
        raise error

    with FakeQmp(script) as address, Monitor(address) as monitor, open(os.devnull) as file:
        monkeypatch.setattr(QMPClient, "send_fd_scm", broken)
        with pytest.raises(MonitorLostError, match="broke before or during getfd"):
            monitor.send_fd(file.fileno(), "fd")


def test_no_memory_for_what_qemu_says(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is lost with it; asyncio's own words, with a traceback, are for nobody."""

    def script(talk: Talk) -> None:
        talk.greet()
        request = talk.read()
        monkeypatch.setattr("asyncio.selector_events._SelectorTransport.max_size", 1 << 62)
        talk.send({"id": request["id"], "return": {}})
        talk.hold()

    with FakeQmp(script) as address, Monitor(address) as monitor, pytest.raises(MonitorLostError, match="query-status"):
        monitor.execute("query-status")
    assert capfd.readouterr() == ("", "")


def test_nonsense_during_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    def script(talk: Talk) -> None:
        talk.greet()
        talk.read()
        talk.raw(b"}} nonsense\n")
        talk.hold()

    with FakeQmp(script) as address, Monitor(address) as monitor, pytest.raises(MonitorLostError, match="query-status"):
        monitor.execute("query-status")
    assert capfd.readouterr() == ("", "")


def test_a_malformed_answer_is_a_monitor_error() -> None:
    def step(talk: Talk) -> None:
        talk.send({"id": talk.read()["id"], "error": "not an object"})

    with served(step) as address, Monitor(address) as monitor, pytest.raises(MonitorError):
        monitor.execute("query-status")


def test_no_answer_in_time_and_the_monitor_goes_on() -> None:
    def late(talk: Talk) -> None:
        first = talk.read()
        talk.answer("query-name", {"name": "x"})
        talk.send({"return": {}, "id": first["id"]})
        talk.answer("query-name", {"name": "y"})

    with served(late) as address, Monitor(address) as monitor:
        tasks = len(asyncio.all_tasks(monitor._loop))
        with pytest.raises(MonitorError, match=r"did not answer query-status within 0\.2 s"):
            monitor.execute("query-status", timeout_s=0.2)
        until(lambda: len(asyncio.all_tasks(monitor._loop)) == tasks, what="the end of the call's task")
        assert monitor.execute("query-name") == {"name": "x"}
        assert monitor.execute("query-name") == {"name": "y"}


def test_a_keyboard_interrupt_leaves_a_monitor_that_works() -> None:
    def late(talk: Talk) -> None:
        talk.read()
        talk.answer("cont", {})

    with served(late) as address, Monitor(address) as monitor:
        tasks = len(asyncio.all_tasks(monitor._loop))
        with pytest.raises(KeyboardInterrupt):
            in_background(lambda: monitor.execute("stop"), lambda: os.kill(os.getpid(), signal.SIGINT))
        until(lambda: len(asyncio.all_tasks(monitor._loop)) == tasks, what="the end of the call's task")
        assert monitor.execute("cont") == {}


def test_no_memory_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU did not hang up: it was our own reader that could not go on. What was done about the loss is told as well."""

    async def starve(_client: QMPClient, _message: object) -> None:
        raise MemoryError

    def ask(address: str) -> None:
        with Monitor(address) as monitor:
            monkeypatch.setattr(QMPClient, "_on_message", starve)
            try:
                monitor.execute("query-status")
            except MonitorLostError as error:
                error.add_note("what was done")
                raise

    refusal = pytest.raises(ResourceError, match="not enough memory to talk to QEMU")
    with served(lambda talk: talk.answer("query-status", {"status": "running"})) as address, refusal as caught:
        ask(address)
    assert caught.value.__notes__ == ["what was done"]


def test_interrupt_ends_what_waits_and_nothing_later() -> None:
    def late(talk: Talk) -> None:
        talk.read()
        talk.answer("cont", {})

    with served(late) as address, Monitor(address) as monitor:
        monitor.interrupt(Aborted("nobody waits, so nobody is hit"))
        with pytest.raises(Aborted, match="enough"):
            in_background(lambda: monitor.execute("stop"), lambda: monitor.interrupt(Aborted("enough")))
        with pytest.raises(Aborted, match="again"):
            in_background(lambda: monitor.wait_event(lambda event: True), lambda: monitor.interrupt(Aborted("again")))
        assert monitor.execute("cont") == {}


def test_uninterrupted() -> None:
    def late(talk: Talk) -> None:
        message = talk.read()
        time.sleep(0.4)
        talk.send({"return": {}, "id": message["id"]})

    with served(late) as address, Monitor(address) as monitor, monitor.uninterrupted():
        assert in_background(lambda: monitor.execute("cont"), lambda: monitor.interrupt(Aborted("x"))) == {}


def test_close_wakes_who_waits() -> None:
    with served() as address:
        monitor = Monitor(address)
        with pytest.raises(MonitorLostError, match="was closed"):
            in_background(lambda: monitor.execute("stop"), monitor.close)
        monitor.close()
        with pytest.raises(MonitorLostError, match="was closed"):
            monitor.execute("stop")


# Events


def test_events_wait_for_who_wants_them() -> None:
    def events(talk: Talk) -> None:
        for status in ("setup", "active", "completed"):
            talk.event("MIGRATION", status=status)
        talk.event("STOP")
        talk.answer("query-name", {})

    with served(events) as address, Monitor(address) as monitor:
        monitor.execute("query-name")
        stop = monitor.wait_event(lambda event: event["event"] == "STOP", timeout_s=5)
        assert stop is not None
        first = monitor.wait_event(lambda event: event["event"] == "MIGRATION", timeout_s=5)
        assert first is not None
        assert first["data"] == {"status": "setup"}
        done = monitor.wait_event(lambda event: event.get("data", {}).get("status") == "completed", timeout_s=5)
        assert done is not None
        assert monitor.wait_event(lambda event: event["event"] == "STOP", timeout_s=0.1) is None


def test_an_event_that_arrives_later() -> None:
    def events(talk: Talk) -> None:
        time.sleep(0.3)
        talk.event("RESUME")

    with served(events) as address, Monitor(address) as monitor:
        event = monitor.wait_event(lambda event: event["event"] == "RESUME", timeout_s=5)
        assert event is not None


def test_what_the_predicate_raises_comes_back() -> None:
    with served(lambda talk: talk.event("STOP"), lambda talk: talk.answer("x", 1)) as address, Monitor(address) as monitor:
        with pytest.raises(ZeroDivisionError):
            monitor.wait_event(lambda event: bool(1 // 0), timeout_s=5)
        assert monitor.execute("x") == 1


# Against a real QEMU


@pytest.mark.qemu
def test_many_threads_call(qemu: RunningQemu) -> None:
    with Monitor(qemu.monitor) as monitor, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: monitor.execute("query-status")["status"], range(200)))
        assert answers == ["running"] * 200
        assert monitor.peer_pid == qemu.pid
        assert os.readlink(f"/proc/self/fd/{monitor.fileno()}").startswith("socket:")


@pytest.mark.qemu
def test_a_large_answer(qemu: RunningQemu) -> None:
    with Monitor(qemu.monitor) as monitor:
        assert len(monitor.execute("query-qmp-schema")) > 500


@pytest.mark.qemu
def test_the_monitor_is_held_and_free_again(qemu: RunningQemu) -> None:
    with Monitor(qemu.monitor) as first:
        with pytest.raises(MonitorBusyError):
            Monitor(qemu.monitor, greeting_s=0.5)
        assert first.execute("query-status")["running"] is True
    with Monitor(qemu.monitor) as second:
        assert second.execute("query-status")["running"] is True


@pytest.mark.qemu
def test_descriptors_arrive(qemu: RunningQemu) -> None:
    with Monitor(qemu.monitor) as monitor:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            names = [f"fd-{number}" for number in range(20)]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda name: monitor.send_fd(theirs.fileno(), name), names))
            for name in names:
                monitor.execute("closefd", {"fdname": name})
            with pytest.raises(CommandError):
                monitor.execute("closefd", {"fdname": names[0]})


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "streamsave-qmp":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with served() as address, pytest.raises(ResourceError, match="raise the limit on processes"):
        Monitor(address)


@pytest.mark.qemu
def test_a_handed_over_socket(qemu: RunningQemu) -> None:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(qemu.monitor))
    with Monitor(connection) as monitor:
        assert monitor.address == str(qemu.monitor)
        assert monitor.execute("query-status")["running"] is True
    assert connection.fileno() == -1


@pytest.mark.qemu
def test_qemu_dies(capfd: pytest.CaptureFixture[str]) -> None:
    with RunningQemu(FIRMWARE) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            with pytest.raises(MonitorLostError):
                in_background(lambda: monitor.wait_event(lambda event: event["event"] == "NEVER"), qemu.kill)
            with pytest.raises(MonitorLostError, match="QEMU ended, or hung up"):
                monitor.execute("query-status")
    assert capfd.readouterr() == ("", "")


def test_asyncio_is_imported_with_the_first_monitor() -> None:
    code = "import sys, streamsave.qemu.migration; print('asyncio' in sys.modules, 'qemu.qmp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "False False\n"
