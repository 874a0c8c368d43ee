"""What goes wrong inside the process: installed by ``client`` before the operation begins, there until its end.

Each takes an amount and a seed. Where the system has a limit of its own (memory, descriptors, the size of a file) it is set,
otherwise a call is made to fail as it does there.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs
from streamsave.endpoints.faults import FailingSource
from streamsave.endpoints.socket import SocketSource
from streamsave.units import MiB

from ..instants import STREAM_SIZE, instant, nth, saving

Inner: TypeAlias = Callable[[float, str], None]


def fsync_fails(amount: float, seed: str) -> None:
    """The call of that number, and with half a number all that follow: for good."""

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fsync = instant(os.fsync, fail, before=True, when=nth(int(amount), for_good=amount % 1 >= 0.5))


def short_writes(amount: float, seed: str) -> None:
    """Every write takes some of what it is given, sometimes one byte."""
    chance, writev = Random(seed), os.writev

    def write(fd: int, views: Sequence[memoryview]) -> int:
        first = memoryview(views[0]).cast("B")
        return writev(fd, [first[: max(1, int(len(first) * chance.random()))]])

    os.writev = write  # type: ignore[assignment]


def short_reads(amount: float, seed: str) -> None:
    """The same for what is read."""
    chance = Random(seed)

    def short(readv: Any) -> Any:
        def read(fd: int, views: Any, *offset: int) -> int:
            got: int = readv(fd, [views[0][: max(1, int(len(views[0]) * chance.random()))]], *offset)
            return got

        return read

    os.readv, os.preadv = short(os.readv), short(os.preadv)


def slow_disk(amount: float, seed: str) -> None:
    """Every call takes up to ``amount`` seconds."""
    chance = Random(seed)

    def wait() -> None:
        time.sleep(amount * chance.random())

    os.writev, os.fsync = instant(os.writev, wait), instant(os.fsync, wait)
    os.readv, os.preadv = instant(os.readv, wait), instant(os.preadv, wait)


def codec_raises(amount: float, seed: str) -> None:
    """An encoder or a decoder, at its call of that number, an error that is none of ours."""
    chance = Random(seed)

    def fail() -> None:
        raise chance.choice((ValueError("injected into the codec"), MemoryError("injected into the codec")))

    when = nth(int(amount))

    def broken(coder: Any, method: str) -> Any:
        return _Broken(coder, method, instant(getattr(coder, method), fail, before=True, when=when))

    for codec in codecs().values():
        kind: type[Codec] = type(codec)
        kind.encoder = _wrapped(kind.encoder, broken, "encode")  # type: ignore[method-assign]
        kind.decoder = _wrapped(kind.decoder, broken, "decode")  # type: ignore[method-assign]


def _wrapped(make: Any, broken: Callable[[Any, str], Any], method: str) -> Any:
    return lambda *arguments: broken(make(*arguments), method)


class _Broken:
    """A coder of which one method is another."""

    def __init__(self, coder: Any, name: str, method: Any) -> None:
        self._coder = coder
        setattr(self, name, method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coder, name)


def no_thread(amount: float, seed: str) -> None:
    """The start of that number is refused, as by the system."""

    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    start = instant(threading.Thread.start, refuse, before=True, when=nth(int(amount)))
    threading.Thread.start = start  # type: ignore[method-assign]


def little_memory(amount: float, seed: str) -> None:
    """So many bytes of address space more than there are now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(amount * MiB)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def few_descriptors(amount: float, seed: str) -> None:
    """So many more than there are now."""
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + int(amount), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def small_files(amount: float, seed: str) -> None:
    """No file may have more MiB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(amount * MiB), resource.RLIM_INFINITY))


def stream_breaks(amount: float, seed: str) -> None:
    """The socket from QEMU gives an error after that part of the stream."""
    saving.SocketSource = lambda sock: FailingSource(SocketSource(sock), int(amount * STREAM_SIZE))


INNER: Final[dict[str, Inner]] = {
    each.__name__.replace("_", " "): each
    for each in (
        *(fsync_fails, short_writes, short_reads, slow_disk, codec_raises, no_thread, little_memory, few_descriptors),
        *(small_files, stream_breaks),
    )
}
