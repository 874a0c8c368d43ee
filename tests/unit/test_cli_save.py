import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamsave import config
from streamsave.cancel import Cancellation
from streamsave.cli.main import main
from streamsave.errors import DestinationError, GuestError
from streamsave.format.levels import LevelUse
from streamsave.operations.reports import SaveReport
from streamsave.options import SaveOptions
from streamsave.types import Progress
from streamsave.units import MiB


def save_report(**changes: Any) -> SaveReport:
    ram = (SimpleNamespace(name="pc.ram", size=512 * MiB), SimpleNamespace(name="vga.vram", size=16 * MiB))
    values: dict[str, Any] = {
        "path": Path("guest.save"), "format": "zstd", "level": 3, "threads": 4, "image_size": 131 * MiB,
        "levels": (LevelUse(3, 533, 533 * MiB, 130 * MiB),),
        "payload_size": 130 * MiB, "stream_size": 533 * MiB, "frame_count": 533, "was_running": True, "then": "quit",
        "total_s": 1.93, "stopped_s": 1.85, "stage_s": {"prepare": 0.1, "stream": 1.5}, "cpu_s": 5.0,
        "stream": SimpleNamespace(machine="pc-q35-7.2", ram_blocks=ram, page_count=9, zero_page_count=4),
        "oldest_libvirt": "10.4", "needs_xml": False, "warnings": (),
    }  # fmt: skip
    return SaveReport(**(values | changes))


class FakeSave:
    """Stands in for ``save`` and ``save_domain``: remembers its arguments, reports progress, and does as it is told."""

    def __init__(self) -> None:
        self.report = save_report()
        self.error: Exception | None = None
        self.calls: list[tuple[str, Path, SaveOptions]] = []
        self.kill: int | None = None
        self.connects: list[str | None] = []

    def __call__(
        self,
        monitor: str,
        destination: Path,
        options: SaveOptions,
        *,
        connect: str | None = None,
        progress: Any,
        cancel: Cancellation,
    ) -> Any:
        self.connects.append(connect)
        self.calls.append((monitor, destination, options))
        if progress is not None:
            progress(Progress("stream", 1, 2, 4, 0.25, 0.5, 6.0, 7.0))
        if self.kill is not None:
            os.kill(os.getpid(), self.kill)
            while True:
                cancel.check()
        if self.error is not None:
            raise self.error
        return self.report

    @property
    def options(self) -> SaveOptions:
        return self.calls[-1][2]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSave:
    fake = FakeSave()
    monkeypatch.setitem(sys.modules, "streamsave.operations.save", SimpleNamespace(save=fake))
    monkeypatch.setattr(config, "usual_path", lambda uri: tmp_path / "usual.conf")
    return fake


@pytest.fixture
def fake_domain(fake: FakeSave, monkeypatch: pytest.MonkeyPatch) -> FakeSave:
    fake_domain = FakeSave()
    monkeypatch.setitem(sys.modules, "streamsave.libvirt.save", SimpleNamespace(save_domain=fake_domain))
    return fake_domain


