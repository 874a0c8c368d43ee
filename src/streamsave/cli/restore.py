"""``streamsave restore``: into a QEMU that waits, as the QEMU that we start and stay in front of, or into a domain."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Aborted, CorruptImageError, DestinationError, ProcessError, SourceError, UsageError
from ..units import format_duration, format_size
from .arguments import (
    add_command,
    add_connect,
    add_image_or_fd,
    add_json,
    add_max_window,
    add_monitor,
    add_quiet,
    add_threads,
    add_timeout,
    add_transport,
    image_of,
    monitor_of,
)
from .output import Output, complain, quote_command, reporting, write

if TYPE_CHECKING:
    from ..format.description import SavedCommand
    from ..operations.reports import RestoreReport
    from .arguments import Subparsers

USAGE = """\
streamsave restore [OPTIONS] IMAGE --qmp SOCKET
       streamsave restore [OPTIONS] IMAGE -- QEMU-COMMAND [ARGUMENT...]
       streamsave restore [OPTIONS] IMAGE --use-saved-command [--yes]
       streamsave restore [OPTIONS] IMAGE --connect URI [--xml FILE] [--reset-nvram]"""

DESCRIPTION = """\
Restore a guest from a save image: into a QEMU that was started with '-incoming defer' (--qmp), or into one that this
command starts. In the second case it adds what is needed to QEMU's command line, stays in the foreground as that QEMU,
passes SIGINT, SIGTERM, SIGHUP and SIGQUIT on, and once the guest runs exits with QEMU's status. With --connect libvirt
restores it, as a domain of its own. The image is only read.

QEMU needs the machine type, the devices and the memory that the guest was saved with, and its disks as they were then.
"""

EXAMPLES = """\
  streamsave restore guest.save -- qemu-system-x86_64 -machine q35 -m 2G disk.qcow2
      start that QEMU with the saved guest in it
  streamsave restore guest.save --paused -- qemu-system-x86_64 -machine q35 -m 2G -qmp unix:vm.qmp,server=on,wait=off
      the same, but leave the guest paused whatever it did when it was saved
  streamsave restore guest.save --qmp /run/vm.qmp
      into a QEMU that runs with -incoming defer
  streamsave restore guest.save --use-saved-command
      show the command line that the image carries, ask, and run it: only for images that you trust
  streamsave restore web.save --connect qemu:///system
      as a domain of libvirt's, as virsh restore would
"""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "restore",
        run,
        summary="restore a guest from an image",
        description=DESCRIPTION,
        examples=EXAMPLES,
        usage=USAGE,
    )
    add_image_or_fd(parser, "the save image", "read the image from this open descriptor of a file or a block device")
    add_monitor(parser, "the QMP socket of a QEMU that runs with -incoming defer", required=False)
    parser.add_argument(
        "--use-saved-command", action="store_true", help="run the QEMU command line that the image carries, after showing it"
    )
    parser.add_argument("--yes", action="store_true", help="with --use-saved-command: do not ask")
    add_connect(parser)
    parser.add_argument("--xml", metavar="FILE", type=Path, help="with --connect: a domain XML instead of the image's own")
    parser.add_argument("--reset-nvram", action="store_true", help="with --connect: the firmware's variables begin anew")
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--running", dest="state", action="store_const", const="running", help="let the guest run afterwards")
    state.add_argument("--paused", dest="state", action="store_const", const="paused", help="leave the guest paused")
    add_threads(parser)
    add_timeout(parser, "give up if the guest is not restored after that time")
    add_transport(parser)
    add_max_window(parser)
    add_json(parser)
    add_quiet(parser)


def split_command(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Our own arguments, and for ``restore`` the QEMU command line after ``--``; None without ``--``."""
    own = list(argv)
    if own[:1] != ["restore"] or "--" not in own:
        return own, None
    at = own.index("--")
    return own[:at], own[at + 1 :]


