"""streamsave against the tools that others save guests with, and against the limit of this machine: JSON and a report.

The whole takes hours (the stock tools do); ``--quick`` takes minutes and shows only how it will look. What is in the results
already is kept, so a run that was ended goes on with the next group. Method and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.kit.linux import KitError
from tests.kit.qemu import RunningQemu

from streamsave.units import MiB

from . import machine
from .contestants import SAVES
from .guests import GUESTS, describe, filled_guest
from .limit import FORMATS, measure_limit
from .lock import NoLockError, measure_lock
from .measure import Measurement, Plan
from .report import REPORT, RESULTS, write_report
from .results import OtherMachineError, Results
from .scaling import measure_scaling
from .wanted import GUEST

HERE: Final = Path(__file__).resolve().parent
TMPFS: Final = Path("/dev/shm")
DISK: Final = HERE.parent / ".cache" / "bench"
WHATS: Final = ("save", "restore", "limit", "lock", "scaling")


def main() -> int:
    """Measure, write the results and the report; 0 if all of it worked."""
    args = _arguments()
    folder = args.results or (DISK / "quick" if args.quick else HERE / "results")
    path, say = folder / RESULTS, _clock()
    if args.again:
        path.unlink(missing_ok=True)
    try:
        results = Results.continued(path, machine.facts())
        results.parts.setdefault("load", machine.load())
        _measure(args, results, path, say)
    except (KitError, NoLockError, OtherMachineError, machine.MissingToolError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    write_report(results, folder)
    say(f"the report is {folder / REPORT}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of the guest full of programs, made small, on tmpfs")
    parser.add_argument("--memory", type=int, metavar="MIB", help="RAM of the guests (default: 3072; quick: 1024)")
    parser.add_argument(
        "--slow-memory",
        type=int,
        metavar="MIB",
        help="RAM of the guests that gzip, bzip2 and xz are tried with, which take minutes for each GiB (default: as"
        " --memory; quick: 192)",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often everyone's turn comes (default: 5; quick: 1)")
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        help="where the images go; may be repeated (default: /dev/shm and .cache/bench; quick: /dev/shm)",
    )
    parser.add_argument("--guests", type=_names, help=f"of {','.join(GUESTS)} (default: all; quick: {GUEST})")
    parser.add_argument("--groups", type=_names, default=(), help=f"of {','.join(group.name for group in SAVES)}")
    parser.add_argument("--what", type=_names, default=WHATS, help=f"of {','.join(WHATS)} (default: all)")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="(default: bench/results; quick: .cache/bench/quick)")
    parser.add_argument("--again", action="store_true", help="begin anew, whatever is in the results")
    args = parser.parse_args()
    args.memory = args.memory or (1024 if args.quick else 3072)
    args.slow_memory = args.slow_memory or (192 if args.quick else args.memory)
    args.rounds = args.rounds or (1 if args.quick else 5)
    args.guests = args.guests or ((GUEST,) if args.quick else GUESTS)
    args.folder = args.folder or ([TMPFS] if args.quick else [TMPFS, DISK])
    DISK.mkdir(parents=True, exist_ok=True)
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _measure(args: argparse.Namespace, results: Results, path: Path, say: Callable[[str], None]) -> None:
    """Guest ``GUEST`` in every folder, the others in the first."""
    for guest in args.guests:
        plan = Plan(
            folders=tuple(args.folder if guest == GUEST else args.folder[:1]),
            guests=(guest,),
            groups=args.groups,
            memory=args.memory * MiB,
            slow_memory=args.slow_memory * MiB,
            rounds=args.rounds,
            kinds=tuple(kind for kind in ("save", "restore") if kind in args.what),
        )
        Measurement(plan, results, path, say).run()
    if "limit" in args.what and "limit" not in results.parts:
        results.parts["limit"] = _limits(args, results, say)
        results.write(path)
    if "lock" in args.what and "lock" not in results.parts:
        say("the interpreter lock")
        results.parts["lock"] = measure_lock(seconds=0.6 if args.quick else 3.0, repeats=3 if args.quick else 5)
        results.write(path)
    if "scaling" in args.what and "scaling" not in results.parts and {"limit", "lock"} <= results.parts.keys():
        say("more cores")
        results.parts["scaling"] = measure_scaling(results, 1.0 if args.quick else 4.0, say)
        results.write(path)


def _limits(args: argparse.Namespace, results: Results, say: Callable[[str], None]) -> list[dict[str, object]]:
    guest, filling = filled_guest(GUEST, args.memory * MiB)
    results.add_filling(describe(filling))
    say(f"the limit of the machine, guest {GUEST}, {args.memory} MiB: booting")
    measured = []
    with RunningQemu(guest) as qemu:
        qemu.boot()
        for folder in args.folder:
            with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as work:
                for ours in FORMATS:
                    part = measure_limit(qemu, ours, Path(work), args.rounds, say)
                    measured.append({**part, "folder": machine.file_system(folder)})
    return measured


def _clock() -> Callable[[str], None]:
    began = time.monotonic()
    return lambda text: print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
