"""What a mutation is: an exact place in a file, and what is to stand there instead."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..kit.cli import ROOT

PACKAGE: Final = "src/streamsave"


class StaleError(ValueError):
    """The list says something of the tree that is not so any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One guard taken away."""

    name: str
    file: str
    """From the project's root, or from the package ``streamsave`` where it ends with ``.py``."""
    old: str
    """Occurs exactly once in the file."""
    new: str
    why: str
    """What the guard is for, in a line."""
    tests: tuple[str, ...]
    """Node ids of pytest below ``tests/``, few and quick: at least one of them fails then."""

    @property
    def path(self) -> Path:
        """The file, from the root."""
        return Path(self.file if not self.file.endswith(".py") else f"{PACKAGE}/{self.file}")

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The tests, from the root."""
        return tuple(f"tests/{test}" for test in self.tests)

    def applied_to(self, text: str) -> str:
        """``text`` of the file with the mutation in it.

        Raises:
            StaleError: its place is not there, or not only once; or what comes of it is no Python.

        """
        if self.old == self.new or (count := text.count(self.old)) != 1:
            raise StaleError(f"{self.name}: the old text is {count if self.old != self.new else 'the new'} in {self.path}")
        mutated = text.replace(self.old, self.new)
        if self.path.suffix == ".py":
            try:
                compile(mutated, str(self.path), "exec")
            except SyntaxError as error:
                raise StaleError(f"{self.name}: {self.path} would be no Python: {error}") from error
        return mutated

    def check(self, root: Path = ROOT) -> None:
        """Place and tests are there; or StaleError."""
        try:
            self.applied_to((root / self.path).read_text())
        except FileNotFoundError as error:
            raise StaleError(f"{self.name}: {error}") from error
        for node in self.node_ids:
            file, _, function = node.partition("::")
            path = root / file
            if not path.is_file() or not re.search(
                rf"^def {re.escape(function.split('[')[0])}\(", path.read_text(), re.MULTILINE
            ):
                raise StaleError(f"{self.name}: there is no test {node}")
