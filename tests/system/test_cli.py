"""The command line as a user runs it, in a process of its own, with a QEMU at the other end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import Launch
from ..kit.qemu import RunningQemu

pytestmark = pytest.mark.qemu


def start(*arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streamsave.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def streamsave(*arguments: str | Path) -> tuple[int, str, str]:
    return finish(start(*arguments))


def test_save_resume_and_restore_into_a_qemu_that_waits(demo: RunningQemu, launch: Launch, image: Path) -> None:
    status, out, err = streamsave("save", "--qmp", demo.monitor, image, "--then", "resume")
    assert status == 0, err
    assert out.startswith(f"saved the guest to {image}: ")
    assert "(zstd level 3, ratio " in out
    assert "libvirt 10.4 or later restores it\n" in out
    assert "virsh restore needs --xml FILE" in out
    assert err.startswith("streamsave: warning: ")
    assert "the image fits its disks only as they were" in err
    demo.wait_for_ticks()
    demo.kill()

    status, out, err = streamsave("info", image, "--json")
    info = json.loads(out)
    assert (status, err) == (0, "")
    assert (info["complete"], info["was_running"], info["format"], info["name"], info["saved_command"]) == (
        True, True, "zstd", "test", True
    )  # fmt: skip
    waiting = launch(demo.guest, incoming=True, after=demo)
    waiting.qmp().close()
    status, out, err = streamsave("restore", image, "--qmp", waiting.monitor, "--json")
    assert (status, err) == (0, "")
    restored = json.loads(out.splitlines()[-1])
    assert (restored["event"], restored["running"], restored["machine"]) == ("restored", True, info["machine"])
    waiting.wait_for_ticks()


def test_restore_stays_in_front_of_qemu_and_is_saved_from_there(demo: RunningQemu, image: Path) -> None:
    status, out, err = streamsave("save", "--qmp", demo.monitor, image, "--format", "gzip", "--quiet")
    assert (status, out, err) == (0, "", "")
    assert demo.wait() == 0
    before = demo.counter()
    restore = start("restore", image, "--", *demo.command)
    demo.console.wait_for_counter(before + 2, 60)
    assert restore.poll() is None
    restore.send_signal(signal.SIGTERM)  # QEMU takes it as the request to end, and exits with 0
    status, out, err = finish(restore)
    assert (status, out) == (0, "")
    assert f"restored {image}: " in err
    assert "terminating on signal 15" in err  # QEMU's own word

    restore = start("restore", image, "--use-saved-command", "--yes", "--json", cwd=Path("/"))
    demo.console.wait_for_counter(before + 4, 60)
    again = streamsave("save", "--qmp", demo.monitor, image, "--quiet")
    assert again == (0, "", "")
    status, out, err = finish(restore)
    assert status == 0
    assert json.loads(out.splitlines()[-1])["event"] == "restored"
    assert "was saved by this command:\n    qemu-system-x86_64 " in err
    assert demo.console.damage() == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_mid_save_frees_the_guest(signum: signal.Signals, demo: RunningQemu, image: Path) -> None:
    save = start("save", "--qmp", demo.monitor, image, "--format", "bzip2", "--threads", "1", "--json")
    assert save.stdout is not None
    first = json.loads(save.stdout.readline())
    assert (first["event"], first["stage"]) == ("progress", "stream")
    save.send_signal(signum)
    status, out, err = finish(save)
    assert status == 128 + signum
    assert err == f"streamsave: error: interrupted by {signum.name}\n"
    assert json.loads(out.splitlines()[-1]) == {
        "event": "error", "class": "Aborted", "message": f"interrupted by {signum.name}", "notes": [],
        "exit_status": 128 + signum,
    }  # fmt: skip
    assert list(image.parent.iterdir()) == []
    demo.wait_for_ticks()


def test_a_qemu_that_does_not_fit_the_image_has_the_last_word(demo: RunningQemu, image: Path) -> None:
    assert streamsave("save", "--qmp", demo.monitor, image, "--quiet") == (0, "", "")
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "pc", "-accel", "tcg", "-m", "32M"]
    status, out, err = streamsave("restore", image, "--", *command)
    assert (status, out) == (37, "")
    assert "streamsave: error: QEMU did not load the stream of a machine pc-i440fx-" in err
    assert "\n    qemu-system-x86_64: " in err or "it says: qemu-system-x86_64: " in err
    assert image.exists()
