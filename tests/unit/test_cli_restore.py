import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.cli.main import main
from streamsave.cli.restore import split_command
from streamsave.errors import CorruptImageError, IncomingError
from streamsave.format.description import GuestDescription, SavedCommand, encode_description
from streamsave.operations.reports import RestoreReport
from streamsave.options import RestoreOptions
from streamsave.units import MiB


class FakeProcess:
    """A QEMU that ends when it gets a signal, or at once with ``status``."""

    pid = 4711

    def __init__(self, status: int | None) -> None:
        self.status = status
        self._ended = threading.Event()

    def send_signal(self, signum: int) -> None:
        self.status = -signum
        self._ended.set()

    def wait(self, timeout_s: float | None = None) -> int | None:
        assert timeout_s is None
        if self.status is None:
            os.kill(os.getpid(), signal.SIGTERM)
            assert self._ended.wait(10)
        return self.status


class FakeRestore:
    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.error: Exception | None = None
        self.status: int | None = 0
        self.changes: dict[str, Any] = {}

    def __call__(self, image: Path, *, progress: Any, cancel: Cancellation, **arguments: Any) -> RestoreReport:
        self.calls.append(SimpleNamespace(image=image, directory=Path.cwd(), **arguments))
        if self.error is not None:
            raise self.error
        process: Any = FakeProcess(self.status) if arguments.get("command") else None
        stream: Any = SimpleNamespace(machine="pc-q35-7.2")
        values: dict[str, Any] = {
            "path": image, "format": "zstd", "threads": 4, "parallel": True, "image_size": 131 * MiB,
            "stream_size": 533 * MiB, "running": True, "total_s": 0.8, "stage_s": {"stream": 0.5}, "cpu_s": 1.5,
            "stream": stream, "process": process,
        }  # fmt: skip
        return RestoreReport(**(values | self.changes))

    @property
    def call(self) -> SimpleNamespace:
        return self.calls[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRestore:
    fake = FakeRestore()
    monkeypatch.setitem(sys.modules, "streamsave.operations.restore", SimpleNamespace(restore=fake))
    return fake


SUMMARY = "restored guest.save: 533 MiB in 800 ms (zstd, 4 threads); the guest runs\n"


def test_into_a_qemu_that_waits(fake: FakeRestore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "guest.save", "--qmp", "vm.qmp"]) == 0
    assert (fake.call.image, fake.call.monitor, fake.call.command) == (Path("guest.save"), "vm.qmp", None)
    assert fake.call.options == RestoreOptions()
    assert capsys.readouterr() == (SUMMARY, "")


@pytest.fixture
def fake_domain(monkeypatch: pytest.MonkeyPatch) -> FakeRestore:
    fake_domain = FakeRestore()
    monkeypatch.setitem(sys.modules, "streamsave.libvirt.restore", SimpleNamespace(restore_domain=fake_domain))
    return fake_domain


DOMAIN = ["restore", "web.save", "--connect", "qemu:///system"]


def test_into_a_domain(fake_domain: FakeRestore, tmp_path: Path) -> None:
    assert main(DOMAIN) == 0
    assert main([*DOMAIN, "--paused", "--reset-nvram", "--xml", str(_file(tmp_path / "web.xml", b"<domain/>"))]) == 0
    plain, full = fake_domain.calls
    assert (plain.image, plain.connect, plain.xml, plain.reset_nvram) == (Path("web.save"), "qemu:///system", None, False)
    assert (full.xml, full.reset_nvram, full.options.state) == ("<domain/>", True, "paused")


@pytest.mark.parametrize(
    ("content", "status", "complaint"),
    [
        (None, 41, "web.xml: the domain XML cannot be read: No such file or directory"),
        (b"\xff\xfe", 2, "web.xml: no domain XML, for it is not UTF-8"),
        (bytes(16 * MiB + 1), 2, "web.xml: larger than 16.0 MiB: this is no domain XML"),
    ],
)
def test_an_xml_that_is_none(
    fake_domain: FakeRestore, tmp_path: Path, content: bytes | None, status: int, complaint: str, capsys: Any
) -> None:
    path = tmp_path / "web.xml" if content is None else _file(tmp_path / "web.xml", content)
    assert main([*DOMAIN, "--xml", str(path)]) == status
    assert complaint in capsys.readouterr().err
    assert fake_domain.calls == []


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


INTO = ["restore", "guest.save", "--qmp", "vm.qmp"]


