"""``streamsave``: parse, run one sub-command, turn what it raises into a message and an exit status.

Starting must be quick: ``--help``, ``--version`` and mistakes answer before anything heavy is imported. So a sub-command's
file imports only argparse and its like at the top, and the rest of streamsave inside ``run()``.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from .. import __version__
from ..errors import Aborted, DestinationError, ResourceError, StreamsaveError
from ..resources import is_lack_of_memory
from . import bench, completion, convert, demo, edit, formats, info, restore, save, verify
from .arguments import CommandParser
from .heap import keep_freed_memory
from .output import INTERNAL_ERROR_STATUS, PROGRAM, Output, complain, escape, exit_status, write

COMMANDS: Final = (save, restore, info, verify, convert, edit, bench, formats, demo, completion)

EPILOG: Final = """\
examples:
  streamsave save --qmp /run/vm.qmp guest.save
      save the guest behind that QMP socket, then end its QEMU, as virsh save does
  streamsave restore guest.save -- qemu-system-x86_64 -machine q35 -m 2G disk.qcow2
      start that QEMU with the saved guest in it
  streamsave info guest.save
      what is in an image, and which libvirt restores it
  streamsave verify guest.save
      whether it is whole and undamaged
  streamsave demo
      see it work, in a few seconds, with a tiny guest that comes along

'streamsave COMMAND --help' tells more about each. Exit statuses: docs/exit-codes.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own); return the exit status. Raises nothing."""
    _open_standard_descriptors()
    if argv is None:  # the process is ours
        keep_freed_memory()
    output = Output()
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        output = Output(json=getattr(args, "json", False))
        status: int = args.run(args)
    except SystemExit as stop:  # argparse has said what there was to say
        return _after_argparse(stop)
    except StreamsaveError as error:
        return _failed(output, error)
    except KeyboardInterrupt as error:  # outside of an operation: at a question, or still starting
        return _failed(output, Aborted("interrupted by SIGINT", signum=signal.SIGINT).with_traceback(error.__traceback__))
    except Exception as error:
        if lacking := _lacking(error):
            return _failed(output, ResourceError(lacking).with_traceback(error.__traceback__))
        advice = "this is a bug in streamsave: please report it, with what the same command prints under STREAMSAVE_DEBUG=1"
        _show_traceback()
        output.internal_error(error, advice)
        return INTERNAL_ERROR_STATUS
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Saves and restores QEMU guests as compressed libvirt save images, on all cores, in one process.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=CommandParser
    )
    for command in COMMANDS:
        command.register(subparsers)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of ``argv``; ``run`` in it is the sub-command's function, ``qemu_command`` what follows ``--``.

    Raises:
        SystemExit: argparse printed help or a mistake.
    """
    own, qemu_command = restore.split_command(argv)
    args = build_parser().parse_args(own)
    args.qemu_command = qemu_command
    return args


class _Version(argparse.Action):
    """``--version``, written as everything else is."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        write(sys.stdout, f"{PROGRAM} {__version__}\n")
        parser.exit()


def _lacking(error: Exception) -> str:
    """What the system refused this process that nobody told by a better name, and what to do; empty: it is a bug of ours."""
    number = error.errno if isinstance(error, OSError) else None
    if is_lack_of_memory(error):
        return "there is not enough memory: use fewer threads, or raise the limit (ulimit -v, or the control group's)"
    if number in (errno.EMFILE, errno.ENFILE):
        return f"no descriptor is left ({error}): raise the limit on open files (ulimit -n)"
    return ""


def _failed(output: Output, error: StreamsaveError) -> int:
    status = exit_status(error)
    _show_traceback()
    output.error(error, status)
    return status


def _show_traceback() -> None:
    if os.environ.get("STREAMSAVE_DEBUG") == "1":
        import traceback

        complain(escape(traceback.format_exc(), keep="\n"))


def _after_argparse(stop: SystemExit) -> int:
    try:
        write(sys.stdout, "")  # argparse does not flush: a reader that went away would be an error as late as at exit
    except DestinationError as error:
        return _failed(Output(), error)
    return stop.code if isinstance(stop.code, int) else 0


def _open_standard_descriptors() -> None:
    """Make sure that 0, 1 and 2 are open: an image that became descriptor 2 would get QEMU's messages in it."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is fd
            os.set_inheritable(fd, True)
