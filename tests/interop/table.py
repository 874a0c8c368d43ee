"""What goes with what, as the tests saw it: kept in ``results.json``, from which scripts/generate_docs.py makes a table."""

from __future__ import annotations

import json
from collections.abc import Callable
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
    "`save --qmp`, then `restore --connect --xml`",
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
        """Keep them for the documentation, with what is kept of other stacks and formats."""
        kept: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text()) if path.exists() else {}
        for versions, formats in self.seen.items():
            kept[versions] = kept.get(versions, {}) | formats
        path.write_text(json.dumps(kept, indent=1) + "\n")
