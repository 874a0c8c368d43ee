"""``streamsave save``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..choices import Then
from ..errors import UsageError
from ..units import format_duration, format_size
from .arguments import (
    add_bypass_cache,
    add_command,
    add_connect,
    add_image_or_fd,
    add_json,
    add_level,
    add_monitor,
    add_quiet,
    add_threads,
    add_timeout,
    add_transport,
    image_of,
    monitor_of,
)
from .levels import level_fields, level_text
from .output import Output, reporting

if TYPE_CHECKING:
    import socket

    from ..operations.reports import SaveReport
    from .arguments import Subparsers

USAGE = """\
streamsave save --qmp SOCKET IMAGE [OPTIONS]
       streamsave save --domain NAME [--connect URI] IMAGE [OPTIONS]"""

DESCRIPTION = """\
Save the guest behind a QMP socket, or a domain of libvirt's, as a libvirt save image. Until the image is complete and on
disk the guest is not let go: on any error, on Ctrl-C and even on kill -9 it runs on as before, and IMAGE is what it was
before. A domain is saved by libvirt itself, as with virsh save; only the compression and the file are ours.

Without --format, save_image_format of libvirt's qemu.conf decides if it is set there, otherwise the format is zstd.
"""

EXAMPLES = """\
  streamsave save --qmp /run/vm.qmp guest.save
      save, then end QEMU, as virsh save does
  streamsave save --qmp /run/vm.qmp guest.save --then resume
      save and let the guest run on (the image fits the disks only as they were)
  streamsave save --domain web web.save
      save a domain of libvirt's; virsh restore takes the image
  streamsave save --qmp /run/vm.qmp guest.save --format gzip --level 6 --threads 2
  streamsave save --qmp /run/vm.qmp guest.save --json | jq .image_size
"""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "save",
        run,
        summary="save a guest to an image",
        description=DESCRIPTION,
        examples=EXAMPLES,
        usage=USAGE,
    )
    guest = add_monitor(parser, "the guest's QMP socket (-qmp unix:SOCKET,server=on)", required=True)
    guest.add_argument("--domain", metavar="NAME", help="the name or UUID of a domain of libvirt's")
    add_connect(parser)
    add_image_or_fd(
        parser,
        "the file to write, replaced once the new image is complete; or a block device, written in place",
        "write in place to this descriptor, open for reading and writing: of a file or a block device",
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="write to a pipe: IMAGE is a FIFO, or - for standard output; nothing can be taken back from it",
    )
    parser.add_argument("--format", metavar="FORMAT", help="compression format, see 'streamsave formats'")
    add_level(parser)
    add_threads(parser)
    parser.add_argument(
        "--then",
        choices=get_args(Then),
        default=None,
        help="with --qmp, what becomes of the guest: end QEMU (default), go on as before, or stay paused",
    )
    add_bypass_cache(parser)
    add_timeout(parser, "give up, and leave everything as it was, if there is no image after that time")
    parser.add_argument(
        "--max-stopped",
        metavar="SECONDS",
        type=float,
        help="give up, and let the guest run on, if it would stand still for longer than that",
    )
    add_transport(parser)
    parser.add_argument("--config", metavar="PATH", type=Path, help="a qemu.conf to follow instead of libvirt's own")
    parser.add_argument(
        "--no-saved-command",
        action="store_true",
        help="keep QEMU's command line, which may hold secrets, out of the image",
    )
    add_json(parser)
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Save; 0 once everything is done."""
    from ..cancel import Cancellation
    from ..options import SaveOptions
    from .progress import showing_progress
    from .signals import SignalRelay

    _check_usage(args)
    output = Output(json=args.json, quiet=args.quiet)
    options = SaveOptions(
        format=_format(args),
        level=args.level,
        threads=args.threads,
        then=args.then or "quit",
        transport=args.transport or "fd",
        save_command=not args.no_saved_command,
        timeout_s=args.timeout,
        max_stopped_s=args.max_stopped,
        stream=args.stream,
        bypass_cache=args.bypass_cache,
    )
    destination = _destination(args)
    to_stdout = args.stream and args.image == "-"
    cancel = Cancellation()
    relay = SignalRelay(cancel, busy="still freeing the guest", stoppable=False)
    with relay, showing_progress(output) as progress:
        if args.domain is not None:
            from ..libvirt.save import save_domain

            report = save_domain(args.domain, destination, options, connect=args.connect, progress=progress, cancel=cancel)
        else:
            from ..operations.save import save

            report = save(_monitor(args), destination, options, progress=progress, cancel=cancel)
    for warning in report.warnings:
        output.warn(warning)
    with reporting(f"the image {report.path} is complete"):
        text = describe(report)
        output.result("saved", as_fields(report), text, stream=sys.stderr if to_stdout else None)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    if args.domain is None and args.connect is not None:
        raise UsageError("--connect goes with --domain: it says which libvirt knows the domain")
    if args.domain is not None:
        for given, name in (
            (args.then, "--then"),
            (args.transport, "--transport"),
            (args.no_saved_command, "--no-saved-command"),
            (args.stream, "--stream"),
        ):
            if given:
                raise UsageError(f"{name} goes with --qmp only: libvirt itself saves a domain, and ends it then")


