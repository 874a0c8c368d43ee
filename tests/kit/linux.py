"""A Linux guest: Debian's kernel for clouds and a busybox, with a blob in its RAM that it hashes for every tick.

The blob comes in over a read-only virtio disk, whose file therefore stays in the QEMU command, and lands in a tmpfs. The
guest prints ``BOOTED MD5`` and then for ever ``tick N memory ok MD5``, or ``MEMORY DAMAGED``; the host knows the sum too.
Under TCG it boots in about 3 s and hashes 100 MiB/s.

What is downloaded or built lands in ``.cache/linux`` and is used again. An incomplete file never has its final name.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from streamsave.units import MiB

from .cpio import Entry, archive
from .qemu import Guest

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "linux"
KERNEL_PACKAGE: Final = "linux-image-cloud-amd64"
MODULES: Final = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
"""What reads a virtio disk, in the order of loading."""

_INIT: Final = """\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in @MODULES@; do insmod /modules/$module.ko; done
mount -t tmpfs -o size=95% memory /memory
dd if=/dev/vda of=/memory/blob bs=1M iflag=direct 2>/dev/null   # direct: no second copy in the page cache
sum=$(md5sum </memory/blob)
echo "BOOTED ${sum%% *}"
[ -n "$pause" ] || pause=0.2   # seconds; a kernel parameter that the kernel does not know comes here as a variable
n=0
while :; do
    n=$((n + 1))
    now=$(md5sum </memory/blob)
    if [ "$now" = "$sum" ]; then echo "tick $n memory ok ${now%% *}"; else echo "tick $n MEMORY DAMAGED"; fi
    sleep $pause
done
"""


class KitError(Exception):
    """The Linux guest cannot be built here; says why."""


@dataclass(frozen=True)
class Blob:
    """What fills the guest's RAM. ``md5`` is what the guest prints if it is intact."""

    path: Path
    size: int
    md5: str


@dataclass(frozen=True)
class Boot:
    """What a virtual machine boots into that guest."""

    kernel: Path
    initrd: Path
    command_line: str = "console=ttyS0 quiet rdinit=/init"


def linux_boot() -> Boot:
    """The files, made ready. The blob comes as a virtio disk, the first one.

    Raises:
        KitError: no busybox, or the kernel cannot be had.

    """
    kernel = _kernel_folder()
    return Boot(kernel / "vmlinuz", _initrd(kernel))


def linux_guest(blob: Blob, memory_size: int = 512 * MiB, *, pause_s: float = 0.2) -> Guest:
    """The guest with ``blob`` in its RAM. ``pause_s``: how long it does nothing between two ticks.

    Raises:
        KitError: as ``linux_boot``.

    """
    boot = linux_boot()
    drive = f"file={blob.path},format=raw,readonly=on,if=none,id=blob"
    return Guest(
        (
            *("-kernel", str(boot.kernel), "-initrd", str(boot.initrd)),
            *("-append", f"{boot.command_line} pause={pause_s}"),
            *("-drive", drive, "-device", "virtio-blk-pci,drive=blob"),
        ),
        memory_size,
        boot_s=60 + blob.size / (10 * MiB),
    )


def mixed_blob(size: int = 150 * MiB) -> Blob:
    """Half noise, half what compresses: programs and repeated text. The same bytes on every host but for its busybox."""
    text = b"The quick brown fox jumps over the lazy dog, again and again, until the page is full. "
    noise = random.Random(1)

    def pieces() -> Iterator[bytes]:
        program = _busybox().read_bytes()
        while True:
            yield noise.randbytes(2 * MiB)
            yield (program + text * (MiB // len(text)))[: 2 * MiB]

    return blob_of(f"mixed-{size}", pieces(), size)


def blob_of(name: str, pieces: Iterable[bytes], size: int) -> Blob:
    """The first ``size`` bytes of ``pieces``, in ``.cache/linux`` under ``name``, which says all that they depend on.

    ``pieces`` is not read where the file exists already. It goes on for long enough.
    """
    path = CACHE / f"{name}.blob"
    if not path.exists():
        with _new_file(path) as file:
            left = size
            for piece in pieces:
                left -= file.write(piece[:left])
                if not left:
                    break
    with path.open("rb") as file:
        return Blob(path, size, hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest())


def _initrd(kernel: Path) -> Path:
    """The initrd for that kernel, named after its contents."""
    folders = [Entry(name) for name in ("bin", "dev", "memory", "modules", "proc")]
    init = _INIT.replace("@MODULES@", " ".join(MODULES))
    files = [
        Entry("init", init.encode()),
        Entry("bin/busybox", _busybox().read_bytes()),
        *(Entry(f"modules/{name}.ko", (kernel / f"{name}.ko").read_bytes()) for name in MODULES),
    ]
    data = archive([*folders, *files])
    path = CACHE / f"initrd-{hashlib.md5(data, usedforsecurity=False).hexdigest()[:12]}.cpio"
    if not path.exists():
        with _new_file(path) as file:
            file.write(data)
    return path


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise KitError("busybox is not installed: apt-get install busybox-static")
    return Path(found)


def _kernel_folder() -> Path:
    """The folder with ``vmlinuz`` and the modules; downloaded on first use, from where this host's apt gets its packages."""
    folder = CACHE / "kernel"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            package = _download(Path(work))
            unpacked = Path(work) / "kernel"
            unpacked.mkdir()
            _unpack(package, unpacked)
            unpacked.rename(folder)
    return folder


def _download(work: Path) -> Path:
    """The .deb of the kernel that Debian's metapackage depends on."""
    depends = run_tool("apt-cache", "depends", KERNEL_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)$", depends, re.MULTILINE)
    if found is None:
        raise KitError(f"apt knows no {KERNEL_PACKAGE}: apt-get update")
    run_tool("apt-get", "download", found[1], folder=work)
    return next(work.glob("*.deb"))


def _unpack(package: Path, folder: Path) -> None:
    """The kernel and ``MODULES`` out of a .deb, without installing anything."""
    wanted = {f"{name}.ko" for name in MODULES}
    unpacking = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    with unpacking, tarfile.open(fileobj=unpacking.stdout, mode="r|") as members:
        for member in members:
            name = Path(member.name).name
            target = "vmlinuz" if member.name.startswith("./boot/vmlinuz-") else name if name in wanted else None
            if target and (data := members.extractfile(member)):
                (folder / target).write_bytes(data.read())
    absent = {"vmlinuz", *wanted} - {path.name for path in folder.iterdir()}
    if absent:
        raise KitError(f"{package.name} holds no {', '.join(sorted(absent))}: were they renamed or compressed?")


def run_tool(*command: str, folder: Path | None = None) -> str:
    """What ``command`` prints, run in ``folder``.

    Raises:
        KitError: there is no such program, or it failed; with what it said.

    """
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise KitError(f"{' '.join(command)}: {said}") from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file for writing that gets its name when all of it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        unfinished = Path(work) / path.name
        with unfinished.open("wb") as file:
            yield file
        unfinished.rename(path)
