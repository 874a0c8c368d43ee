"""``streamsave edit``: in an editor that works, fails, or is none, and from a file."""

from __future__ import annotations

import os
import pty
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from streamsave.operations.image import read_info

from ..kit.cli import Run, streamsave
from ..kit.waiting import until
from .edited import BEFORE, save, titled

pytestmark = pytest.mark.timeout(40)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "guest.save"
    save(path, "zstd")
    return path


def editor(folder: Path, script: str) -> dict[str, str]:
    path = folder / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"EDITOR": f"{path} --wait", "VISUAL": "", "TMPDIR": str(folder)}


def test_in_an_editor(image: Path, tmp_path: Path) -> None:
    env = editor(
        tmp_path,
        'test "$1" = --wait && cp "$2" seen && sed -i "s/^/<!-- seen -->/" "$2"',
    )
    done = Run(["edit", image], env=env, cwd=tmp_path).finish()
    assert done.status == 0, done.err
    assert (tmp_path / "seen").read_text() == BEFORE.xml
    assert read_info(image).metadata.xml == "<!-- seen -->" + BEFORE.xml
    assert not list(tmp_path.glob("streamsave-edit*"))


def test_an_editor_that_changes_nothing(image: Path, tmp_path: Path) -> None:
    before = image.stat()
    done = streamsave("edit", image, env=editor(tmp_path, "true"))
    assert (done.status, "is unchanged: nothing was written" in done.out) == (0, True), done.err
    assert image.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("script", "status", "complaint"),
    [
        ('sed -i s/tt/TT/ "$2"; exit 3', 130, "ended with status 3: the image is as it was"),
        ('sed -i s/tt/TT/ "$2"; kill -9 $$', 130, "was ended by signal 9: the image is as it was"),
        ('sed -i s/made/un-made/ "$2"', 2, "the new XML has the name un-made up"),
        ('echo "<domain" > "$2"', 2, "not well-formed"),
        ('touch "$OTHER"; sed -i "s,</name>,</name><title/>," "$2"', 42, "somebody else changed the image"),
    ],
)
def test_what_was_written_in_vain_is_kept(script: str, status: int, complaint: str, image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    done = streamsave("edit", image, env=editor(tmp_path, script) | {"OTHER": str(image)})
    assert (done.status, complaint in done.error) == (status, True), done.err
    (kept,) = tmp_path.glob("streamsave-edit.*/guest.xml")
    assert f"what you wrote is in {kept}; use it with --xml" in done.err
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert image.read_bytes() == before


@pytest.mark.parametrize("script", ["exit 3", 'rm "$2"; exit 3', 'rm "$2"', "kill -9 $$"])
def test_nothing_is_left_of_what_nobody_changed(script: str, image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    done = streamsave("edit", image, env=editor(tmp_path, script))
    assert done.status == (41 if script == 'rm "$2"' else 130), done.err
    assert "what you wrote" not in done.err
    assert not list(tmp_path.glob("streamsave-edit*"))
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "why"), [("/nowhere/editor", "not found"), ("nosuch --wait", "not found"), ("/", "Permission denied")]
)
def test_an_editor_that_is_none(name: str, why: str, image: Path, tmp_path: Path) -> None:
    done = streamsave("edit", image, env={"EDITOR": name, "VISUAL": "", "TMPDIR": str(tmp_path)})
    assert done.status == 2
    assert done.err == (
        f"streamsave: error: the editor '{name}' cannot be run: {why}; set VISUAL or EDITOR to one that is installed,"
        " or use --xml FILE\n"
    )
    assert not list(tmp_path.glob("streamsave-edit*"))


def test_no_place_for_the_editors_file(image: Path, tmp_path: Path) -> None:
    done = streamsave("edit", image, env={"EDITOR": "true", "TMPDIR": str(tmp_path)}, prefix=["prlimit", "--fsize=100"])
    assert (done.status, "cannot be written to a file for the editor: File too large" in done.error) == (42, True), done.err
    assert not list(tmp_path.glob("streamsave-edit*"))


def test_ctrl_c_in_the_editor_is_the_editors(image: Path, tmp_path: Path) -> None:
    env = editor(tmp_path, f'trap "" INT; touch {tmp_path}/here; sleep 1; sed -i s/tt/TT/ "$2"')
    run = Run(["edit", image], env=env)
    until((tmp_path / "here").exists)
    os.killpg(run.process.pid, signal.SIGINT)
    done = run.finish()
    assert done.status == 0, done.err
    assert read_info(image).metadata.xml == BEFORE.xml.replace("tt", "TT", 1)


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("", 0), ("n", 2)])
def test_what_cannot_be_may_be_edited_again(answer: str, status: int, image: Path, tmp_path: Path) -> None:
    script = (
        'if test -e again; then sed -i "s/un-made/made/; s/tt/TT/" "$2"; else touch again; sed -i s/made/un-made/ "$2"; fi'
    )
    master, slave = pty.openpty()
    try:
        os.write(master, f"{answer}\n".encode())
        command = [sys.executable, "-m", "streamsave.cli", "edit", str(image)]
        env = {**os.environ, **editor(tmp_path, script)}
        done = subprocess.run(command, stdin=slave, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=30)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == status, done.stderr
    assert "un-made up" in done.stderr
    assert "Edit it again? [Y/n]" in done.stderr
    assert read_info(image).metadata.xml == (BEFORE.xml if status else BEFORE.xml.replace("tt", "TT", 1))


def test_from_a_file(image: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.xml"
    file.write_text(titled(7))
    done = streamsave("edit", image, "--xml", file, "--set-paused", "--json")
    assert done.status == 0, done.err
    assert (done.event["event"], done.event["changed"], done.event["was_running"]) == ("edited", True, False)
    assert read_info(image).metadata.xml == titled(7)
    assert "in place" in streamsave("edit", image, "--set-running").out