def test_every_option_arrives(fake: FakeRestore) -> None:
    assert main([*INTO, "--paused", "--threads", "2", "--transport", "unix", "--quiet", "--timeout", "2.5"]) == 0
    assert fake.call.options == RestoreOptions(threads=2, state="paused", transport="unix", timeout_s=2.5)
    assert main(["restore", "--running", "--qmp", "vm.qmp", "guest.save", "--quiet"]) == 0
    assert fake.call.options.state == "running"


@pytest.mark.parametrize(("text", "size"), [("512M", 512 * MiB), ("1g", 1024 * MiB), ("2048k", 2 * MiB), ("4096", 4096)])
def test_max_window(fake: FakeRestore, text: str, size: int) -> None:
    assert main([*INTO, "--max-window", text]) == 0
    assert fake.call.options == RestoreOptions(max_window=size)


@pytest.mark.parametrize("text", ["", "M", "-1", "1T", "1.5G", "3G", "1000"])
def test_a_max_window_that_cannot_be(fake: FakeRestore, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(main, [*INTO, f"--max-window={text}"]) == 2
    assert "window" in capsys.readouterr().err
    assert not fake.calls


def status_of(call: Callable[[list[str]], int], argv: list[str]) -> int:
    """Also if the argument parser ends the process."""
    try:
        return call(argv)
    except SystemExit as end:
        return int(end.code or 0)


def test_what_the_summary_says(fake: FakeRestore, capsys: pytest.CaptureFixture[str]) -> None:
    fake.changes = {"parallel": False, "running": False, "warnings": ("a warning",)}
    assert main(["restore", "guest.save", "--qmp", "vm.qmp"]) == 0
    out, err = capsys.readouterr()
    assert out == "restored guest.save: 533 MiB in 800 ms (zstd, one thread); the guest is paused\n"
    assert err == "streamsave: warning: a warning\n"


QEMU = ["qemu-system-x86_64", "-m", "512", "--json", "--", "-yes"]


def test_as_the_qemu_that_follows(fake: FakeRestore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "guest.save", "--paused", "--", *QEMU]) == 0
    assert (fake.call.monitor, fake.call.command) == (None, QEMU)
    assert capsys.readouterr() == ("", SUMMARY)  # standard output is QEMU's


@pytest.mark.parametrize(("status", "ours"), [(0, 0), (3, 3), (-9, 137), (-15, 143)])
def test_once_the_guest_runs_the_status_is_qemus(status: int, ours: int, fake: FakeRestore) -> None:
    fake.status = status
    assert main(["restore", "guest.save", "--", *QEMU]) == ours


def test_once_the_guest_runs_signals_are_qemus(fake: FakeRestore) -> None:
    fake.status = None
    before = signal.getsignal(signal.SIGTERM)
    assert main(["restore", "guest.save", "--", *QEMU]) == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_json_in_the_command_form(fake: FakeRestore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "guest.save", "--json", "--", *QEMU]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "event": "restored", "path": "guest.save", "format": "zstd", "threads": 4, "parallel": True,
        "image_size": 131 * MiB, "stream_size": 533 * MiB, "running": True, "total_s": 0.8, "stage_s": {"stream": 0.5},
        "cpu_s": 1.5, "rate": 1066.0, "machine": "pc-q35-7.2", "pid": 4711, "warnings": [],
    }  # fmt: skip


def test_a_report_that_cannot_be_written_leaves_no_guest_alone(
    fake: FakeRestore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.status = 7
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["restore", "guest.save", "--json", "--", *QEMU]) == 7
    assert "warning: cannot write to standard output" in capsys.readouterr().err