def run(args: argparse.Namespace) -> int:
    """Restore; in the command form, stay until QEMU ends."""
    from ..cancel import Cancellation
    from ..options import RestoreOptions
    from .progress import showing_progress
    from .signals import SignalRelay

    _check_usage(args)
    output = Output(json=args.json, quiet=args.quiet)
    options = RestoreOptions(
        threads=args.threads,
        state=args.state,
        transport=args.transport or "fd",
        timeout_s=args.timeout,
        max_window=args.max_window,
    )
    image = image_of(args)
    if args.use_saved_command and isinstance(image, Path):
        image = image.absolute()  # before the directory changes
    command = _saved_command(image, ask=not args.yes) if args.use_saved_command else args.qemu_command
    cancel = Cancellation()
    with SignalRelay(cancel, busy="still ending the restore") as relay:
        with showing_progress(output) as progress:
            if args.connect is not None:
                from ..libvirt.restore import restore_domain

                report = restore_domain(
                    image,
                    options=options,
                    connect=args.connect,
                    xml=_read_xml(args.xml),
                    reset_nvram=args.reset_nvram,
                    progress=progress,
                    cancel=cancel,
                )
            else:
                from ..operations.restore import restore

                report = restore(
                    image, monitor=monitor_of(args), command=command, options=options, progress=progress, cancel=cancel
                )
        for warning in report.warnings:
            output.warn(warning)
        if report.process is None:
            with reporting("the guest is restored"):
                output.result("restored", as_fields(report), describe(report))
            return 0
        relay.forward_to(report.process.send_signal)
        try:  # standard output is QEMU's now (its -serial stdio), but for the JSON that was asked for
            output.result("restored", as_fields(report), describe(report), stream=sys.stderr)
        except DestinationError as error:
            output.warn(str(error))  # no reason to leave the guest alone
        status = report.process.wait() or 0  # None only after a timeout, and this has none
    return status if status >= 0 else 128 - status


def describe(report: RestoreReport) -> str:
    """What was restored, for people."""
    threads = f"{report.threads} threads" if report.parallel and report.threads > 1 else "one thread"
    state = "the guest runs" if report.running else "the guest is paused"
    return (
        f"restored {report.path}: {format_size(report.stream_size)} in {format_duration(report.total_s)}"
        f" ({report.format}, {threads}); {state}"
    )


def as_fields(report: RestoreReport) -> dict[str, object]:
    """What was restored, for programs."""
    return {
        "path": report.path,
        "format": report.format,
        "threads": report.threads,
        "parallel": report.parallel,
        "image_size": report.image_size,
        "stream_size": report.stream_size,
        "running": report.running,
        "total_s": report.total_s,
        "stage_s": report.stage_s,
        "cpu_s": report.cpu_s,
        "rate": report.rate,
        "machine": report.stream.machine,
        "pid": report.process.pid if report.process else None,
        "warnings": report.warnings,
    }


def _check_usage(args: argparse.Namespace) -> None:
    to_monitor = args.qmp is not None or args.qmp_fd is not None
    ways = [to_monitor, args.qemu_command is not None, args.use_saved_command, args.connect is not None]
    if sum(ways) != 1:
        problem = "where to?" if not any(ways) else "that is more than one place to restore to:"
        raise UsageError(
            f"{problem} give one of --qmp SOCKET, --connect URI, --use-saved-command, or -- and a QEMU command line"
        )
    if args.qemu_command == []:
        raise UsageError("nothing follows --: a QEMU command line is missing, such as -- qemu-system-x86_64 -m 2G")
    if args.yes and not args.use_saved_command:
        raise UsageError("--yes goes with --use-saved-command only")
    if args.connect is None:
        for given, name in ((args.xml, "--xml"), (args.reset_nvram, "--reset-nvram")):
            if given:
                raise UsageError(f"{name} goes with --connect only: it is for libvirt")
    elif args.transport is not None:
        raise UsageError("--transport does not go with --connect: libvirt itself restores a domain")


def _read_xml(path: Path | None) -> str | None:
    from ..format.header import MAX_DATA_SIZE

    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DATA_SIZE + 1)
    except OSError as error:
        raise SourceError(f"{path}: the domain XML cannot be read: {error.strerror}", path=path) from error
    if len(data) > MAX_DATA_SIZE:
        raise UsageError(f"{path}: larger than {format_size(MAX_DATA_SIZE)}: this is no domain XML")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no domain XML, for it is not UTF-8: {error}") from error


def _saved_command(image: Path | int, *, ask: bool) -> tuple[str, ...]:
    """The command in the image, shown and agreed to; this process is then in the working directory that goes with it."""
    from ..format.description import parse_saved_command
    from ..operations.image import read_info

    info = read_info(image)
    try:
        saved = parse_saved_command(info.metadata.xml)
    except CorruptImageError as error:
        raise CorruptImageError(f"{info.path}: {error}; give QEMU's command line after --", path=info.path) from error
    if saved is None:
        raise UsageError(f"{info.path} carries no QEMU command line: give one after --")
    _show(info.path, saved)
    if ask:
        _ask()
    try:
        os.chdir(saved.working_directory)
    except OSError as error:
        raise ProcessError(
            f"the saved working directory {saved.working_directory} cannot be entered: {error.strerror}:"
            " create it, or give the command after --"
        ) from error
    return saved.arguments


def _show(image: Path, saved: SavedCommand) -> None:
    complain(f"{image} was saved by this command:", [quote_command(saved.arguments), f"in {saved.working_directory}"])


def _ask() -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nobody is there to agree to that command: look at it, then add --yes")
    write(sys.stderr, "Whoever made the image chose it. Run it? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Aborted("not agreed to: nothing was run")
