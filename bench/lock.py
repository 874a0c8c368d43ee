"""How long a chunk needs the interpreter lock, seen from outside: for it is the one thing that all threads share.

The lock is a word in the interpreter's memory that is 1 while a thread holds it. It is found by watching which word follows
a process that holds the lock and lets go of it in turn, and read some hundred thousand times a second while a part of a save
runs in that process (``held``), on another processor. What share of the looks finds it held, times the time, by the chunks,
is the time that a chunk holds it. Known times that are measured with it say how far it is to be believed.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from statistics import median
from time import sleep
from typing import Any, Final

from streamsave.codecs.registry import codecs, find_codec
from streamsave.units import MiB

AT_MOST_S: Final = 60e-6
"""What is wanted, per chunk."""
SCANNED_SIZE: Final = 256 * 1024
LOOKS: Final = 2000
KNOWN_US: Final = (0, 5, 20, 50, 100)
HOLD_S: Final = 0.2
ATTEMPTS: Final = 5


class NoLockError(Exception):
    """It cannot be watched here; says why."""


class Watched:
    """A process that runs a part, and the place of its lock."""

    def __init__(self, cpu: int, *part: str) -> None:
        command = [sys.executable, "-m", "bench.held", str(cpu), *part]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            bases = [int(word) for word in self._answer().split()]
            self._memory = self._open_memory()
            self._address = self._find(bases)
        except BaseException:
            self.close()
            raise

    def held_s(self, seconds: float) -> float:
        """How long a chunk of the part holds the lock, over ``seconds`` of it."""
        self._tell("run", seconds)
        looks = found = 0
        assert self._process.stdout
        answer = select.poll()
        answer.register(self._process.stdout, select.POLLIN)
        while not answer.poll(0):
            for _ in range(LOOKS):
                found += os.pread(self._memory, 4, self._address) != b"\0\0\0\0"
            looks += LOOKS
        count, wall_s = self._answer().split()
        return found / looks * float(wall_s) / int(count)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        if hasattr(self, "_memory"):
            os.close(self._memory)

    def _open_memory(self) -> int:
        try:
            return os.open(f"/proc/{self._process.pid}/mem", os.O_RDONLY)
        except OSError as error:
            raise NoLockError(
                f"the memory of a child process cannot be read ({error.strerror}): run this as root"
            ) from error

    def _find(self, bases: Sequence[int]) -> int:
        """The address of the only word that is 1 whenever the lock is held and 0 whenever it is not.

        A machine that others use may run neither of us in time: then it is looked for again.
        """
        for _ in range(ATTEMPTS):
            if found := self._followers(bases):
                return min(found)
        raise NoLockError(f"the lock of Python {sys.version.split()[0]} is not where it was looked for")

    def _followers(self, bases: Sequence[int]) -> set[int]:
        found: set[int] | None = None
        for what, value in (("hold", 1), ("sleep", 0)) * 4:
            self._tell(what, HOLD_S)
            sleep(HOLD_S / 4)
            now = {address for base in bases for address in self._words(base, value)}
            found = now if found is None else found & now
            sleep(HOLD_S)
        return found or set()

    def _words(self, base: int, value: int) -> Iterator[int]:
        data = bytearray()
        while len(data) < SCANNED_SIZE:
            try:
                data += os.pread(self._memory, 4096 - (base + len(data)) % 4096, base + len(data))
            except OSError:
                break  # the end of what is mapped
        words = memoryview(bytes(data[: len(data) // 4 * 4])).cast("I")
        return (base + 4 * number for number, word in enumerate(words) if word == value)

    def _tell(self, what: str, seconds: float) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{what} {seconds}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise NoLockError("the watched process ended; it says why")
        return line


def measure_lock(seconds: float = 2.0, repeats: int = 5) -> dict[str, Any]:
    """Seconds with the lock, per chunk, of each part and codec; and what known times were measured as, in microseconds.

    Raises:
        NoLockError: there is one processor only, or no way to look.

    """
    with _two_processors() as cpu:
        known = {str(us): _held(cpu, seconds, repeats, "held", str(us)) * 1e6 for us in KNOWN_US}
        loop_s = known["0"] / 1e6
        parts = {part: _held(cpu, seconds, repeats, part) - loop_s for part in ("read", "observe", "write")}
        parts["engine"] = _held(cpu, seconds, repeats, "engine")
        encoders = {
            name: _held(cpu, seconds, repeats, "encoder", name, str(codec.default_level) if codec.levels else "-")
            for name, codec in codecs().items()
        }
        decoders = {name: _held(cpu, seconds, repeats, "decoder", name) for name in encoders}
    sizes = {name: find_codec(name).chunk_size // MiB for name in encoders}
    return {"known_us": known, "parts_s": parts, "encoders_s": encoders, "decoders_s": decoders, "chunk_mib": sizes}


def held_per_chunk(measured: dict[str, Any], codec: str) -> float:
    """All parts of a save with ``codec``, in seconds."""
    return float(sum(measured["parts_s"].values()) + measured["encoders_s"][codec])


def _held(cpu: int, seconds: float, repeats: int, *part: str) -> float:
    with closing(Watched(cpu, *part)) as watched:
        return median(watched.held_s(seconds / repeats) for _ in range(repeats))


@contextmanager
def _two_processors() -> Iterator[int]:
    """We on one, and the number of another."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise NoLockError("watching takes a processor of its own, and this machine has one")
    os.sched_setaffinity(0, {usable[-1]})
    try:
        yield usable[0]
    finally:
        os.sched_setaffinity(0, usable)


def main() -> int:
    """Measure and print: three minutes, as root for figures that other programs do not spoil."""
    argparse.ArgumentParser(prog="python -m bench.lock", description=main.__doc__).parse_args()
    measured = measure_lock()
    print("known times, in us, as measured: " + ", ".join(f"{us}: {got:.1f}" for us, got in measured["known_us"].items()))
    for part, held_s in measured["parts_s"].items():
        print(f"{part:10} {held_s * 1e6:6.1f} us")
    print("codec     encoder  all of a save  decoder  chunk")
    for name, held_s in measured["encoders_s"].items():
        times = (held_s * 1e6, held_per_chunk(measured, name) * 1e6, measured["decoders_s"][name] * 1e6)
        print("{:9} {:7.1f} {:14.1f} {:8.1f}  {} MiB".format(name, *times, measured["chunk_mib"][name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
