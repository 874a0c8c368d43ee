"""The table of what goes with what, as the tests saw it: collected, kept in ``results.json``, made into rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from .stack import Stack

RESULTS: Final = Path(__file__).with_name("results.json")
DIRECTIONS: Final = (
    "`save --domain`, then `virsh restore`",
    "`virsh save`, then `restore --connect`",
    "`virsh save`, then `restore --qmp`",
    "`save --qmp`, then `virsh restore --xml`",
)
WORKS, CANNOT = "works", "libvirt cannot"

Record: TypeAlias = "Callable[[Stack, str, str, str], None]"
"""The fixture ``record``: stack, format, direction, outcome."""


@dataclass
class Results:
    """Outcomes by stack, format and direction."""

    seen: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)

    def add(self, stack: Stack, name: str, direction: str, outcome: str) -> None:
        """What a test saw."""
        self.seen.setdefault(stack.versions, {}).setdefault(name, {})[direction] = outcome

    def write(self, path: Path = RESULTS) -> None:
        """Keep them for the documentation."""
        path.write_text(json.dumps(self.seen, indent=1, sort_keys=True) + "\n")


def rows(path: Path = RESULTS) -> tuple[list[str], list[Sequence[str]]]:
    """The headings and the rows of the table."""
    seen: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text())
    found: list[Sequence[str]] = []
    for versions, formats in sorted(seen.items()):
        found += [
            (versions, name, *(formats[name].get(direction, "not tried") for direction in DIRECTIONS)) for name in formats
        ]
    return ["with", "format", *DIRECTIONS], found
