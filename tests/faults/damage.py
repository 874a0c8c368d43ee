"""Random damage to images: each is a clear error or provably the right bytes; never a hang, a crash, or unbounded memory.

``python -m tests.faults.damage --trials 10000`` runs a campaign, evenly over formats, regions and kinds of damage. A trial
is made from its number and the seed alone, so ``--seed S --only N`` runs one again, with what it came to printed.
``make damage`` runs the long one, ``test_damage.py`` a short one in every test run.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from streamsave.codecs.registry import codecs
from streamsave.errors import StreamsaveError
from streamsave.format.header import HEADER_SIZE
from streamsave.operations.image import read_info
from streamsave.operations.image_stream import open_stream
from streamsave.operations.verify import verify
from streamsave.units import MiB

from ..kit.images import made_up_stream, restored, save_bytes

GOLDEN: Final = Path(__file__).parents[1] / "data" / "golden"
REGIONS: Final = ("header", "metadata", "frames", "index", "end")
TRIAL_TIMEOUT_S: Final = 60.0
MEMORY_LIMIT: Final = 200 * MiB
"""More than before the trial; an xz or bzip2 decoder has its own tens of MiB."""
GROWTH_LIMIT: Final = 500 * MiB
"""Of a process that has run thousands of trials."""


@dataclass(frozen=True)
class Sample:
    """An undamaged image: its bytes, the stream in it, and where its regions begin and end."""

    name: str
    data: bytes
    stream: bytes
    regions: dict[str, tuple[int, int]]
    frames: tuple[tuple[int, int], ...]
    """Offset and size of each frame in the file; none where another program wrote it."""
    checked: bool
    """Whether all of the stream is under a checksum: not in raw images that another program wrote."""


@dataclass(frozen=True)
class Trial:
    """What one damage came to. ``broken`` says which promise it broke; empty: none."""

    number: int
    sample: str
    region: str
    kind: str
    outcome: str
    broken: str = ""
    peak: int = 0
    """How much memory it took at most."""
    held: int = 0
    """How much the process has after it."""


@cache
def samples() -> tuple[Sample, ...]:
    """Ours in every format, and those of stock virsh."""
    found = []
    stream = made_up_stream(700)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guest.save"
        for name in codecs():
            save_bytes(stream, path, format=name)
            found.append(_sample(name, path, stream, checked=True))
    foreign = sorted(GOLDEN.glob("*.save"))
    found += [_sample(path.name, path, restored(path)[0], checked=".raw." not in path.name) for path in foreign]
    return tuple(found)


def _sample(name: str, path: Path, stream: bytes, *, checked: bool) -> Sample:
    info = read_info(path)
    end = info.payload_offset + info.payload_size
    regions = {
        "header": (0, HEADER_SIZE),
        "metadata": (HEADER_SIZE, info.payload_offset),
        "frames": (info.payload_offset, end),
        "index": (end, info.file_size) if info.index else (info.payload_offset, end),
        "end": (max(info.payload_offset, info.file_size - 200), info.file_size),
    }
    table = info.index.frames if info.index else None
    frames = [(info.payload_offset + table.frame_offset(n), table.sizes[n]) for n in range(len(table))] if table else []
    return Sample(name, path.read_bytes(), stream, regions, tuple(frames), checked)


# -- the damages ------------------------------------------------------------------------------------------------------

Damage = Callable[[Random, bytearray, int, int, Sample], None]
"""Hits the bytes from the first to the second number."""


def flip(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    for _ in range(random.choice([1, 1, 1, 2, 8])):
        data[random.randrange(start, end)] ^= 1 << random.randrange(8)


def cut(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    del data[random.randrange(start, end) :]


def remove(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    at = random.randrange(start, end)
    del data[at : at + random.choice([1, 4, 100, 5000])]


def insert(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    at = random.randrange(start, end)
    data[at:at] = random.choice([bytes(1), bytes(4096), random.randbytes(random.choice([1, 4, 1000]))])


def blank(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    at = random.randrange(start, end)
    size = min(random.choice([4, 512, 4096, 100_000]), len(data) - at)
    data[at : at + size] = random.choice([bytes(size), b"\xff" * size, random.randbytes(size)])


def splice(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A piece of this image or of another in place of another."""
    source = random.choice(samples()).data if random.random() < 0.5 else bytes(data)
    size = min(random.choice([8, 64, 4096, 65536]), end - start)
    at, origin = random.randrange(start, end), random.randrange(max(1, len(source) - size))
    data[at : at + size] = source[origin : origin + size]


