"""Programs and libraries out of Debian's packages: what the page cache of a server is full of, the same bytes for everyone.

The packages are fetched through apt, in the versions that it offers on first use, and kept in ``.cache/bench``. A piece of
each comes in turn, in the order below, so that the start is like the whole; within a package the order is the archive's.
Nothing is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tests.kit.linux import KitError, run_tool

from streamsave.units import MiB

PACKAGES: Final = (
    "docker.io",
    "containerd",
    "mariadb-server-core",
    "git",
    "cmake",
    "python3-numpy",
    "python3-scipy",
    "samba-libs",
    "qemu-system-arm",
    "gdb",
    "systemd",
    "snapd",
    "podman",
    "libreoffice-core",
)
"""730 MiB unpacked, 170 MiB to download: C, C++, Go, Python; names that stay when Debian's release changes."""
FOLDERS: Final = ("./usr/bin/", "./usr/sbin/", "./usr/lib/", "./usr/libexec/", "./bin/", "./sbin/", "./lib/")
PAGE_SIZE: Final = 4096
CACHE: Final = Path(__file__).resolve().parents[1] / ".cache" / "bench" / "packages"


def fetch(packages: tuple[str, ...] = PACKAGES, cache: Path = CACHE) -> dict[str, Path]:
    """The .deb of each package, by name; those that are not in ``cache`` are downloaded.

    Raises:
        KitError: apt does not offer one of them.

    """
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in packages:
        if not (kept := sorted(cache.glob(f"{name}_*.deb"))):
            with tempfile.TemporaryDirectory(dir=cache) as work:
                try:
                    run_tool("apt-get", "download", "-qq", name, folder=Path(work))
                except KitError as error:
                    raise KitError(f"the package {name} cannot be fetched, is there a network? {error}") from error
                kept = [Path(shutil.move(file, cache)) for file in Path(work).glob("*.deb")]
        found[name] = kept[-1]
    return found


def version_of(package: Path) -> str:
    """Of a .deb, with its architecture, as its name has it."""
    return package.stem.partition("_")[2].replace("%3a", ":")


def contents_of(packages: Iterable[Path], piece_size: int = MiB) -> Iterator[bytes]:
    """What is in the files of ``packages``, a piece of each in turn until all are at their end."""
    packs = [_pieces(package, piece_size) for package in packages]
    while packs:
        for pack in tuple(packs):
            piece = next(pack, None)
            if piece is None:
                packs.remove(pack)
            else:
                yield piece


def _pieces(package: Path, size: int) -> Iterator[bytes]:
    left = bytearray()
    for contents in _files(package):
        left += contents
        start = 0
        while len(left) - start >= size:
            yield bytes(left[start : start + size])
            start += size
        del left[:start]
    yield bytes(left)


def _files(package: Path) -> Iterator[bytes]:
    """Programs, libraries and whatever else they load, each filled up with zeros to whole pages, as a page cache has it."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    unpacking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        with unpacking, tarfile.open(fileobj=unpacking.stdout, mode="r|") as members:
            for member in members:
                if member.isreg() and member.size and member.name.startswith(FOLDERS):
                    contents = _contents(members, member)
                    yield contents + bytes(-len(contents) % PAGE_SIZE)
    except tarfile.TarError as error:
        raise KitError(f"{package}: cannot be unpacked ({error}); delete the file, it is fetched again") from error


def _contents(members: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    data = members.extractfile(member)
    assert data is not None, "a regular file has contents"
    return data.read()
