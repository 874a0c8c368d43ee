"""QEMUs that we start: private monitor, stderr passed on, and nothing left of those that do not come up."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from streamsave.cancel import Cancellation
from streamsave.errors import Aborted, ProcessError, ResourceError, UsageError
from streamsave.qemu.migration import MigrationSettings, start_incoming, start_outgoing, wait_incoming, wait_outgoing
from streamsave.qemu.monitor import Monitor
from streamsave.qemu.process import QemuProcess, added_options, check_command, without_start_options

from ..kit.qemu import RunningQemu
from .machines import FIRMWARE, drained

MACHINE = (
    "qemu-system-x86_64",
    "-M",
    "pc",
    "-m",
    "64",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-accel",
    "tcg",
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A path for a program of the test's own."""
    path = tmp_path / "pretender"
    path.touch()
    path.chmod(0o755)
    return path


def write(path: Path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{text}")
    return str(path)


# Commands


@pytest.mark.parametrize("option", ["-incoming", "--incoming", "-daemonize", "--daemonize", "-loadvm", "-preconfig"])
def test_options_that_fight_a_restore_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} cannot be used in a restore: .*leave it out"):
        check_command(["qemu-system-x86_64", "-m", "64", option, "tcp:0:4444"])
    with pytest.raises(UsageError):
        QemuProcess(["/bin/false", option])


def test_an_empty_command() -> None:
    with pytest.raises(UsageError, match="command is empty"):
        QemuProcess([])


@pytest.mark.parametrize("harmless", ["-S", "incoming", "-name", "-incoming-x", "file=daemonize"])
def test_other_options_are_not(harmless: str) -> None:
    check_command(["qemu-system-x86_64", harmless])


def test_a_command_is_freed_of_how_it_was_started() -> None:
    plain = ("qemu", "-S", "-m", "64", "-name", "x")
    assert without_start_options(plain) == plain
    assert without_start_options((*plain, *added_options(7))) == plain
    assert without_start_options(("qemu", "-incoming", "defer", "-daemonize", "-m", "64")) == ("qemu", "-m", "64")
    assert without_start_options(("qemu", "--loadvm", "x", "-preconfig", "-m", "64", "--incoming")) == ("qemu", "-m", "64")
    check_command(without_start_options((*plain, *added_options(123), "-incoming", "tcp:0:1")))


# Starting and ending


@pytest.mark.qemu
def test_it_waits_for_a_stream_on_a_private_monitor(capfd: pytest.CaptureFixture[str]) -> None:
    process = QemuProcess(MACHINE)
    with process.open_monitor() as monitor:
        assert monitor.execute("query-status")["status"] == "inmigrate"
        assert monitor.peer_pid is None, "the socketpair is ours, so the kernel would name us"
    assert process.wait(0.05) is None
    assert process.terminate() == 0
    assert process.terminate() == 0
    assert process.wait() == 0
    process.send_signal(signal.SIGTERM)
    assert "terminating on signal 15" in process.stderr_tail()
    assert "terminating on signal 15" in capfd.readouterr().err, "what QEMU says is passed on"


@pytest.mark.qemu
def test_a_guest_moves_into_it() -> None:
    with RunningQemu(FIRMWARE) as qemu:
        qemu.qmp().close()
        with Monitor(qemu.monitor) as monitor:
            MigrationSettings(monitor).neutralise()
            monitor.execute("stop")
            with start_outgoing(monitor, "fd") as sock:
                stream = drained(sock.recv)
            wait_outgoing(monitor, 10)
        command = qemu.command
        qemu.kill()
        process = QemuProcess(command)
        with process.open_monitor() as monitor:
            with start_incoming(monitor, "fd") as sock:
                sock.sendall(stream)
            wait_incoming(monitor, 10)
            monitor.execute("cont")
            assert monitor.execute("query-status")["running"] is True
        with qemu.qmp() as own:  # the -qmp of the user's command
            assert own.status() == "running"
            own.execute("quit")
        assert process.wait() == 0


@pytest.mark.qemu
def test_it_runs_where_it_is_told_to(tmp_path: Path) -> None:
    process = QemuProcess([*MACHINE, "-serial", "file:here"], working_directory=str(tmp_path))
    process.open_monitor().close()
    process.terminate()
    assert (tmp_path / "here").exists()


@pytest.mark.qemu
@pytest.mark.parametrize("what", [["-device", "no-such-device"], ["-no-such-option"], ["-drive", "file=/does/not/exist"]])
def test_a_wrong_option_is_told_in_qemus_words(what: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProcessError, match=r"qemu-system-x86_64 ended with status 1.*it says: qemu-system") as raised:
        QemuProcess([*MACHINE, *what]).open_monitor()
    assert what[-1].removeprefix("file=").lstrip("-") in raised.value.stderr
    assert raised.value.stderr in capfd.readouterr().err


@pytest.mark.qemu
def test_it_dies_of_a_stream_and_its_last_words_stay() -> None:
    process = QemuProcess(MACHINE)
    with process.open_monitor() as monitor, start_incoming(monitor, "fd") as sock:
        sock.sendall(b"not a stream" * 10)
    assert process.wait(10) == 1
    assert "Not a migration stream" in process.stderr_tail()


def test_there_is_no_such_program() -> None:
    with pytest.raises(ProcessError, match="there is no program no-such-qemu; install QEMU") as raised:
        QemuProcess(["no-such-qemu"])
    assert isinstance(raised.value.__cause__, FileNotFoundError)


def test_it_is_not_executable(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(ProcessError, match="may not be executed"):
        QemuProcess([str(tmp_path / "data")])


def test_it_is_no_program(script: Path) -> None:
    script.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(ProcessError, match="cannot start"):
        QemuProcess([str(script)])


def test_the_working_directory_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="does that directory still exist"):
        QemuProcess(["/bin/true"], working_directory=str(tmp_path / "none"))


