"""Parts of a save, each alone, as jobs of a worker: the codec over the chunks of a captured stream, one pass of writing."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import thread_time
from typing import Any

from streamsave.codecs.registry import find_codec
from streamsave.endpoints.file import NewImage
from streamsave.format.digest import leaves_of

Job = Callable[[], Any]


def encode(path: str, offset: int, size: int, format: str, level: int, threads: int) -> Job:  # noqa: A002
    """Compress the stream at ``offset`` in ``path`` chunk by chunk, with its leaves, in ``threads``; keep nothing."""
    codec, view = find_codec(format), captured(path, offset, size)
    chunks = [view[start : start + codec.chunk_size] for start in range(0, size, codec.chunk_size)]

    def work(first: int) -> tuple[float, list[int]]:
        encoder = codec.encoder(level)
        room = memoryview(bytearray(codec.bound(codec.chunk_size)))
        encoder.encode(chunks[0], room)
        began, sizes = thread_time(), []
        for chunk in chunks[first::threads]:
            leaves_of(chunk)
            sizes.append(sum(len(part) for part in encoder.encode(chunk, room)))
        return thread_time() - began, sizes

    def run() -> dict[str, Any]:
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(work, range(threads)))
        return {"cpu_s": sum(cpu_s for cpu_s, _ in done), "sizes": [size for _, sizes in done for size in sizes]}

    return run


def write(path: str, offset: int, size: int, target: str, sizes: Sequence[int]) -> Job:
    """Write a file ``target`` in pieces of ``sizes``, as a save does, and make it durable. What is in it does not matter."""
    view = captured(path, offset, size)

    def run() -> dict[str, Any]:
        began = thread_time()
        with NewImage(Path(target), b"") as image:
            start = 0
            for piece in sizes:
                start = start if start + piece <= size else 0
                image.write([view[start : start + piece]])
                start += piece
            image.flush()
            cpu_s = thread_time() - began
            os.link(image.temporary, target)
        return {"cpu_s": cpu_s}

    return run


def captured(path: str, offset: int, size: int) -> memoryview:
    """A stream in a file, mapped, with all of its pages there."""
    with Path(path).open("rb") as file:
        flags = mmap.MAP_PRIVATE | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(file.fileno(), offset + size, flags=flags, prot=mmap.PROT_READ))[offset:]
