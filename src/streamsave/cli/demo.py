"""``streamsave demo``: a tiny guest of our own, saved and restored in every format, one row of a table for each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..units import format_size
from .arguments import add_command
from .output import Output, complain

if TYPE_CHECKING:
    from .arguments import Subparsers

DESCRIPTION = """\
Boot a tiny guest that comes with streamsave, save it, restore it into a new QEMU, and so on through every format. The guest
counts, and checks all of its memory before each number; the table shows that it went on as if nothing had been.

Needs qemu-system-x86_64 and nothing else; takes some seconds; leaves nothing behind. Exit status 1 if memory was damaged.
"""

EXAMPLES = """\
  streamsave demo
"""

CELL_WIDTH = 10
"""Rows are printed as they come, so the widths are settled before the first one."""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    add_command(
        subparsers,
        "demo",
        run,
        summary="see it work with a tiny guest",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - every sub-command's run takes them
    """Run the demo; 0 only if the guest's memory came through every format."""
    from ..cancel import Cancellation
    from ..demo.demo import HEADINGS, DemoGuest, DemoRow, run_demo
    from .signals import SignalRelay

    output = Output()

    def show_guest(guest: DemoGuest) -> None:
        size = format_size(guest.memory_size)
        output.result("guest", {}, f"a guest with {size} of memory runs on {guest.accelerator}\n\n{line(HEADINGS)}")

    def show_row(row: DemoRow) -> None:
        output.result("row", {}, line(row.cells()))

    cancel = Cancellation()
    with SignalRelay(cancel, busy="still ending the demo's guest"):
        rows = run_demo(on_guest=show_guest, on_row=show_row, cancel=cancel)
    damaged = [row.format for row in rows if not row.memory_intact]
    if damaged:
        complain(f"the guest's memory did not come through {', '.join(damaged)}")
        return 1
    return 0


def line(cells: Sequence[str]) -> str:
    """One row of the table: the first column to the left, the numbers to the right."""
    first, *rest = cells
    return "  ".join([first.ljust(CELL_WIDTH), *(cell.rjust(CELL_WIDTH) for cell in rest)])
