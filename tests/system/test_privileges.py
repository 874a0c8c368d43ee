"""What is written is for its owner alone, what others plant leads it nowhere, and no rights are needed but one's own."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from streamsave.endpoints import leftovers
from streamsave.endpoints.file import NewImage
from streamsave.errors import DestinationError, SourceError
from streamsave.qemu.transport import _private_path

from ..kit.missing import require_root
from ..kit.qemu import demo_guest
from ..kit.unfinished import without_nameless_files
from ..kit.waiting import until
from .test_destinations import python_for_nobody

NOBODY = 65534


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_an_image_is_its_owners(umask: int, tmp_path: Path) -> None:
    """From its first byte on: it holds all that the guest had in its memory."""
    before = os.umask(umask)
    try:
        with NewImage(tmp_path / "image", b"head") as image:
            assert stat.S_IMODE(os.fstat(image.fileno()).st_mode) == 0o600
            image.commit(b"HEAD", b"head")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "image").stat().st_mode) == 0o600


def write_image(path: Path) -> None:
    with NewImage(path, b"head") as image:
        image.commit(b"HEAD", b"head")


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_others_plant_is_not_written_to(
    kind: str, nameless: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that others may write, at a name that they guessed: O_EXCL and O_NOFOLLOW, and a link replaces nothing."""
    if not nameless:
        without_nameless_files(monkeypatch)
    monkeypatch.setattr(secrets, "token_hex", lambda _size: "guessed")
    planted, victim = leftovers.temporary_name(tmp_path / "image"), tmp_path / "victim"
    if kind != "dangling link":
        victim.write_text("precious")
    if kind == "file":
        planted.write_text("precious")
    else:
        planted.symlink_to(victim)
    with pytest.raises(DestinationError, match="File exists"):
        write_image(tmp_path / "image")
    assert not (tmp_path / "image").exists()
    assert planted.exists() or kind == "dangling link"
    assert victim.exists() == (kind != "dangling link")
    assert kind == "dangling link" or victim.read_text() == "precious"


def test_sockets_are_in_a_folder_of_ones_own() -> None:
    with _private_path(SourceError) as path:
        folder = path.parent.stat()
        assert stat.S_IMODE(folder.st_mode) == 0o700
        assert folder.st_uid == os.geteuid()
    assert not path.parent.exists()


@pytest.mark.qemu
def test_an_ordinary_user_saves_and_restores(qemu: str) -> None:
    """A QEMU, a guest and an image of user nobody, who has no rights at all beyond that."""
    require_root("becoming somebody else")
    python, env = python_for_nobody()
    with tempfile.TemporaryDirectory(prefix="ss-nobody-") as name, ExitStack() as stack:
        home = Path(name)
        os.chown(home, NOBODY, NOBODY)
        kernel = home / "guest.bin"
        kernel.write_bytes(Path(demo_guest().arguments[1]).read_bytes())
        kernel.chmod(0o644)
        machine = [qemu, "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg", "-m", "16M", "-kernel", str(kernel)]
        console = home / "console"

        def as_nobody(command: list[str]) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                command, env=env, user=NOBODY, group=NOBODY, extra_groups=[], cwd=home, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            stack.callback(end, process)
            return process

        def ticks() -> int:
            return console.read_text().count("memory ok") if console.exists() else 0

        serial = ["-chardev", f"file,id=c,path={console},append=on", "-serial", "chardev:c"]
        guest = as_nobody([*machine, *serial, "-qmp", f"unix:{home}/qmp,server=on,wait=off"])
        until(lambda: ticks() > 1, timeout_s=30, what="the guest's counting")
        save = as_nobody([python, "-m", "streamsave.cli", "save", "--qmp", f"{home}/qmp", f"{home}/guest.save"])
        assert save.communicate(timeout=40)[1] == ""
        assert save.returncode == 0
        guest.communicate(timeout=20)
        image = (home / "guest.save").stat()
        assert (image.st_uid, stat.S_IMODE(image.st_mode)) == (NOBODY, 0o600)
        before = ticks()
        again = [*machine, *serial, "-qmp", f"unix:{home}/second,server=on,wait=off"]
        as_nobody([python, "-m", "streamsave.cli", "restore", f"{home}/guest.save", "--", *again])
        until(lambda: ticks() > before + 1, timeout_s=40, what="the guest's counting on")
        assert "DAMAGED" not in console.read_text()


def end(process: subprocess.Popen[str]) -> None:
    """Whatever became of it; a restore takes its QEMU with it, if it is asked."""
    process.terminate()
    try:
        process.communicate(timeout=20)
    finally:
        process.kill()
