"""Saves of one real guest, with streamsave and with the pipe that libvirt's way amounts to, in turn.

Method: one Linux guest whose RAM is full of the host's programs and libraries, stopped by hand before the pipe's migration
(``--running``: not); ``max-bandwidth`` 0; one folder for all images; A B A B ..., so that a drifting machine hits both; the
median of the ratios counts, not the times. The time of streamsave is the whole call (connect, guardian, stop, stream, fsync,
rename, guest runs again), the pipe's is ``migrate`` to ``completed``, which syncs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit.linux import linux_guest, programs_blob
from tests.kit.qemu import RunningQemu

import streamsave
from streamsave.codecs.registry import codecs
from streamsave.units import GiB, MiB

MORE_PIPES = {"bzip2": ((9, "lbzip2 -c"),), "zstd": ((3, "zstd -c -T0"), (1, "zstd -c -1 -T0"))}
"""Other pipes that a format is held against, and our level: tools that use all cores."""


def pairs() -> Iterator[tuple[str, int, str]]:
    """Our format and level, and the pipe that it is held against: each at its default and at the tool's own level."""
    for name, codec in codecs().items():
        if not codec.tool and name != "raw":
            continue  # nobody pipes through it
        pipe = " ".join(codec.tool) or "cat"
        for level in sorted({codec.default_level, codec.tool_level}):
            yield name, level, pipe
        for level, other in MORE_PIPES.get(name, ()):
            yield name, level, other


def main() -> int:
    """Measure and print; 0 if every save worked."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="guest RAM (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each; gzip takes a minute (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the images go, on disk or tmpfs (default: the temporary folder)")
    parser.add_argument("--running", action="store_true", help="do not stop the guest for the pipe: migrate alone")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--only", help="only pairs whose pipe begins with this")
    args = parser.parse_args()
    blob = programs_blob(args.memory * MiB * 3 // 4)
    figures = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, RunningQemu(linux_guest(blob, args.memory * MiB)) as qemu:
        qemu.boot()
        print(_machine(), file=sys.stderr)
        print(
            f"{'streamsave':14} {'pipe':14} {'MiB/s':>7} {'pipe':>7} {'ratio':>6}  (min to max)   {'image':>9} {'pipe':>9}"
        )
        for format_, level, pipe in pairs():
            if shutil.which(pipe.split()[0]) and (not args.only or pipe.startswith(args.only)):
                figures.append(_compare(qemu, Path(folder), format_, level, pipe, args))
                print(_row(figures[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": _machine(), "memory": args.memory * MiB, "pairs": figures}, indent=1))
    return 0


def _compare(
    qemu: RunningQemu, folder: Path, format_: str, level: int, pipe: str, args: argparse.Namespace
) -> dict[str, Any]:
    options = streamsave.SaveOptions(format=format_, level=level or None, then="resume")
    ours, theirs, reports = [], [], []
    for _ in range(args.pairs):
        began = time.perf_counter()
        reports.append(streamsave.save(qemu.monitor, folder / "ours", options))
        ours.append(time.perf_counter() - began)
        theirs.append(_pipe(qemu, pipe, folder / "theirs", stop=not args.running))
    size = reports[-1].stream_size
    assert (folder / "theirs").stat().st_size > size // 50, "the pipe wrote an image"
    return {
        "format": format_,
        "level": level,
        "pipe": pipe,
        "stream_size": size,
        "image_size": reports[-1].image_size,
        "pipe_size": (folder / "theirs").stat().st_size,
        "seconds": ours,
        "pipe_seconds": theirs,
        "stopped_s": [report.stopped_s for report in reports],
        "cpu_s": [report.cpu_s for report in reports],
        "stage_s": [report.stage_s for report in reports],
        "ratios": [b / a for a, b in zip(ours, theirs, strict=True)],
    }


def _pipe(qemu: RunningQemu, pipe: str, path: Path, *, stop: bool) -> float:
    """Seconds from ``migrate`` to ``completed``."""
    with qemu.qmp() as qmp:
        if stop:
            qmp.execute("stop")
        qmp.execute("migrate-set-parameters", max_bandwidth=0)
        began = time.perf_counter()
        qmp.execute("migrate", uri=f"exec:{pipe} > {path}")
        while (status := qmp.execute("query-migrate")["status"]) != "completed":
            assert status != "failed", "the pipe failed"
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        qmp.execute("cont")
    return seconds


def _row(figure: dict[str, Any]) -> str:
    rate, pipe_rate = (figure["stream_size"] / MiB / statistics.median(figure[key]) for key in ("seconds", "pipe_seconds"))
    ratios = figure["ratios"]
    return (
        f"{figure['format'] + ' ' + str(figure['level']):14} {figure['pipe']:14} {rate:7.0f} {pipe_rate:7.0f}"
        f" {statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        f" {figure['image_size'] / MiB:6.0f} MiB {figure['pipe_size'] / MiB:5.0f} MiB"
    )


def _machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GiB
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "memory_gib": round(memory),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
