"""``streamsave bench``: measures this host on the user's own data, and says which format, level and threads to take."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from ..units import format_duration, format_size
from .arguments import add_command, add_json, add_monitor, add_quiet, add_threads, monitor_of
from .output import Output, quote_command, table

if TYPE_CHECKING:
    from ..bench.bench import BenchReport
    from ..bench.recommend import Measurement
    from .arguments import Subparsers

WISHES: Final = ("fastest", "smallest", "balanced")

USAGE = "streamsave bench [IMAGE | --qmp SOCKET] [OPTIONS]"

DESCRIPTION = """\
Measure what this host does with your own data, and recommend a format, a level and a number of threads. The data are pieces
from all over the stream of IMAGE, or of the memory of the guest behind --qmp, which runs on meanwhile; without either, the
programs and libraries of this host. Every level of every format is measured as a save would run it, as far as the time goes.
"""

EXAMPLES = """\
  streamsave bench
  streamsave bench guest.save --wish smallest --within 30
      the smallest image that is saved within half a minute
  streamsave bench --qmp /run/vm.qmp --folder /var/lib/images
      with the guest's own memory, and as fast as that folder can be written
  streamsave bench guest.save --json | jq .recommended
"""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "bench",
        run,
        summary="measure this host and recommend a format",
        description=DESCRIPTION,
        examples=EXAMPLES,
        usage=USAGE,
    )
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="a save image whose stream is the data")
    add_monitor(parser, "the QMP socket of a running guest whose memory is the data; it runs on", required=False)
    parser.add_argument("--wish", choices=WISHES, help="what matters (default: balanced; with --within: smallest)")
    parser.add_argument("--within", metavar="SECONDS", type=float, help="only what is saved within that time")
    parser.add_argument("--folder", metavar="FOLDER", help="measure how fast a file is written there, too")
    add_threads(parser)
    parser.add_argument("--seconds", metavar="N", type=float, default=30.0, help="how long to measure (default: 30)")
    add_json(parser)
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and recommend."""
    from ..bench.bench import bench
    from ..cancel import Cancellation
    from .progress import showing_progress
    from .signals import SignalRelay

    output = Output(json=args.json, quiet=args.quiet)
    cancel = Cancellation()
    with SignalRelay(cancel, busy="still ending the measurement"), showing_progress(output) as progress:
        report = bench(
            args.image,
            monitor=monitor_of(args),
            wish=args.wish,
            within_s=args.within,
            folder=args.folder,
            threads=args.threads,
            seconds=args.seconds,
            progress=progress,
            cancel=cancel,
        )
    if not report.recommendation.fits:
        output.warn(f"nothing that was measured stays within {report.within_s:g} s; this is the fastest")
    output.result("bench", as_fields(report), describe(report))
    return 0


def describe(report: BenchReport) -> str:
    """The table, the picture, and what to do."""
    from ..bench.recommend import expect, worth_a_look

    chosen = report.recommendation.measurement
    shown = worth_a_look(report.measured)
    shown += [] if chosen in shown else [chosen]
    of = "the guest" if report.size_known else format_size(report.situation.stream_size)
    rows = [("", "format", "save MiB/s", "restore MiB/s", "ratio", f"save {of}", "image", "waits for")]
    for each in sorted(shown, key=lambda one: -one.rate):
        expected = expect(each, report.situation)
        rows.append(
            (
                "*" if each is chosen else "",
                each.name,
                f"{each.rate:.0f}" if each.rate >= 10 else f"{each.rate:.1f}",
                f"{each.restore_rate:.0f}",
                f"{each.ratio:.2f}",
                format_duration(expected.save_s),
                format_size(expected.image_size),
                expected.limit,
            )
        )
    head = (
        f"measured with {report.threads} threads on {format_size(report.sample_size)} of: {report.origin}\n"
        f"{len(report.measured)} levels in {format_duration(report.total_s)}; shown are those that no other beats in both"
    )
    if report.situation.source_rate:
        head += f"\nQEMU sends {report.situation.source_rate:.0f} MiB/s"
    if report.situation.write_rate:
        head += f"\nthe folder takes {report.situation.write_rate:.0f} MiB/s"
    return "\n\n".join(
        filter(None, (head, table(rows, right=(2, 3, 4, 5, 6)), "\n".join(_picture(report)), _advice(report)))
    )


def _picture(report: BenchReport) -> list[str]:
    """For people at a terminal."""
    from shutil import get_terminal_size

    from .bench_picture import draw

    if sys.stdout is None or not sys.stdout.isatty():
        return []
    return draw(report.measured, report.recommendation.measurement, get_terminal_size().columns)


def _advice(report: BenchReport) -> str:
    chosen, expected = report.recommendation.measurement, report.recommendation.expectation
    options = ["--format", chosen.format]
    options += [] if chosen.level is None else ["--level", str(chosen.level)]
    options += ["--threads", str(expected.threads)]
    size = "the save" if report.size_known else f"a save of {format_size(report.situation.stream_size)} of stream"
    left_out = "" if report.situation.source_rate else "; QEMU's own work is not in it"
    return (
        f"{report.wish}: {quote_command(options)}\n{size} is expected to take {format_duration(expected.save_s)}, the image"
        f" {format_size(expected.image_size)}, decompressing it {format_duration(expected.restore_s)}{left_out}"
    )


def as_fields(report: BenchReport) -> dict[str, object]:
    """Everything, for programs."""
    recommended, expected = report.recommendation, report.recommendation.expectation
    return {
        "origin": report.origin,
        "sample_size": report.sample_size,
        "threads": report.threads,
        "wish": report.wish,
        "within_s": report.within_s,
        "stream_size": report.situation.stream_size,
        "size_known": report.size_known,
        "source_rate": report.situation.source_rate or None,
        "write_rate": report.situation.write_rate or None,
        "recommended": {
            "format": recommended.measurement.format,
            "level": recommended.measurement.level,
            "threads": expected.threads,
            "fits": recommended.fits,
            **_expected(report, recommended.measurement),
        },
        "measured": [
            {
                "format": each.format,
                "level": each.level,
                "rate": each.rate,
                "restore_rate": each.restore_rate,
                "ratio": each.ratio,
                "sample_size": each.sample_size,
                **_expected(report, each),
            }
            for each in report.measured
        ],
        "total_s": report.total_s,
    }


def _expected(report: BenchReport, measured: Measurement) -> dict[str, object]:
    from ..bench.recommend import expect

    expected = expect(measured, report.situation)
    return {
        "save_s": expected.save_s,
        "restore_s": expected.restore_s,
        "image_size": expected.image_size,
        "limit": expected.limit,
    }
