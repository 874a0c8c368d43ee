"""The options that several sub-commands share, and how a sub-command's parser is made."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from ..choices import AUTO, DEFAULT_WINDOW, Level, Transport
from ..errors import SourceError, UsageError

if TYPE_CHECKING:
    import socket

    Subparsers = argparse._SubParsersAction["CommandParser"]  # noqa: SLF001 - argparse gives it no public name


class CommandParser(argparse.ArgumentParser):
    """Of a sub-command: files may stand before, between and behind the options. Behind ``--`` everything is a file."""

    _within = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What a sub-command's parser is called with; what argparse calls for each of its two rounds then is its own."""
        if self._within:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(_without_separator(args or ()), namespace)
        finally:
            self._within = False


def _without_separator(args: Sequence[str]) -> list[str]:
    """``-- -file`` as ``./-file``: argparse forgets where ``--`` stood when files and options are mixed."""
    if "--" not in args:
        return list(args)
    at = args.index("--")
    return [*args[:at], *(f"./{arg}" if arg.startswith("-") and arg != "-" else arg for arg in args[at + 1 :])]


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    examples: str,
    usage: str | None = None,
) -> argparse.ArgumentParser:
    """A new sub-command whose ``--help`` ends with ``examples``; ``args.run`` will be ``run``."""
    parser = subparsers.add_parser(
        name,
        help=summary,
        usage=usage,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_image(parser: argparse.ArgumentParser, text: str) -> None:
    """The positional argument IMAGE."""
    parser.add_argument("image", metavar="IMAGE", help=text)


def add_image_or_fd(parser: argparse.ArgumentParser, text: str, fd_text: str) -> None:
    """IMAGE or ``--image-fd``: see ``image_of``."""
    parser.add_argument("image", metavar="IMAGE", nargs="?", help=text)
    parser.add_argument("--image-fd", metavar="N", type=int, help=fd_text)


def image_of(args: argparse.Namespace) -> Path | int:
    """The path IMAGE, or the descriptor of ``--image-fd``.

    Raises:
        UsageError: neither or both.

    """
    if (args.image is None) == (args.image_fd is None):
        raise UsageError("give an image: either its path IMAGE, or --image-fd N with an open descriptor")
    return Path(args.image) if args.image is not None else int(args.image_fd)


def add_monitor(parser: argparse.ArgumentParser, text: str, *, required: bool) -> argparse._MutuallyExclusiveGroup:
    """``--qmp`` or ``--qmp-fd``, see ``monitor_of``; returns their group, to which other ways may be added."""
    way = parser.add_mutually_exclusive_group(required=required)
    way.add_argument("--qmp", metavar="SOCKET", help=text)
    way.add_argument("--qmp-fd", metavar="N", type=int, help="the same as an open descriptor: a socket connected to it")
    return way


def monitor_of(args: argparse.Namespace) -> str | socket.socket | None:
    """The path of ``--qmp``, or the socket of ``--qmp-fd``, owned by whoever asks for it; None without either.

    Raises:
        UsageError: that descriptor is no socket.

    """
    if args.qmp_fd is None:
        return cast("str | None", args.qmp)
    import socket

    try:
        return socket.socket(fileno=args.qmp_fd)
    except (OSError, ValueError) as error:
        raise UsageError(f"--qmp-fd {args.qmp_fd} is no open socket: {error}") from error


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``; None: as many as this process may use."""
    parser.add_argument("--threads", metavar="N", type=int, help="codec threads (default: one per usable processor)")


def add_level(parser: argparse.ArgumentParser) -> None:
    """``--level``; None: the format's default."""
    parser.add_argument(
        "--level",
        metavar="N",
        type=_level,
        help="compression level (default: the format's); auto: as high as keeps up with QEMU and with the disk",
    )


def add_bypass_cache(parser: argparse.ArgumentParser) -> None:
    """``--bypass-cache``."""
    parser.add_argument(
        "--bypass-cache",
        action="store_true",
        help="write past the page cache (O_DIRECT), so that the image pushes nothing out of it; slow on some disks",
    )


def _level(text: str) -> Level:
    if text == AUTO:
        return AUTO
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {AUTO}") from None


def add_connect(parser: argparse.ArgumentParser) -> None:
    """``--connect``."""
    parser.add_argument(
        "--connect",
        metavar="URI",
        help="libvirt on this host, as for virsh: qemu:///system (root's default), qemu:///session",
    )


def add_transport(parser: argparse.ArgumentParser) -> None:
    """``--transport``."""
    parser.add_argument(
        "--transport",
        choices=get_args(Transport),
        help="how QEMU gets the stream's socket: a descriptor over the monitor (default), or a path in a private directory,"
        " for monitors that pass no descriptors on; not with libvirt",
    )


def add_timeout(parser: argparse.ArgumentParser, text: str) -> None:
    """``--timeout``."""
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help=text)


def add_max_window(parser: argparse.ArgumentParser) -> None:
    """``--max-window``."""
    parser.add_argument(
        "--max-window",
        metavar="SIZE",
        type=_size,
        default=DEFAULT_WINDOW,
        help="let a zstd image of another program use so much memory to decode, as in 1G (default: 128M)",
    )


def _size(text: str) -> int:
    """``512M`` -> bytes."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text, re.IGNORECASE | re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON object per line on standard output")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """``--quiet``."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")


def add_changes(parser: argparse.ArgumentParser) -> None:
    """``--xml``, and ``--set-running`` or ``--set-paused``: what else is to be in an image than was."""
    parser.add_argument("--xml", metavar="FILE", type=Path, help="replace the domain XML by what is in FILE")
    state = parser.add_mutually_exclusive_group()
    state.add_argument(
        "--set-running", dest="state", action="store_const", const="running", help="let the guest run after a restore"
    )
    state.add_argument(
        "--set-paused", dest="state", action="store_const", const="paused", help="leave the guest paused after a restore"
    )


def read_xml(path: Path | None) -> str | None:
    """The text in the file of ``--xml``, byte for byte; None without one.

    Raises:
        SourceError: it cannot be read.

    """
    if path is None:
        return None
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; name a file with a domain XML", path=path) from error
