"""``streamsave formats``: the registry as a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..units import format_size
from .arguments import add_command, add_json
from .output import Output, table

if TYPE_CHECKING:
    from ..codecs.base import Codec
    from .arguments import Subparsers

HEADINGS = ("format", "number", "levels", "default", "tool's", "chunk", "libvirt", "good for")

EXAMPLES = """\
  streamsave formats
  streamsave formats --json | jq -r .name
"""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "formats",
        run,
        summary="list the compression formats",
        description="List the compression formats: libvirt's number for each, its levels, the level that is used by default"
        " here\nand by the stock tool, the size of the chunks, and the oldest libvirt that restores it.",
        examples=EXAMPLES,
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the registry."""
    from ..codecs.registry import codecs

    output = Output(json=args.json)
    found = list(codecs().values())
    if args.json:
        for codec in found:
            output.event("format", as_fields(codec))
    else:
        rows = [HEADINGS, *(row(codec) for codec in found)]
        output.result("formats", {}, table(rows, right=(1, 3, 4)))
    return 0


def row(codec: Codec) -> tuple[str, ...]:
    """One format as the cells below ``HEADINGS``."""
    has_levels = bool(codec.levels)
    return (
        codec.name,
        "-" if codec.number is None else str(codec.number),
        f"{codec.levels[0]} to {codec.levels[-1]}" if has_levels else "-",
        str(codec.default_level) if has_levels else "-",
        str(codec.tool_level) if has_levels else "-",
        format_size(codec.chunk_size),
        _oldest_libvirt(codec) or "-",
        codec.summary,
    )


def as_fields(codec: Codec) -> dict[str, object]:
    """One format, for programs; null where there is nothing."""
    has_levels = bool(codec.levels)
    return {
        "name": codec.name,
        "number": codec.number,
        "lowest_level": codec.levels[0] if has_levels else None,
        "highest_level": codec.levels[-1] if has_levels else None,
        "default_level": codec.default_level if has_levels else None,
        "tool_level": codec.tool_level if has_levels else None,
        "chunk_size": codec.chunk_size,
        "oldest_libvirt": _oldest_libvirt(codec),
        "summary": codec.summary,
    }


def _oldest_libvirt(codec: Codec) -> str | None:
    from ..format.save_format import oldest_libvirt

    return None if codec.number is None else oldest_libvirt(codec.number)
