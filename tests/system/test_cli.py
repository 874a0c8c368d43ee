"""The command line as a user runs it, in a process of its own, with a QEMU at the other end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from ..conftest import Launch
from ..kit.cli import Result, Run, streamsave
from ..kit.qemu import RunningQemu

pytestmark = pytest.mark.qemu


def test_save_resume_and_restore_into_a_qemu_that_waits(demo: RunningQemu, launch: Launch, image: Path) -> None:
    saved = streamsave("save", "--qmp", demo.monitor, image, "--then", "resume")
    assert saved.status == 0, saved.err
    assert saved.out.startswith(f"saved the guest to {image}: ")
    assert "(zstd level 3, ratio " in saved.out
    assert "libvirt 10.4 or later restores it\n" in saved.out
    assert "restore --connect URI --xml FILE makes a domain of it" in saved.out
    assert saved.err.startswith("streamsave: warning: ")
    assert "the image fits its disks only as they were" in saved.err
    demo.wait_for_ticks()
    demo.kill()

    shown = streamsave("info", image, "--json")
    info = shown.event
    assert (shown.status, shown.err) == (0, "")
    assert (info["complete"], info["was_running"], info["format"], info["name"], info["saved_command"]) == (
        True, True, "zstd", "test", True
    )  # fmt: skip
    waiting = launch(demo.guest, incoming=True, after=demo)
    waiting.qmp().close()
    result = streamsave("restore", image, "--qmp", waiting.monitor, "--json")
    assert (result.status, result.err) == (0, "")
    restored = result.event
    assert (restored["event"], restored["running"], restored["machine"]) == ("restored", True, info["machine"])
    waiting.wait_for_ticks()


def test_restore_stays_in_front_of_qemu_and_is_saved_from_there(demo: RunningQemu, image: Path) -> None:
    saved = streamsave("save", "--qmp", demo.monitor, image, "--format", "gzip", "--quiet")
    assert saved == Result(0, "", "")
    assert demo.wait() == 0
    before = demo.counter()
    restore = Run(["restore", image, "--", *demo.command])
    demo.console.wait_for_counter(before + 2, 60)
    assert restore.process.poll() is None
    restore.process.send_signal(signal.SIGTERM)  # QEMU takes it as the request to end, and exits with 0
    result = restore.finish()
    assert (result.status, result.out) == (0, "")
    assert f"restored {image}: " in result.err
    assert "terminating on signal 15" in result.err  # QEMU's own word

    restore = Run(["restore", image, "--use-saved-command", "--yes", "--json"], cwd=Path("/"))
    demo.console.wait_for_counter(before + 4, 60)
    assert streamsave("save", "--qmp", demo.monitor, image, "--quiet") == Result(0, "", "")
    result = restore.finish()
    assert result.status == 0
    assert result.event["event"] == "restored"
    assert "was saved by this command:\n    qemu-system-x86_64 " in result.err
    assert demo.console.damage() == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_mid_save_frees_the_guest(signum: signal.Signals, demo: RunningQemu, image: Path) -> None:
    save = Run(["save", "--qmp", demo.monitor, image, "--format", "bzip2", "--threads", "1", "--json"])
    first = json.loads(save.first_line())
    assert (first["event"], first["stage"]) == ("progress", "stream")
    save.process.send_signal(signum)
    result = save.finish()
    assert result.status == 128 + signum
    assert result.err == f"streamsave: error: interrupted by {signum.name}\n"
    event = result.event
    account = event.pop("progress")
    assert event == {
        "event": "error", "class": "Aborted", "message": f"interrupted by {signum.name}", "notes": [],
        "exit_status": 128 + signum,
    }  # fmt: skip
    assert (account["stage"], account["outcome"], list(account["stage_s"])) == ("stream", "failed", ["prepare", "stream"])
    assert 0 < account["fraction"] < 1
    assert 0 < account["stopped_s"] < account["total_s"]
    assert list(image.parent.iterdir()) == []
    demo.wait_for_ticks()


def test_ctrl_z_leaves_no_guest_stopped(demo: RunningQemu, image: Path) -> None:
    save = Run(["save", "--qmp", demo.monitor, image, "--format", "bzip2", "--threads", "1", "--json"])
    save.first_line()
    save.process.send_signal(signal.SIGTSTP)
    assert save.finish().status == 0


def test_a_qemu_that_does_not_fit_the_image_has_the_last_word(demo: RunningQemu, image: Path) -> None:
    assert streamsave("save", "--qmp", demo.monitor, image, "--quiet") == Result(0, "", "")
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "pc", "-accel", "tcg", "-m", "32M"]
    result = streamsave("restore", image, "--", *command)
    assert (result.status, result.out) == (37, "")
    assert "streamsave: error: QEMU did not load the stream of a machine pc-i440fx-" in result.err
    assert "\n    qemu-system-x86_64: " in result.err or "it says: qemu-system-x86_64: " in result.err
    assert image.exists()