def _format(args: argparse.Namespace) -> str:
    """What was asked for, or what the qemu.conf of the libvirt in question says, or ours."""
    from ..config import configured_format, usual_path
    from ..options import DEFAULT_FORMAT

    if args.format is not None:
        return str(args.format)
    return configured_format(args.config, usual_path(args.connect)) or DEFAULT_FORMAT


def _monitor(args: argparse.Namespace) -> str | socket.socket:
    monitor = monitor_of(args)
    assert monitor is not None, "argparse requires one, or --domain"
    return monitor


def _destination(args: argparse.Namespace) -> Path | int:
    """Where the image goes: a path, or a descriptor; with ``--stream`` ``-`` is standard output."""
    if not args.stream or args.image != "-":
        return image_of(args)
    if args.json:
        raise UsageError("the image and the events of --json cannot both go to standard output; use --image-fd or a FIFO")
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("an image is nothing for a terminal; redirect standard output")
    return 1


def describe(report: SaveReport) -> str:
    """What was saved, for people."""
    memory_size = sum(block.size for block in report.stream.ram_blocks)
    details = [f"{report.format}{level_text(report.levels)}", f"ratio {report.ratio:.1f}"]
    if report.was_running:
        details.append(f"stopped {format_duration(report.stopped_s)}")
    text = (
        f"saved the guest to {report.path}: {format_size(report.image_size)} from {format_size(memory_size)} of memory"
        f" in {format_duration(report.total_s)} ({', '.join(details)}); "
    )
    if not report.oldest_libvirt:
        return text + "only streamsave restores it, for libvirt does not have this format"
    text += f"libvirt {report.oldest_libvirt} or later restores it"
    if report.needs_xml:
        text += "\nlibvirt does not know this guest: restore --connect URI --xml FILE makes a domain of it"
    return text


def as_fields(report: SaveReport) -> dict[str, object]:
    """What was saved, for programs."""
    stream = report.stream
    return {
        "path": report.path,
        "format": report.format,
        "level": report.level,
        "levels": level_fields(report.levels),
        "threads": report.threads,
        "image_size": report.image_size,
        "payload_size": report.payload_size,
        "stream_size": report.stream_size,
        "ratio": report.ratio,
        "frame_count": report.frame_count,
        "was_running": report.was_running,
        "then": report.then,
        "total_s": report.total_s,
        "stopped_s": report.stopped_s,
        "stage_s": report.stage_s,
        "cpu_s": report.cpu_s,
        "rate": report.rate,
        "machine": stream.machine,
        "memory_size": sum(block.size for block in stream.ram_blocks),
        "page_count": stream.page_count,
        "zero_page_count": stream.zero_page_count,
        "oldest_libvirt": report.oldest_libvirt,
        "needs_xml": report.needs_xml,
        "warnings": report.warnings,
    }
