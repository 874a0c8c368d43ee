"""Saves of one domain, by ``virsh save`` and by ``streamsave save --domain``, in turn, with a real libvirt in a chroot.

Method: one Linux guest whose RAM is full of the host's programs and libraries, in a domain of the newest libvirt that the
tests have (11.3). Each pair saves it with virsh in a format, restores it, saves it with streamsave in the same format, and
restores it, to the same folder; the median of the ratios counts. Two times of each: until the image is complete (its magic
says so; streamsave's is durable by then, virsh's need not be), and the whole command, which ends after libvirt ended QEMU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.interop.stack import LAB, LinuxDomain, Stack

from streamsave.format.header import MAGIC_COMPLETE
from streamsave.units import MiB

from .guests import filled_blob


def main() -> int:
    """Measure and print; 0 if every save worked."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.domains", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="guest RAM (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--formats", default="gzip,zstd", help="separated by commas (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    stack = Stack("trixie")
    stack.up()
    figures = []
    try:
        with stack.guest("bench", args.memory, filled_blob("programs", args.memory * MiB * 3 // 4)[0]) as guest:
            print("format  image complete: virsh  streamsave   ratio (min to max)   command: ratio (min to max)     image")
            for name in args.formats.split(","):
                figures.append(_compare(guest, name, args.pairs))
                print(_row(figures[-1]), flush=True)
    finally:
        stack.down()
    if args.json:
        args.json.write_text(json.dumps({"memory": args.memory * MiB, "formats": figures}, indent=1))
    return 0


def _compare(guest: LinuxDomain, name: str, pairs: int) -> dict[str, Any]:
    image = guest.folder / "bench.save"
    virsh = [str(LAB), "virsh", "-q", "save", guest.name, str(image), "--image-format", name]
    own = [sys.executable, "-m", "streamsave.cli", "save", "--domain", guest.name, "--connect", guest.stack.uri]
    theirs: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    sizes = []
    for _ in range(pairs):
        for command, times in ((virsh, theirs), ([*own, str(image), "--format", name, "--quiet"], ours)):
            times.append(_timed(guest, command, image))
            sizes.append(image.stat().st_size)
            guest.stack.virsh("restore", image)
            image.unlink()
            guest.wait_for_ticks(1, timeout_s=120)
    return {"format": name, "virsh_s": theirs, "streamsave_s": ours, "virsh_size": sizes[0], "streamsave_size": sizes[1]}


def _timed(guest: LinuxDomain, command: Sequence[str], image: Path) -> tuple[float, float]:
    """Seconds until the image is complete, and until the command has ended."""
    complete: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not complete and not ended.is_set():
            if _magic(image) == MAGIC_COMPLETE:
                complete.append(time.perf_counter())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    began = time.perf_counter()
    watcher.start()
    try:
        subprocess.run(command, check=True, env=guest.stack.env)
        whole_s = time.perf_counter() - began
    finally:
        ended.set()
        watcher.join()
    return (complete[0] - began if complete else whole_s), whole_s


def _magic(image: Path) -> bytes:
    try:
        with image.open("rb") as file:
            return file.read(len(MAGIC_COMPLETE))
    except FileNotFoundError:
        return b""


def _row(figures: dict[str, Any]) -> str:
    theirs, ours = figures["virsh_s"], figures["streamsave_s"]
    complete, command = ([their[which] / our[which] for their, our in zip(theirs, ours, strict=True)] for which in (0, 1))
    medians = [statistics.median(each[0] for each in times) for times in (theirs, ours)]
    larger = figures["streamsave_size"] / figures["virsh_size"]
    times = f"{figures['format']:6}        {medians[0]:12.1f} s {medians[1]:9.2f} s"
    return f"{times}  {_spread(complete):>20}  {_spread(command):>28}  {100 * (larger - 1):+8.0f} %"


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


if __name__ == "__main__":
    sys.exit(main())