def test_before_the_guest_runs_the_status_is_ours(fake: FakeRestore, capsys: pytest.CaptureFixture[str]) -> None:
    fake.error = IncomingError("QEMU did not load the stream: it says:\nqemu: Unknown ramblock\nqemu: load failed\n")
    assert main(["restore", "guest.save", "--", *QEMU]) == 37
    assert capsys.readouterr().err == (
        "streamsave: error: QEMU did not load the stream: it says:\n"
        "    qemu: Unknown ramblock\n    qemu: load failed\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "where to? give one of --qmp SOCKET, --connect URI, --use-saved-command, or -- and a QEMU command line"),
        (["--qmp", "s", "--use-saved-command"], "more than one place to restore to: give one of"),
        (["--qmp", "s", "--", "qemu-system-x86_64"], "more than one place to restore to: give one of"),
        (["--use-saved-command", "--", "qemu-system-x86_64"], "more than one place to restore to: give one of"),
        (["--"], "nothing follows --"),
        (["--qmp", "s", "--yes"], "--yes goes with --use-saved-command only"),
        (["--qmp", "s", "--connect", "qemu:///system"], "more than one place to restore to: give one of"),
        (["--qmp", "s", "--xml", "web.xml"], "--xml goes with --connect only"),
        (["--qmp", "s", "--reset-nvram"], "--reset-nvram goes with --connect only"),
        (["--connect", "qemu:///system", "--transport", "fd"], "--transport does not go with --connect"),
        (["--qmp", "s", "--threads", "999"], "threads must be 1 to 256, not 999"),
    ],
)
def test_usage(arguments: list[str], message: str, fake: FakeRestore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "guest.save", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert fake.calls == []


def test_only_restore_has_a_command_line() -> None:
    assert split_command(["restore", "x", "--", "a", "--", "b"]) == (["restore", "x"], ["a", "--", "b"])
    assert split_command(["restore", "x", "--"]) == (["restore", "x"], [])
    assert split_command(["restore", "x"]) == (["restore", "x"], None)
    assert split_command(["info", "--", "-x"]) == (["info", "--", "-x"], None)


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ARGUMENTS = ("qemu-system-x86_64", "-name", "it's \x1b[2J", "-m", "2G")


def description(command: SavedCommand | None) -> str:
    return encode_description(GuestDescription("tiny", "", 512 * MiB, 2, "pc-q35-7.2", "x86_64", "kvm", command))


@pytest.fixture
def saved_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """An image whose description holds this command."""
    home = tmp_path / "home"
    home.mkdir()
    xml = description(SavedCommand(ARGUMENTS, str(home)))
    image = SimpleNamespace(path=tmp_path / "guest.save", metadata=SimpleNamespace(xml=xml))
    monkeypatch.setitem(sys.modules, "streamsave.operations.image", SimpleNamespace(read_info=lambda path: image))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return image


def test_the_saved_command_is_shown_and_run_where_it_ran(
    fake: FakeRestore, saved_command: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["restore", "guest.save", "--use-saved-command", "--yes", "--quiet"]) == 0
    assert fake.call.command == ARGUMENTS
    assert fake.call.directory == tmp_path / "home"
    assert fake.call.image == tmp_path / "guest.save"  # given relative to where we were
    assert capsys.readouterr().err == (
        f"streamsave: {tmp_path}/guest.save was saved by this command:\n"
        "    qemu-system-x86_64 -name $'it\\'s \\x1b[2J' -m 2G\n"
        f"    in {tmp_path}/home\n"
    )


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("Yes\n", 0), ("n\n", 130), ("\n", 130), ("", 130)])
def test_on_a_terminal_it_asks(
    answer: str, status: int, fake: FakeRestore, saved_command: SimpleNamespace, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdin", FakeTerminal(answer))
    assert main(["restore", "guest.save", "--use-saved-command"]) == status
    assert len(fake.calls) == (status == 0)
    err = capsys.readouterr().err
    assert err.index("was saved by this command") < err.index("Run it? [y/N]")
    assert ("not agreed to: nothing was run" in err) == (status == 130)


def test_without_a_terminal_nobody_agrees(
    fake: FakeRestore, saved_command: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["restore", "guest.save", "--use-saved-command"]) == 2
    assert "nobody is there to agree to that command: look at it, then add --yes" in capsys.readouterr().err
    assert fake.calls == []


def test_an_image_without_a_command(
    fake: FakeRestore, saved_command: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for xml in ("<domain/>", description(None)):
        saved_command.metadata.xml = xml
        assert main(["restore", "guest.save", "--use-saved-command", "--yes"]) == 2
        assert "guest.save carries no QEMU command line: give one after --" in capsys.readouterr().err
    assert fake.calls == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("</domain>", "", "is not well-formed"), ('encoding="base64">', 'encoding="base64">?', "base64")],
)
def test_a_damaged_command_is_told_from_none(
    old: str, new: str, message: str, fake: FakeRestore, saved_command: SimpleNamespace, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    assert old in saved_command.metadata.xml
    saved_command.metadata.xml = saved_command.metadata.xml.replace(old, new)
    assert main(["restore", "guest.save", "--use-saved-command", "--yes"]) == CorruptImageError.exit_status
    err = capsys.readouterr().err
    assert f"streamsave: error: {tmp_path}/guest.save: the " in err
    assert message in err
    assert "give QEMU's command line after --" in err
    assert fake.calls == []


def test_a_working_directory_that_is_gone(
    fake: FakeRestore, saved_command: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_command.metadata.xml = description(SavedCommand(ARGUMENTS, "/nowhere/at\x1ball"))
    assert main(["restore", "guest.save", "--use-saved-command", "--yes"]) == 38
    assert "/nowhere/at\\x1ball cannot be entered: No such file or directory" in capsys.readouterr().err
    assert fake.calls == []