def test_a_domain_is_saved_by_libvirt(fake: FakeSave, fake_domain: FakeSave) -> None:
    assert main(["save", "--domain", "web", "web.save", "--format", "gzip", "--threads", "2"]) == 0
    assert fake_domain.calls == [("web", Path("web.save"), SaveOptions(format="gzip", threads=2))]
    assert main(["save", "--domain", "web", "--connect", "qemu:///session", "web.save"]) == 0
    assert fake_domain.connects == [None, "qemu:///session"]
    assert fake.calls == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--qmp", "s", "--connect", "qemu:///system"], "--connect goes with --domain"),
        (["--domain", "web", "--then", "quit"], "--then goes with --qmp only"),
        (["--domain", "web", "--transport", "fd"], "--transport goes with --qmp only"),
        (["--domain", "web", "--no-saved-command"], "--no-saved-command goes with --qmp only"),
    ],
)
def test_what_does_not_go_with_a_domain(
    fake_domain: FakeSave, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["save", "guest.save", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert fake_domain.calls == []


SAVE = ["save", "--qmp", "vm.qmp", "guest.save"]


def test_the_defaults(fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SAVE) == 0
    assert fake.calls == [("vm.qmp", Path("guest.save"), SaveOptions())]
    text = (
        "saved the guest to guest.save: 131 MiB from 528 MiB of memory in 1.9 s (zstd level 3, ratio 4.1, stopped 1.9 s);"
        " libvirt 10.4 or later restores it\n"
    )
    assert capsys.readouterr() == (text, "")


def test_every_option_arrives(fake: FakeSave) -> None:
    extra = "--format gzip --level 6 --threads 2 --then resume --transport unix --no-saved-command --quiet"
    assert main([*SAVE, *extra.split(), "--timeout", "9", "--max-stopped", "0.5", "--bypass-cache"]) == 0
    assert fake.options == SaveOptions(
        format="gzip",
        level=6,
        threads=2,
        then="resume",
        transport="unix",
        save_command=False,
        timeout_s=9,
        max_stopped_s=0.5,
        bypass_cache=True,
    )


def test_a_paused_guest_in_raw_needing_xml(fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    fake.report = save_report(format="raw", level=0, levels=(), was_running=False, needs_xml=True, oldest_libvirt="0.9.4")
    assert main([*SAVE, "--format", "raw"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("in 1.9 s (raw, ratio 4.1); libvirt 0.9.4 or later restores it")
    assert "restore --connect URI --xml FILE makes a domain of it" in second


def test_level_auto(fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    fake.report = save_report(level="auto", levels=(LevelUse(2, 5, 5 * MiB, MiB), LevelUse(7, 45, 45 * MiB, 9 * MiB)))
    assert main([*SAVE, "--level", "auto"]) == 0
    assert fake.options == SaveOptions(level="auto")
    assert "(zstd levels 2 to 7, mostly 7 (90 %), ratio 4.1, stopped 1.9 s)" in capsys.readouterr().out
    assert main([*SAVE, "--level", "fast"]) == 2
    assert "'fast' is neither a number nor auto" in capsys.readouterr().err


def test_quiet_keeps_warnings(fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    fake.report = save_report(warnings=("the guest runs on: the image fits its disks only as they were at the save",))
    assert main([*SAVE, "--quiet", "--then", "resume"]) == 0
    assert capsys.readouterr() == (
        "",
        "streamsave: warning: the guest runs on: the image fits its disks only as they were at the save\n",
    )


def test_a_hostile_path_is_not_printed_raw(fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    fake.report = save_report(path=Path("a\x1b[2J.save"))
    assert main(SAVE) == 0
    assert "saved the guest to a\\x1b[2J.save: " in capsys.readouterr().out


def test_json(fake: FakeSave, capfd: pytest.CaptureFixture[str]) -> None:
    fake.report = save_report(warnings=("careful",))
    assert main([*SAVE, "--json"]) == 0
    progress, saved = map(json.loads, capfd.readouterr().out.splitlines())
    assert progress == {
        "event": "progress", "stage": "stream", "bytes_in": 1, "bytes_out": 2, "total_estimate": 4, "fraction": 0.25,
        "elapsed_s": 0.5, "rate_in": 6.0, "rate_out": 7.0,
        "frame_count": 0, "level": None, "read_s": 0.0, "write_s": 0.0, "cpu_s": 0.0, "total_s": 0.0, "stopped_s": 0.0,
        "stage_s": {}, "job": {}, "outcome": "",
    }  # fmt: skip
    assert saved == {
        "event": "saved", "path": "guest.save", "format": "zstd", "level": 3, "threads": 4, "image_size": 131 * MiB,
        "levels": [{"level": 3, "frame_count": 533, "stream_size": 533 * MiB, "payload_size": 130 * MiB}],
        "payload_size": 130 * MiB, "stream_size": 533 * MiB, "ratio": 4.1, "frame_count": 533, "was_running": True,
        "then": "quit", "total_s": 1.93, "stopped_s": 1.85, "stage_s": {"prepare": 0.1, "stream": 1.5}, "cpu_s": 5.0,
        "rate": pytest.approx(533 / 1.5), "machine": "pc-q35-7.2", "memory_size": 528 * MiB, "page_count": 9,
        "zero_page_count": 4, "oldest_libvirt": "10.4", "needs_xml": False, "warnings": ["careful"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--format", "gzip", "--level", "10"], 2, "format gzip has levels 1 to 9, not 10"),
        (["--format", "zip"], 3, "zip"),
        (["--format", "sparse"], 3, "libvirt's format sparse is written by QEMU itself"),
        (["--format", ""], 3, ""),
        (["--timeout", "0"], 2, "timeout_s must be a number of seconds greater than 0, not 0"),
        (["--max-stopped", "nan"], 2, "max_stopped_s must be a number of seconds greater than 0, not nan"),
        (["--threads", "0"], 2, "threads must be 1 to 256, not 0"),
        (["--config", "/nowhere/qemu.conf"], 4, "/nowhere/qemu.conf: cannot read the configuration"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_touched(
    arguments: list[str], status: int, message: str, fake: FakeSave, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SAVE + arguments) == status
    assert message in capsys.readouterr().err
    assert fake.calls == []


def test_who_chooses_the_format(fake: FakeSave, tmp_path: Path) -> None:
    named, usual = tmp_path / "named.conf", tmp_path / "usual.conf"
    named.write_text("save_image_format = 'bzip2'")
    usual.write_text("save_image_format = 'gzip'")
    for arguments, chosen in (
        ([], "gzip"),
        (["--config", str(named)], "bzip2"),
        (["--config", str(named), "--format", "raw"], "raw"),
    ):
        assert main(SAVE + arguments) == 0
        assert fake.options.format == chosen
    named.write_text("# not set")
    assert main([*SAVE, "--config", str(named)]) == 0
    assert fake.options.format == "zstd"


def test_a_qemu_conf_that_cannot_be_followed(fake: FakeSave, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = tmp_path / "usual.conf"
    usual.write_text("\nsave_image_format = 'sparse'")
    assert main(SAVE) == 4
    assert f"streamsave: error: {usual}, line 2: save_image_format is 'sparse'" in capsys.readouterr().err
    assert fake.calls == []
    assert main([*SAVE, "--format", "raw"]) == 0


def test_an_error_of_the_save(fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    fake.error = GuestError("the guest cannot be migrated: device x")
    assert main(SAVE) == 35
    assert capsys.readouterr() == ("", "streamsave: error: the guest cannot be migrated: device x\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_save(signum: signal.Signals, fake: FakeSave, capsys: pytest.CaptureFixture[str]) -> None:
    fake.kill = signum
    assert main([*SAVE, "--json"]) == 128 + signum
    out, err = capsys.readouterr()
    assert err == f"streamsave: error: interrupted by {signum.name}\n"
    event = json.loads(out.splitlines()[-1])
    assert (event["class"], event["exit_status"]) == ("Aborted", 128 + signum)


def test_a_report_that_cannot_be_written_says_that_the_image_is_complete(
    fake: FakeSave, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(SAVE) == DestinationError.exit_status
    assert capsys.readouterr().err == (
        "streamsave: error: cannot write to standard output: No space left on device\n"
        "    only this report failed: the image guest.save is complete\n"
    )
