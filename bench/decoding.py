"""Payloads decoded into nowhere: with two threads, with one, and by the stock tool, in turn.

``python -m bench.decoding [--pairs N] [--size MIB] [FORMAT...]``. The data is what a guest's RAM is full of: programs and
libraries. Each payload is a file; ours comes with its index, as in an image, so each chunk is held against its digest. It
is decoded by two decoder threads, by one, and by the tool, one after the other, ``--pairs`` times.
``2/1`` says how many times as fast two threads are as one, ``2/tool`` as the tool; both of the shortest times, since others
share the machine and nothing makes a run faster than it can be, with the median of the pairs behind. ``cpu/tool`` compares
processor seconds. Where a payload cannot be split, one thread decodes: then ``2/1`` should be 1.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.kit.pipelines import run_to_end

from streamsave._native.scan import StreamScanner
from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs
from streamsave.endpoints.file import FileSource
from streamsave.endpoints.memory import DiscardSink, MemorySink, MemorySource
from streamsave.format.index import IMAGE_ID_SIZE, Index
from streamsave.format.pages import FirstRecords
from streamsave.pipeline.compress import Compression
from streamsave.pipeline.decompress import Decompression
from streamsave.units import MiB

from .test_inner import programs

FOREIGN = {
    "gzip": ("gzip -c", "pigz -c"),
    "bzip2": ("bzip2 -c", "lbzip2 -c", "pbzip2 -c"),
    "xz": ("xz -3 -c -T1", "xz -3 -c -T2"),
    "lzop": ("lzop -c",),
    "zstd": ("zstd -c", "zstd -c --long=27", "pzstd -c"),
    "lz4": ("lz4 -c",),
}


class Run(NamedTuple):
    """One decoding; ``cpu_s`` of all threads."""

    wall_s: float
    cpu_s: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", metavar="FORMAT", nargs="*", help="only these (default: all)")
    parser.add_argument("--pairs", type=int, default=7, help="runs of each (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="of the data (default: %(default)s)")
    args = parser.parse_args()
    data = (programs() * (args.size // 16 + 1))[: args.size * MiB]
    print(f"{'payload':26} {'MiB/s':>6} {'2/1':>5} (median) {'2/tool':>6} (median) {'cpu/tool':>8}")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "payload"
        for name, codec in codecs().items():
            if codec.tool and (not args.formats or name in args.formats):
                for label, index in payloads(codec, data, path):
                    print(row(label, codec, path, index, args.pairs, len(data)), flush=True)
    return 0


def payloads(codec: Codec, data: bytes, path: Path) -> Iterator[tuple[str, Index | None]]:
    """Ours, and those of other programs, each with a name, and ours with an index; they are written to ``path``."""
    sink, scanner = MemorySink(), StreamScanner()
    ours = Compression(MemorySource(data), sink, codec, level=codec.default_level, threads=2, observe=scanner.feed)
    run_to_end(ours)
    path.write_bytes(sink.data)
    yield f"{codec.name}, ours", Index(bytes(IMAGE_ID_SIZE), ours.frames, bytes(ours.leaves), scanner.map(), FirstRecords())
    for command in FOREIGN.get(codec.name, ()):
        if shutil.which(command.split()[0]):
            with path.open("wb") as file:
                subprocess.run(command.split(), input=data, stdout=file, check=True)
            yield command, None


def row(label: str, codec: Codec, path: Path, index: Index | None, pairs: int, size: int) -> str:
    """A line of the table."""
    two, one, tool = [], [], []
    for _ in range(pairs):
        two.append(ours(codec, path, index, 2, size))
        one.append(ours(codec, path, index, 1, size))
        tool.append(theirs(codec, path))
    columns = []
    for others in (one, tool):
        ratios = [b.wall_s / a.wall_s for a, b in zip(two, others, strict=True)]
        columns.append(f"{best(others).wall_s / best(two).wall_s:5.2f} ({median(ratios):6.2f})")
    cpu = min(run.cpu_s for run in two) / min(run.cpu_s for run in tool)
    return f"{label:26} {size / MiB / best(two).wall_s:6.0f} {columns[0]}  {columns[1]} {cpu:8.2f}"


def best(runs: list[Run]) -> Run:
    return min(runs, key=lambda run: run.wall_s)


def ours(codec: Codec, path: Path, index: Index | None, threads: int, size: int) -> Run:
    sink = DiscardSink()
    began, cpu = time.perf_counter(), time.process_time()
    with closing(FileSource(os.open(path, os.O_RDONLY), path)) as source:
        run_to_end(
            Decompression(
                source, sink, codec, threads=threads, observe=lambda view: None, path=path, payload_offset=0, index=index
            )
        )
    assert sink.size == size
    return Run(time.perf_counter() - began, time.process_time() - cpu)


def theirs(codec: Codec, path: Path) -> Run:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with path.open("rb") as file:
        subprocess.run(codec.tool_decode, stdin=file, stdout=subprocess.DEVNULL, check=True)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    sys.exit(main())
