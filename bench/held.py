"""What a chunk costs with the interpreter lock held: loops of one part each, run in a process that ``lock`` watches.

A part loops in one thread, so that nothing but the part itself decides how long the lock is held; the engine's own share is
taken with a codec that only sleeps, which holds no lock. All of it on one processor; who watches has another.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.kit.images import long_stream

from streamsave._native.scan import StreamScanner
from streamsave.cli.heap import keep_freed_memory
from streamsave.codecs.registry import find_codec
from streamsave.endpoints.file import NewImage
from streamsave.endpoints.memory import DiscardSink
from streamsave.endpoints.socket import SocketSource
from streamsave.format.digest import leaves_of
from streamsave.format.pages import FirstRecords
from streamsave.pipeline.compress import Compression
from streamsave.units import MiB

from .guests import filled_blob
from .simulation import LendingSource, SimulatedCodec

SLEEP_S: Final = 0.001
"""A part that never lets go of the lock by itself sleeps that long between two chunks."""
LEAST: Final = 16
"""So many chunks, however slow they are: what a run takes beside them has to be little."""
Part = Callable[[], object]
"""Does a chunk."""


def spin(hold_s: float) -> None:
    """Hold the lock for so long."""
    end = time.perf_counter() + hold_s
    while time.perf_counter() < end:
        pass


def held(hold_us: str) -> Iterator[Part]:
    """A known time, to see what the watcher makes of it."""
    hold_s = float(hold_us) / 1e6

    def part() -> None:
        spin(hold_s)
        time.sleep(SLEEP_S)

    yield part


def encoder(name: str, level: str) -> Iterator[Part]:
    """The leaves and the encoder."""
    codec = find_codec(name)
    encoder = codec.encoder(codec.check_level(int(level) if level != "-" else None))
    room = memoryview(bytearray(codec.bound(codec.chunk_size)))
    chunks = cycle(_chunks(codec.chunk_size, 64 * MiB))

    def part() -> None:
        chunk = next(chunks)
        leaves_of(chunk)
        encoder.encode(chunk, room)

    yield part


def decoder(name: str) -> Iterator[Part]:
    """The decoder and the leaves."""
    codec = find_codec(name)
    encoder, decoder = codec.encoder(codec.default_level), codec.decoder()
    frame_room, room = (memoryview(bytearray(size)) for size in (codec.bound(codec.chunk_size), codec.chunk_size))
    chunks = _chunks(codec.chunk_size, 24 * MiB)
    frames = cycle([memoryview(b"".join(encoder.encode(chunk, frame_room))) for chunk in chunks])

    def part() -> None:
        leaves_of(memoryview(decoder.decode(next(frames), room)))

    yield part


def _chunks(chunk_size: int, size: int) -> list[memoryview]:
    data = memoryview(filled_blob("programs", 64 * MiB)[0].path.read_bytes())[:size]
    return [data[start : start + chunk_size] for start in range(0, size, chunk_size)]


def read() -> Iterator[Part]:
    """The socket: what is sent, here by the same thread, is a part of a chunk that never blocks."""
    ours, theirs = socket.socketpair()
    view, piece = memoryview(bytearray(64 * 1024)), bytes(64 * 1024)
    source = SocketSource(ours)
    with ours, theirs:

        def part() -> None:
            theirs.send(piece)
            source.readinto(view)
            time.sleep(SLEEP_S)

        yield part


def observe() -> Iterator[Part]:
    """The scanner and where the first record of a chunk is."""
    stream = memoryview(b"".join(long_stream(64 * MiB)))
    chunks = [stream[start : start + MiB] for start in range(0, len(stream), MiB)]
    scanner, records, number = StreamScanner(), FirstRecords(), 0

    def part() -> None:
        nonlocal number, records, scanner
        if number == len(chunks):
            scanner, records, number = StreamScanner(), FirstRecords(), 0
        scanner.feed(chunks[number])
        records.append(number * MiB, scanner.first_record)
        number += 1
        time.sleep(SLEEP_S)

    yield part


def write() -> Iterator[Part]:
    """The image's file."""
    frame = bytes(350 * 1024)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, NewImage(Path(folder) / "image", b"") as image:

        def part() -> None:
            if image.size > 64 * MiB:
                os.ftruncate(image.fileno(), 0)
                os.lseek(image.fileno(), 0, os.SEEK_SET)
                image.size = 0
            image.write([frame[:12], frame])
            time.sleep(SLEEP_S)

        yield part


def engine() -> Iterator[Part]:
    """The pipeline: a chunk read, queued, taken, delivered, written, recycled."""
    source = LendingSource(None)
    codec = SimulatedCodec(hold_s=0.0, total_s=2 * SLEEP_S)
    pipeline = Compression(source, DiscardSink(), codec, level=0, threads=2, observe=lambda view: None)
    taken = 0

    def part() -> None:
        nonlocal taken
        if not taken:
            pipeline.start()  # not before: the lock is looked for in a process that does nothing else
        taken += 1
        while pipeline.stats.frame_count < taken:
            time.sleep(0.1)

    yield part
    source.end()
    if taken:
        pipeline.join()


PARTS: Final[Mapping[str, Callable[..., Iterator[Part]]]] = MappingProxyType(
    {part.__name__: part for part in (held, encoder, decoder, read, observe, write, engine)}
)


def main() -> int:
    """``python -m bench.held CPU PART ARGUMENT...``: says where the interpreter is; then a line comes for what to do.

    ``hold`` and ``sleep`` for finding the lock; ``run SECONDS`` for the part, answered by the count of chunks and the time.
    """
    cpu, name, *arguments = sys.argv[1:]
    keep_freed_memory()  # as the command line does
    ctypes.pythonapi.PyInterpreterState_Get.restype = ctypes.c_void_p
    runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    parts = PARTS[name](*arguments)
    part = next(parts)
    os.sched_setaffinity(0, {int(cpu)})  # for the threads that the part starts too
    with suppress(PermissionError):  # or the lock would be held for as long as another program ran in between
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print(runtime, ctypes.pythonapi.PyInterpreterState_Get(), flush=True)
    for line in sys.stdin:
        what, seconds = line.split()
        print("ok", flush=True)
        if what == "hold":
            spin(float(seconds))
        elif what == "sleep":
            time.sleep(float(seconds))
        else:
            _run(part, float(seconds))
    next(parts, None)
    return 0


def _run(part: Part, seconds: float) -> None:
    part()  # the first one is slow
    began, count = time.perf_counter(), 0
    while (wall_s := time.perf_counter() - began) < seconds or count < LEAST:
        part()
        count += 1
    print(count, wall_s, flush=True)


if __name__ == "__main__":
    sys.exit(main())