def test_what_a_command_says_that_ends_at_once_is_not_lost(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However late we come to watch it: it is not reaped before."""
    pidfd_open = os.pidfd_open

    def come_late(pid: int) -> int:
        time.sleep(0.5)
        return pidfd_open(pid)

    monkeypatch.setattr(os, "pidfd_open", come_late)
    with pytest.raises(ProcessError, match="no luck today"):
        QemuProcess([write(script, "sys.stderr.write('no luck today\\n'); sys.exit(3)")])


def test_a_process_that_cannot_be_watched_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """``_nothing_left`` sees it."""

    def refuse(_pid: int) -> int:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(ProcessError, match=r"cannot start sleep: .*Too many open files"):
        QemuProcess(["sleep", "60"])


def test_no_thread_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was started yet; the sockets made for it are gone: ``_nothing_left`` sees it."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ResourceError, match="cannot start a thread for QEMU's messages"):
        QemuProcess(["sleep", "60"])


def test_no_descriptor_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(socket, "socketpair", refuse)
    with pytest.raises(ResourceError, match="no descriptor is left for QEMU's monitor"):
        QemuProcess(["sleep", "60"])


def test_it_ends_before_it_greets(script: Path) -> None:
    command = write(script, "sys.stderr.write('no luck today\\n'); sys.exit(3)")
    with pytest.raises(ProcessError, match=r"ended with status 3.*it says: no luck today") as raised:
        QemuProcess([command])
    assert raised.value.stderr == "no luck today\n"


def test_it_never_greets(script: Path) -> None:
    command = write(script, "time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(ProcessError, match="did not answer in time"):
        QemuProcess([command], start_s=0.5)
    assert time.monotonic() - began < 5


def test_it_crashes(script: Path) -> None:
    with pytest.raises(ProcessError, match="was killed by signal 11"):
        QemuProcess([write(script, "os.kill(os.getpid(), signal.SIGSEGV)")])


def test_a_program_in_between_closes_the_monitor(script: Path) -> None:
    with pytest.raises(ProcessError, match="closed its monitor but did not end"):
        QemuProcess([write(script, "os.closerange(3, 50); time.sleep(60)")])


def test_only_the_end_of_much_talk_is_kept(script: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = write(script, "sys.stderr.write('x' * 100_000 + 'the end')")
    with pytest.raises(ProcessError) as raised:
        QemuProcess([command])
    assert len(raised.value.stderr) == 8 * 1024
    assert raised.value.stderr.endswith("the end")
    assert len(capfd.readouterr().err) == 100_007


def test_a_helper_that_keeps_everything_open_is_not_waited_for(script: Path, tmp_path: Path) -> None:
    helper = tmp_path / "pid"
    command = write(
        script,
        f"pid = os.fork()\nif pid == 0: time.sleep(30)\nelse: open({str(helper)!r}, 'w').write(str(pid)); sys.exit(2)",
    )
    began = time.monotonic()
    try:  # it has the monitor's other end too
        with pytest.raises(ProcessError, match="ended with status 2"):
            QemuProcess([command])
        assert time.monotonic() - began < 5
    finally:
        os.kill(int(helper.read_text()), signal.SIGKILL)


@pytest.mark.timeout(20)
def test_one_that_ignores_sigterm_is_killed(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsave.qemu.process.TERMINATE_S", 0.3)
    command = write(script, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    with pytest.raises(ProcessError):
        QemuProcess([command], start_s=0.5)


def test_a_keyboard_interrupt_leaves_no_orphan(script: Path) -> None:
    command = write(script, "time.sleep(60)")
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        QemuProcess([command])
    timer.join()


def test_cancelled_while_it_starts(script: Path) -> None:
    command = write(script, "time.sleep(60)")
    cancel = Cancellation()
    timer = threading.Timer(0.3, cancel.cancel, ("enough",))
    timer.start()
    with pytest.raises(Aborted, match="enough"):
        QemuProcess([command], cancel=cancel)
    timer.join()


@pytest.mark.qemu
def test_cancelled_between_greeting_and_machine() -> None:
    cancel = Cancellation()
    process = QemuProcess(MACHINE, cancel=cancel)
    cancel.cancel("enough")
    with pytest.raises(Aborted, match="enough"):
        process.open_monitor()
    assert process.wait(5) in (0, -signal.SIGTERM), "a QEMU that young does not handle the signal yet"


@pytest.mark.qemu
def test_closing_our_stderr_does_not_hurt_qemu() -> None:
    reader, writer = os.pipe()
    saved = os.dup(2)
    try:
        os.dup2(writer, 2)
        os.close(writer)
        os.close(reader)
        process = QemuProcess(MACHINE)
        process.open_monitor().close()
        process.terminate()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert "terminating" in process.stderr_tail()


def test_it_inherits_its_monitor_and_no_other_socket(script: Path, tmp_path: Path) -> None:
    out = tmp_path / "sockets"
    report = f"""
found = []
for fd in range(3, 50):
    try: found += [str(fd)] * os.readlink(f"/proc/self/fd/{{fd}}").startswith("socket:")
    except FileNotFoundError: pass
open({str(out)!r}, "w").write(f"{{' '.join(found)}}|{{sys.argv[5]}}")
"""
    with socket.socket() as other:
        other.set_inheritable(True)
        with pytest.raises(ProcessError):
            QemuProcess([write(script, report)])
    fds, chardev = out.read_text().split("|")
    assert chardev == f"socket,id=streamsave,fd={fds}"
