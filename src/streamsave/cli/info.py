"""``streamsave info``: what an image says of itself; nothing in it is believed further than it is printed."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..units import format_size
from .arguments import add_command, add_image
from .contents import contents_fields, contents_rows, gather
from .output import Output, escape, table, write

if TYPE_CHECKING:
    from ..operations.contents import Contents
    from ..operations.image import ImageInfo
    from .arguments import Subparsers

DESCRIPTION = """\
Show what a save image says of itself: format, sizes, guest, and which libvirt restores it; and what is in its payload:
frames, RAM blocks, pages, and on a terminal how compressible the guest's memory is along its addresses. That comes from the
index, so it takes a moment however large the guest is. Of an image without one only the beginning is decoded, or with --scan
all of it. Images that were never finished are shown too.
"""

EXAMPLES = """\
  streamsave info guest.save
  streamsave info guest.save --json | jq -r .format
  streamsave info from-virsh.save --scan
      count the pages of an image that has no index
  streamsave info guest.save --xml > guest.xml
      the XML exactly as it is in the image; likewise --cookie
"""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers, "info", run, summary="show what is in an image", description=DESCRIPTION, examples=EXAMPLES
    )
    add_image(parser, "the save image")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, with the XML and the cookie"
    )
    parser.add_argument("--scan", action="store_true", help="decode an image without an index to its end, to know all of it")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--xml", action="store_true", help="the XML and nothing else")
    only.add_argument("--cookie", action="store_true", help="libvirt's cookie and nothing else")


def run(args: argparse.Namespace) -> int:
    """Print the image's description."""
    from ..operations.image import read_info

    info = read_info(args.image)
    if args.json or not (args.xml or args.cookie):
        contents = None if _unreadable(info) else gather(info, scan=args.scan)
        Output(json=args.json).result("info", as_fields(info, contents), describe(info, contents))
    elif args.xml:
        _print_exactly(info.metadata.xml)
    elif info.metadata.cookie is None:
        raise UsageError(f"{info.path} carries no cookie: only libvirt writes one, for guests that it manages")
    else:
        _print_exactly(info.metadata.cookie)
    return 0


def describe(info: ImageInfo, contents: Contents | None) -> str:
    """The image, for people."""
    from .domain import summarise_domain

    domain = summarise_domain(info.metadata.xml)
    header = info.header
    stream = contents.stream if contents else None
    machine = " ".join(
        part for part in (stream.machine if stream else domain.machine, domain.arch, domain.hypervisor) if part
    )
    rows = [
        ("image", f"{info.path}, {format_size(info.file_size)}"),
        ("complete", "yes" if header.complete else "no: the save that wrote it never finished; it cannot be restored"),
        ("format", f"{info.format} ({_numbered(info)}, header version {header.version}, {header.byte_order}-endian)"),
        ("payload", f"{format_size(info.payload_size)} from offset {info.payload_offset}"),
        ("saved while", "running" if header.was_running else "paused"),
        ("guest", f"{domain.name or '(no name)'}  {domain.uuid}".rstrip()),
        ("memory", f"{format_size(domain.memory_size)}, {domain.vcpu_count} vCPU" if domain.memory_size else "unknown"),
        ("machine", machine or "unknown"),
        ("cookie", "no" if info.metadata.cookie is None else "yes: --cookie prints it"),
        ("QEMU command", "yes: restore --use-saved-command shows it" if _has_command(info) else "no"),
        ("restored by", _restorers(info)),
        *(contents_rows(info, contents) if contents else ()),
    ]
    shown = table([(name, escape(value)) for name, value in rows])
    picture = _picture(info)
    return "\n".join([shown, "", *map(escape, picture)]) if picture else shown


def as_fields(info: ImageInfo, contents: Contents | None) -> dict[str, object]:
    """The image, for programs."""
    from .domain import summarise_domain

    domain = summarise_domain(info.metadata.xml)
    header = info.header
    return {
        "path": info.path,
        "file_size": info.file_size,
        "complete": header.complete,
        "version": header.version,
        "byte_order": header.byte_order,
        "format": info.format,
        "format_number": None if header.own else header.format,
        "was_running": header.was_running,
        "data_size": header.data_size,
        "payload_offset": info.payload_offset,
        "payload_size": info.payload_size,
        "xml": info.metadata.xml,
        "cookie": info.metadata.cookie,
        "saved_command": _has_command(info),
        "oldest_libvirt": info.oldest_libvirt,
        "needs_xml": info.needs_xml,
        "readable": _unreadable(info) == "",
        "name": domain.name,
        "uuid": domain.uuid,
        "memory_size": domain.memory_size,
        "vcpu_count": domain.vcpu_count,
        "machine": domain.machine,
        "arch": domain.arch,
        "hypervisor": domain.hypervisor,
        "index": info.index is not None,
        "index_problem": info.index_problem,
        "image_id": info.index.image_id.hex() if info.index else None,
        "root": info.index.root.hex() if info.index else None,
        "metadata_as_saved": info.metadata_as_saved,
        **contents_fields(info, contents),
    }


def _numbered(info: ImageInfo) -> str:
    """Whose word for the format that is."""
    return "a format of streamsave's own" if info.header.own else f"number {info.header.format}"


def _has_command(info: ImageInfo) -> bool:
    return info.description is not None and info.description.command is not None


def _restorers(info: ImageInfo) -> str:
    """Who restores the format, whatever state the image is in."""
    unreadable = _unreadable(info)
    ours = f"not streamsave ({unreadable})" if unreadable else "streamsave"
    if info.header.own:
        return f"{ours}, no libvirt"
    if not info.oldest_libvirt:
        return ours
    with_xml = " (by restore --connect with --xml only: libvirt does not know this guest)" if info.needs_xml else ""
    return f"libvirt {info.oldest_libvirt} or later{with_xml}, {ours}"


def _unreadable(info: ImageInfo) -> str:
    """Why we do not decode the payload; empty if we do."""
    from ..errors import UnsupportedImageError
    from ..operations.image_index import payload_codec

    try:
        payload_codec(info.header)
    except UnsupportedImageError as error:
        return str(error)
    return ""


def _picture(info: ImageInfo) -> list[str]:
    """For people at a terminal."""
    from shutil import get_terminal_size

    from .memory_picture import draw

    if info.index is None or sys.stdout is None or not sys.stdout.isatty():
        return []
    return draw(info.index, get_terminal_size().columns)


def _print_exactly(text: str) -> None:
    """Byte for byte into a file or a pipe; on a terminal with its control characters shown and a line end."""
    if sys.stdout is not None and sys.stdout.isatty():
        write(sys.stdout, escape(text, keep="\n\t").rstrip("\n") + "\n")
    else:
        write(sys.stdout, text.encode("utf-8", "surrogateescape"))