def resize(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A number that stands somewhere becomes a hostile one."""
    at = random.randrange(start, max(start + 1, end - 8))
    if start == 0 and random.random() < 0.7:  # the header's own fields, and those of the pointer
        at = random.choice([16, 20, 24, 28, 32, 60, 64, 68, 76, 84])
    value = random.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, len(data)])
    wide = random.random() < 0.5
    number = struct.pack(random.choice("<>") + ("Q" if wide else "I"), value & ((1 << 64) - 1 if wide else 0xFFFFFFFF))
    data[at : at + len(number)] = number


def swap(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """Two frames, or two pieces where there are no frames of ours."""
    if len(sample.frames) > 1:
        (first, first_size), (second, second_size) = sorted(random.sample(sample.frames, 2))
    else:
        first_size = second_size = max(1, (end - start) // 4)
        first, second = start, end - second_size
    if first + first_size > second:
        return flip(random, data, start, end, sample)
    pieces = data[second : second + second_size], data[first + first_size : second], data[first : first + first_size]
    data[first : second + second_size] = b"".join(pieces)
    return None


def repeat(random: Random, data: bytearray, start: int, end: int, sample: Sample) -> None:
    """A frame twice."""
    at, size = random.choice(sample.frames) if sample.frames else (start, min(4096, end - start))
    data[at:at] = data[at : at + size]


DAMAGES: Final[dict[str, Damage]] = {
    damage.__name__: damage for damage in (flip, cut, remove, insert, blank, splice, resize, swap, repeat)
}

# -- one trial --------------------------------------------------------------------------------------------------------


def run_trial(seed: int, number: int) -> Trial:
    """Damage an image and look at it with everything that reads images."""
    random = Random(f"{seed} {number}")
    sample = samples()[number % len(samples())]
    region = REGIONS[number // len(samples()) % len(REGIONS)]
    kind = list(DAMAGES)[number // len(samples()) // len(REGIONS) % len(DAMAGES)]
    data = bytearray(sample.data)
    DAMAGES[kind](random, data, *sample.regions[region], sample)
    before = _forget_peak()
    faulthandler.dump_traceback_later(TRIAL_TIMEOUT_S, exit=True)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
            file.write(data)
            file.flush()
            outcome, broken = _look(Path(file.name), sample, random)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if threading.active_count() != threads or len(os.listdir("/proc/self/fd")) != descriptors:
        broken = broken or "a thread or a descriptor is left"
    peak = _memory("VmHWM") - before
    if peak > MEMORY_LIMIT:
        broken = broken or f"{peak // MiB} MiB of memory"
    return Trial(number, sample.name, region, kind, outcome, broken, peak, _memory("VmRSS"))


def _forget_peak() -> int:
    """Begin a new ``VmHWM``; how much memory this process has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _look(path: Path, sample: Sample, random: Random) -> tuple[str, str]:
    """What came of it, and which promise was broken."""
    good, outcome = True, "good"
    try:
        verify(path)
    except StreamsaveError as error:
        good, outcome = False, type(error).__name__
        if "\n" in str(error) or len(str(error)) < 20:
            return outcome, f"no clear error: {error!r}"
    except BaseException as error:
        return "crash", f"verify raised {error!r}"
    try:
        stream = restored(path)[0]
        right = stream == sample.stream
    except StreamsaveError:
        right, stream = None, b""
    except BaseException as error:
        return "crash", f"restoring raised {error!r}"
    if sample.checked and right is False:
        return outcome, "restoring gave wrong bytes for good"
    if good and sample.checked and right is not True:
        return outcome, "verify called it good, and it does not restore"
    return outcome, _read_pieces(path, sample, random)


def _read_pieces(path: Path, sample: Sample, random: Random) -> str:
    """Random reads, on after an error: what was refused once must not come out as something else."""
    try:
        with open_stream(path) as file:
            for offset in (random.randrange(len(sample.stream)), 0, random.randrange(len(sample.stream))):
                try:
                    piece = file.read_at(offset, 4096)
                except StreamsaveError:
                    continue
                # Without an index a checksum stands behind what it covers, and is read later; that is for verify to see.
                if sample.checked and file.info.index and piece != sample.stream[offset : offset + 4096]:
                    return f"open_stream gave wrong bytes at {offset}"
    except StreamsaveError:
        pass
    except BaseException as error:
        return f"open_stream raised {error!r}"
    return ""


# -- a campaign -------------------------------------------------------------------------------------------------------


def run_campaign(seed: int, numbers: Sequence[int], workers: int) -> list[Trial]:
    """All trials, in processes of their own: one that hangs or crashes breaks the pool, which is told."""
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(run_trial, [seed] * len(numbers), numbers, chunksize=25))


def main() -> int:
    """Run and print a summary; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.damage", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="(default: one that is printed)")
    parser.add_argument("--only", type=int, help="this trial alone")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    if args.only is not None:
        print(run_trial(seed, args.only))
        return 0
    print(f"seed {seed}, {args.trials} trials", flush=True)
    trials = run_campaign(seed, range(args.trials), args.workers)
    for name, count in sorted(Counter(trial.outcome for trial in trials).items()):
        print(f"{count:6} {name}")
    held = max(trial.held for trial in trials)
    print(f"memory: at most {max(trial.peak for trial in trials) // MiB} MiB for a trial, {held // MiB} MiB in a process")
    if held > GROWTH_LIMIT:
        print("BROKEN: the processes grow")
    broken = [trial for trial in trials if trial.broken]
    for trial in broken:
        print(f"BROKEN: --seed {seed} --only {trial.number}: {trial}")
    print(f"{len(trials) - len(broken)} of {len(trials)} kept every promise")
    return 1 if broken or held > GROWTH_LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
