"""scripts/bootstrap where it may not install: it prints the command that does, and changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..kit.missing import require_tools

ROOT = Path(__file__).parents[2]
NOBODY = 65534


FAKES = {
    "dpkg-query": 'case "$4" in python3-venv|gcc|git) printf installed;; *) exit 1;; esac',
    "apt-get": "echo called",
}


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A tree that everybody may read with the script in it; the dpkg-query in ``bin`` knows three packages."""
    with tempfile.TemporaryDirectory(prefix="ss-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        for name in ("scripts", "bin"):
            (home / name).mkdir()
        shutil.copy(ROOT / "scripts" / "bootstrap", home / "scripts")
        for name, text in FAKES.items():
            (home / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (home / "bin" / name).chmod(0o755)
        yield home


TOOLS = "binutils busybox-static bzip2 gzip lz4 lzop xz-utils zstd lbzip2 pbzip2 pigz e2fsprogs strace"


@pytest.mark.parametrize(
    ("goal", "packages"),
    [
        ("demo", "python3-dev libc6-dev qemu-system-x86"),
        ("test", "python3-dev libc6-dev qemu-system-x86 make " + TOOLS),
        ("interop", "python3-dev libc6-dev qemu-system-x86 make " + TOOLS + " debootstrap libvirt-dev pkg-config"),
    ],
)
def test_not_root(goal: str, packages: str, checkout: Path) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:
        require_tools("setpriv")
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    before = sorted(checkout.rglob("*"))
    done = subprocess.run(
        [*prefix, "bash", str(checkout / "scripts" / "bootstrap"), goal],
        env={"PATH": f"{checkout / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "some packages are missing; install them, and run this again:\n"
        f"    sudo apt-get update && sudo apt-get install --yes --no-install-recommends {packages}\n"
    )
    assert sorted(checkout.rglob("*")) == before
