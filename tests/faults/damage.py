"""Random damage to images: each is a clear error or provably the right bytes; never a hang, a crash, or unbounded memory.

``python -m tests.faults.damage --trials 10000`` runs a campaign, evenly over images, their regions and kinds of damage. A
trial is made from its number and the seed alone, so ``--seed S --only N`` runs one again, with what it came to printed.
All that reads images gets the damaged one, and then one of those that change images: what they refuse they leave alone.
``make damage`` runs the long one, ``test_damage.py`` a short one in every test run.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
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

from streamsave.errors import StreamsaveError
from streamsave.operations.convert import convert
from streamsave.operations.edit import edit
from streamsave.operations.image import read_info
from streamsave.operations.image_stream import open_stream
from streamsave.operations.verify import verify
from streamsave.options import CompressOptions
from streamsave.units import MiB

from ..kit.images import restored
from ..kit.leaks import forget_peak, memory
from .damage_kinds import DAMAGES
from .damage_samples import Sample, samples

REGIONS: Final = ("header", "metadata", "frames", "index", "end")
TRIAL_TIMEOUT_S: Final = 120.0
MEMORY_LIMIT: Final = 300 * MiB
"""More than before the trial. Two pipelines convert, and the blocks of a foreign xz image have slots of 24 MiB."""
GROWTH_LIMIT: Final = 500 * MiB
"""Of a process that has run thousands of trials."""
NEW_FORMAT: Final = "lz4"
"""What is converted to: the fastest that has a checksum."""


@dataclass(frozen=True)
class Trial:
    """What one damage came to. ``broken`` says which promise it broke; empty: none."""

    number: int
    sample: str
    region: str
    kind: str
    hit: bool
    """The bytes changed, from some place in the region on."""
    outcome: str
    """Of ``verify``."""
    change: str
    """Which change was tried, and what became of it."""
    broken: str = ""
    peak: int = 0
    """How much memory it took at most."""
    held: int = 0
    """How much the process has after it."""


@cache
def places() -> tuple[tuple[Sample, str], ...]:
    """What may be hit: each region that each image has."""
    return tuple((sample, region) for sample in samples() for region in REGIONS if region in sample.regions)


def trial_count() -> int:
    """How many trials hit every place in every way, once; those with the next numbers begin anew."""
    return len(places()) * len(DAMAGES)


def what_is(number: int) -> tuple[Sample, str, str]:
    """The image, its region, and the kind of damage of a trial."""
    sample, region = places()[number % len(places())]
    return sample, region, list(DAMAGES)[number // len(places()) % len(DAMAGES)]


# -- one trial --------------------------------------------------------------------------------------------------------


def run_trial(seed: int, number: int) -> Trial:
    """Damage an image and look at it with everything that reads images."""
    random = Random(f"{seed} {number}")
    sample, region, kind = what_is(number)
    data = bytearray(sample.data)
    DAMAGES[kind](random, data, *sample.regions[region], sample)
    before = forget_peak()
    faulthandler.dump_traceback_later(TRIAL_TIMEOUT_S, exit=True)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            path = Path(folder) / "guest.save"
            path.write_bytes(data)
            outcome, broken = _look(path, sample, random)
            change, error = _change(path, bytes(data), sample, random)
    finally:
        faulthandler.cancel_dump_traceback_later()
    broken = broken or error
    if threading.active_count() != threads or len(os.listdir("/proc/self/fd")) != descriptors:
        broken = broken or "a thread or a descriptor is left"
    peak = memory("VmHWM") - before
    if peak > MEMORY_LIMIT:
        broken = broken or f"{peak // MiB} MiB of memory"
    if memory("VmRSS") > GROWTH_LIMIT // 2:
        gc.collect()  # what errors of earlier trials hold in circles
    hit = _is_hit(sample, region, data)
    return Trial(number, sample.name, region, kind, hit, outcome, change, broken, peak, memory("VmRSS"))


def _is_hit(sample: Sample, region: str, data: bytearray) -> bool:
    if data == sample.data:
        return False
    low, high = 0, min(len(data), len(sample.data))  # the first difference is in between
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if data[:middle] == sample.data[:middle] else (low, middle - 1)
    start, end = sample.regions[region]
    return start <= low <= end


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
        right = _is_right(restored(path)[0], path, sample)
    except StreamsaveError:
        right = None
    except BaseException as error:
        return "crash", f"restoring raised {error!r}"
    if sample.checked and right is False:
        return outcome, "restoring gave wrong bytes for good"
    if good and sample.checked and right is not True:
        return outcome, "verify called it good, and it does not restore"
    return outcome, _read_pieces(path, sample, random)


def _is_right(stream: bytes, path: Path, sample: Sample) -> bool:
    """Whether all that can be held against something is as it was. QEMU reads nothing behind the end of the stream."""
    firm = sample.stream[: sample.firm_size]
    return stream == sample.stream or (stream.startswith(firm) and read_info(path).index is None)


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


# -- what changes images ----------------------------------------------------------------------------------------------


def _change(path: Path, data: bytes, sample: Sample, random: Random) -> tuple[str, str]:
    """One change, what became of it, and which promise was broken."""
    name, change = random.choice(list(CHANGES.items()))
    try:
        broken = change(path, data, sample)
    except StreamsaveError as error:
        left = sorted(each.name for each in path.parent.iterdir())
        if left != [path.name]:
            broken = f"{name} failed and left {left}"
        elif path.read_bytes() != data:
            broken = f"{name} failed and changed the image"
        else:
            return f"{name}: {type(error).__name__}", ""
    except BaseException as error:
        broken = f"{name} raised {error!r}"
    return f"{name}: done", broken


def _convert_in_place(path: Path, data: bytes, sample: Sample) -> str:
    convert(path, path, CompressOptions(format=NEW_FORMAT))
    return _wrong_stream(path, sample)


def _convert(path: Path, data: bytes, sample: Sample) -> str:
    new = path.with_name("new.save")
    convert(path, new, CompressOptions(format=NEW_FORMAT))
    return _wrong_stream(new, sample) or ("convert changed its source" if path.read_bytes() != data else "")


def _wrong_stream(path: Path, sample: Sample) -> str:
    firm = sample.stream[: sample.firm_size]
    return "convert wrote another stream" if sample.checked and not restored(path)[0].startswith(firm) else ""


def _edit(path: Path, data: bytes, sample: Sample) -> str:
    """Succeeds whatever is in the payload, which stays as it is."""
    before = read_info(path)
    xml = before.metadata.xml.replace("</name>", "</name><title>edited</title>")
    report = edit(path, xml=xml, state="paused")
    if not report.changed:
        return "" if path.read_bytes() == data else "edit changed the image and says that it did not"
    after = read_info(path)
    if (after.metadata.xml, after.metadata.cookie, after.header.was_running) != (xml, before.metadata.cookie, False):
        return "edit did not write what it was given"
    same = path.read_bytes()[after.payload_offset :] == data[before.payload_offset :]
    return "" if same else "edit changed the payload"


CHANGES: Final[dict[str, Callable[[Path, bytes, Sample], str]]] = {
    "convert in place": _convert_in_place,
    "convert": _convert,
    "edit": _edit,
}

# -- a campaign -------------------------------------------------------------------------------------------------------


def run_campaign(seed: int, numbers: Sequence[int], workers: int) -> list[Trial]:
    """All trials, in processes of their own: one that hangs or crashes breaks the pool, which is told."""
    samples()  # before they fork: in all of them the same
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(run_trial, [seed] * len(numbers), numbers, chunksize=25))


def table(trials: Sequence[Trial]) -> str:
    """How many trials hit each region of each image."""
    hits = Counter((trial.sample, trial.region) for trial in trials if trial.hit)
    lines = [f"{'trials that hit':34}" + "".join(f"{region:>10}" for region in REGIONS)]
    for sample in samples():
        counts = (str(hits[sample.name, region]) if region in sample.regions else "-" for region in REGIONS)
        lines.append(f"{sample.name:34}" + "".join(f"{count:>10}" for count in counts))
    return "\n".join(lines)


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
    print(table(trials))
    for outcomes in (Counter(trial.outcome for trial in trials), Counter(trial.change for trial in trials)):
        print()
        for name, count in sorted(outcomes.items()):
            print(f"{count:6} {name}")
    held = max(trial.held for trial in trials)
    print(f"\nmemory: at most {max(trial.peak for trial in trials) // MiB} MiB for a trial, {held // MiB} MiB in a process")
    if held > GROWTH_LIMIT:
        print("BROKEN: the processes grow")
    broken = [trial for trial in trials if trial.broken]
    for trial in broken:
        print(f"BROKEN: --seed {seed} --only {trial.number}: {trial}")
    print(f"{len(trials) - len(broken)} of {len(trials)} kept every promise")
    return 1 if broken or held > GROWTH_LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
