"""What a result depends on beside the code: the machine, its kernel, the versions of programs. In every report."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import streamsave
from streamsave.demo.machine import find_qemu
from streamsave.options import usable_cpus
from streamsave.units import GiB

from .contestants import tools

BINDINGS: Final = ("zstandard", "isal", "deflate", "lz4", "cramjam")
VERSION: Final = re.compile(r"\d+\.[\w.+-]*")
INSTALL: Final = "apt-get install bzip2 gzip lbzip2 lz4 lzop pigz xz-utils zstd, or make bench, which does it"


class MissingToolError(Exception):
    """A program to compare with is not installed; nothing is left out silently."""


def facts() -> dict[str, Any]:
    """Of this machine.

    Raises:
        MissingToolError: says which, and how to install them.

    """
    missing = [name for name in tools() if not shutil.which(name)]
    if missing:
        raise MissingToolError(f"not installed: {', '.join(missing)}; {INSTALL}")
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "threads": usable_cpus(),
        "threads_per_core": _threads_per_core(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GiB),
        "hypervisor": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "streamsave": _own_version(),
        "qemu": _version(find_qemu()),
        "tools": {name: _version(name) for name in tools()},
        "libraries": {name: version(name) for name in BINDINGS},
    }


def file_system(folder: Path) -> str:
    """The kind of file system that ``folder`` is on, as the kernel calls it."""
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)]
    mounts = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return mounts[-1]  # what is mounted over others counts


def load() -> float:
    """Runnable processes in the last minute: what others did while this was measured."""
    return os.getloadavg()[0]


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _threads_per_core() -> int:
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    text = siblings.read_text().strip() if siblings.exists() else "0"
    return sum(int(part.split("-")[-1]) - int(part.split("-")[0]) + 1 for part in text.split(","))


def _own_version() -> str:
    """With the last commit that changed the code, where there is one; a ``+`` stands for changes since."""
    sources = [str(Path(__file__).resolve().parents[1] / name) for name in ("src", "native")]
    commit, changes = (
        subprocess.run(["git", *command, "--", *sources], check=False, capture_output=True, text=True).stdout.strip()
        for command in (("log", "-1", "--format=%h"), ("status", "--porcelain", "--untracked-files=no"))
    )
    return f"{streamsave.__version__} ({commit}{'+' if changes else ''})" if commit else streamsave.__version__


def _version(program: str) -> str:
    """As the program says it, on whichever stream."""
    told = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = VERSION.search(told.stdout + told.stderr)
    return found[0].strip(".-") if found else "unknown"
