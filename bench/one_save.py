"""One save for a profiler: a child sends a filled memory as QEMU sends a guest's, two threads compress it into /dev/shm.

::

    perf record -e cpu-clock -F 2000 -o save.perf .venv/bin/python -m bench.one_save gzip
    perf report -i save.perf --no-children -n --sort pid,dso,symbol     # pid: threads, the sender among them
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import socket
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.kit.pipelines import run_to_end

from streamsave._native.scan import StreamScanner
from streamsave.cli.heap import keep_freed_memory
from streamsave.codecs.registry import codecs
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.socket import SocketSource
from streamsave.pipeline.compress import Compression
from streamsave.units import MiB

from .guests import filled_blob

PIECE_SIZE: Final = 32 * 1024
"""What QEMU sends at a time."""
READY_S: Final = 0.5


def send(path: Path, sock: socket.socket) -> None:
    """All that is in ``path``."""
    data = memoryview(path.read_bytes())
    time.sleep(READY_S)
    for start in range(0, len(data), PIECE_SIZE):
        sock.sendall(data[start : start + PIECE_SIZE])


def main() -> None:
    """Save, and say what it took."""
    parser = argparse.ArgumentParser(prog="python -m bench.one_save", description=__doc__)
    parser.add_argument("format", choices=codecs())
    parser.add_argument("--mib", type=int, default=256, help="how much memory (256)")
    args = parser.parse_args()
    keep_freed_memory()  # as the command line does
    codec, path = codecs()[args.format], filled_blob("programs", args.mib * MiB)[0].path
    ours, theirs = socket.socketpair()
    sender = multiprocessing.get_context("fork").Process(target=send, args=(path, theirs))
    sender.start()
    theirs.close()
    before = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, NewImage(Path(folder) / "image", b"") as image:
        source, level, scanner = SocketSource(ours), codec.default_level, StreamScanner()
        pipeline = Compression(source, image, codec, level=level, threads=2, observe=scanner.feed)
        run_to_end(pipeline)
    after, count = resource.getrusage(resource.RUSAGE_SELF), pipeline.stats.frame_count
    sender.join()
    for what, name in (("user", "ru_utime"), ("system", "ru_stime"), ("faults", "ru_minflt"), ("waits", "ru_nvcsw")):
        print(f"{what:6} {(getattr(after, name) - getattr(before, name)) / count:10.6f} per chunk")


if __name__ == "__main__":
    main()
