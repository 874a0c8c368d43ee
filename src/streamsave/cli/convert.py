"""``streamsave convert``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from ..errors import UsageError
from ..units import format_duration, format_size
from .arguments import (
    add_bypass_cache,
    add_changes,
    add_command,
    add_json,
    add_level,
    add_max_window,
    add_quiet,
    add_threads,
    add_timeout,
    read_xml,
)
from .levels import level_fields, level_text
from .output import Output, reporting

if TYPE_CHECKING:
    from ..operations.reports import ConvertReport
    from .arguments import Subparsers

USAGE = """\
streamsave convert SRC DST --format FORMAT [OPTIONS]
       streamsave convert SRC --in-place --format FORMAT [OPTIONS]"""

DESCRIPTION = """\
Write a save image in another format or level, on all cores. Images of libvirt and of streamsave are read alike; the domain
XML, the cookie and whether the guest is to run stay as they are, but for what --xml, --set-running and --set-paused change.
What was decoded is held against the digest in the source's index, and has to end as a whole migration stream does.

SRC is only read. What is at DST is replaced once the new image is complete and on disk; DST may be SRC (or --in-place): the
new image, written beside it, then takes its place at once, with the same owner, mode and attributes.
- is standard input or standard output.
"""

EXAMPLES = """\
  streamsave convert guest.save small.save --format xz --level 6
  streamsave convert guest.save --in-place --format zstd
      for the file itself; there has to be room for both until it is done
  streamsave convert guest.save - --format lz4 | ssh host 'streamsave convert - guest.save --format gzip'
  streamsave convert guest.save new.save --format zstd --xml guest.xml --set-paused
"""

STANDARD_STREAM: Final = "-"


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "convert",
        run,
        summary="write an image in another format",
        description=DESCRIPTION,
        examples=EXAMPLES,
        usage=USAGE,
    )
    parser.add_argument("source", metavar="SRC", help="the save image to read; - is standard input")
    parser.add_argument("destination", metavar="DST", nargs="?", help="the file to write; - is standard output")
    parser.add_argument("--in-place", action="store_true", help="replace SRC itself, once the new image is complete")
    parser.add_argument("--format", metavar="FORMAT", required=True, help="the new format, see 'streamsave formats'")
    add_level(parser)
    add_threads(parser)
    add_max_window(parser)
    add_changes(parser)
    add_bypass_cache(parser)
    add_timeout(parser, "give up if it takes longer; DST is then as before")
    add_json(parser)
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; 0 once everything is done."""
    from ..cancel import Cancellation
    from ..operations.convert import convert
    from ..options import CompressOptions
    from .progress import showing_progress
    from .signals import SignalRelay

    source, destination = _endpoints(args)
    options = CompressOptions(
        format=args.format,
        level=args.level,
        threads=args.threads,
        bypass_cache=args.bypass_cache,
        timeout_s=args.timeout,
    )
    xml = read_xml(args.xml)
    output = Output(json=args.json, quiet=args.quiet)
    cancel = Cancellation()
    with SignalRelay(cancel, busy="still ending the conversion"), showing_progress(output) as progress:
        report = convert(
            source,
            destination,
            options,
            xml=xml,
            state=args.state,
            max_window=args.max_window,
            progress=progress,
            cancel=cancel,
        )
    for warning in report.warnings:
        output.warn(warning)
    with reporting(f"the image {report.path} is complete"):
        text = describe(report)
        output.result("converted", as_fields(report), text, stream=sys.stderr if destination == 1 else None)
    return 0


def describe(report: ConvertReport) -> str:
    """What was converted, for people."""
    new = f"{report.format}{level_text(report.levels)}"
    compared = "as its index says" if report.root_compared else "its source has no index to compare with"
    libvirt = (
        f"libvirt {report.oldest_libvirt} or later restores it" if report.oldest_libvirt else "only streamsave restores it"
    )
    return (
        f"converted {report.source} from {report.source_format} to {new}: {report.path},"
        f" {format_size(report.source_size)} to {format_size(report.payload_size)} of payload"
        f" in {format_duration(report.total_s)}; the stream is whole, {compared}; {libvirt}"
    )


def as_fields(report: ConvertReport) -> dict[str, object]:
    """What was converted, for programs."""
    return {
        "source": report.source,
        "path": report.path,
        "source_format": report.source_format,
        "format": report.format,
        "level": report.level,
        "levels": level_fields(report.levels),
        "threads": report.threads,
        "parallel": report.parallel,
        "source_size": report.source_size,
        "payload_size": report.payload_size,
        "image_size": report.image_size,
        "stream_size": report.stream_size,
        "frame_count": report.frame_count,
        "was_running": report.was_running,
        "root": report.root,
        "root_compared": report.root_compared,
        "total_s": report.total_s,
        "stage_s": report.stage_s,
        "cpu_s": report.cpu_s,
        "rate": report.rate,
        "machine": report.stream.machine,
        "oldest_libvirt": report.oldest_libvirt,
        "needs_xml": report.needs_xml,
        "warnings": report.warnings,
    }


def _endpoints(args: argparse.Namespace) -> tuple[str | int, str | int]:
    """Source and destination as ``convert`` takes them."""
    if args.in_place == (args.destination is not None):
        raise UsageError("where to? give either DST or --in-place")
    destination = args.source if args.in_place else args.destination
    if args.in_place and args.source == STANDARD_STREAM:
        raise UsageError("standard input cannot be replaced: name a file, or leave --in-place out")
    if destination == STANDARD_STREAM and args.json:
        raise UsageError("--json and the image cannot both go to standard output: leave one of them out")
    return _endpoint(args.source, 0, "from"), _endpoint(destination, 1, "to")


def _endpoint(name: str, fd: int, direction: str) -> str | int:
    if name != STANDARD_STREAM:
        return name
    if os.isatty(fd):
        raise UsageError(f"no image goes {direction} a terminal: redirect it, or name a file instead of -")
    return fd
