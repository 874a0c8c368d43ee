"""What was measured, as it stands in ``results.json``: runs, in rounds, of the members of groups.

Times in seconds, sizes in bytes. Ratios are taken round by round, never between medians: what slows the machine for a while
slows both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, Self, TypeAlias

Kind: TypeAlias = Literal["save", "restore"]


class OtherMachineError(Exception):
    """These results are of another machine, or of other versions: they stand in no one table."""


@dataclass(frozen=True)
class Run:
    """One save or restore of one member."""

    wall_s: float
    """Of ours: the whole call, with connecting, guardian, fsync and rename. Of a pipe: from ``migrate`` to ``completed``."""
    tool_cpu_s: float
    """Of our process and the guardian, or of the pipe's processes."""
    qemu_cpu_s: float
    faults: int
    """Of the same processes as ``tool_cpu_s``."""
    peak: int
    """The most memory of these processes, summed."""
    stopped_s: float
    """How long the guest stood still."""
    size: int
    """Of the image, or of the payload that was restored."""
    sync_s: float = 0.0
    """What it took afterwards to make the image durable; nothing is left of it in ours."""
    levels: dict[str, float] = field(default_factory=dict)
    """The share of the stream that ours compressed at each level, where it chose."""


@dataclass(frozen=True)
class Spread:
    """The median of all rounds, and what lay farthest from it."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one value or more."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Comparison:
    """All rounds of one group, with one guest, to one folder."""

    kind: Kind
    group: str
    guest: str
    memory: int
    folder: str
    """``tmpfs`` or the name of another file system."""
    stream_size: int
    runs: dict[str, list[Run]] = field(default_factory=dict)
    """By member, in the order of the rounds."""

    @property
    def key(self) -> tuple[str, ...]:
        """What says which measurement this is: a later one replaces it."""
        return (self.kind, self.group, self.guest, self.folder)

    def rate(self, member: str) -> Spread:
        """Bytes of stream per second."""
        return Spread.of([self.stream_size / run.wall_s for run in self.runs[member]])

    def middle(self, member: str, what: str) -> float:
        """The median of a field of ``Run``."""
        return float(median(getattr(run, what) for run in self.runs[member]))

    def faster(self, ours: str, theirs: str) -> Spread:
        """How many times as fast ``ours`` is as ``theirs``, round by round."""
        pairs = zip(self.runs[ours], self.runs[theirs], strict=True)
        return Spread.of([their.wall_s / our.wall_s for our, their in pairs])

    def larger(self, ours: str, theirs: str) -> float:
        """By what share the image of ``ours`` is larger than that of ``theirs``; below 0: smaller."""
        return self.middle(ours, "size") / self.middle(theirs, "size") - 1

    @classmethod
    def loaded(cls, data: Mapping[str, Any]) -> Self:
        """From JSON."""
        runs = {member: [Run(**run) for run in each] for member, each in data["runs"].items()}
        return cls(**{**data, "runs": runs})


@dataclass
class Results:
    """The whole of it. ``parts`` are the single figures beside the comparisons, by the name of what measured them."""

    machine: dict[str, Any]
    fillings: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)

    def add(self, comparison: Comparison) -> None:
        """Put it in the place of an older one."""
        self.comparisons = [each for each in self.comparisons if each.key != comparison.key] + [comparison]

    def add_filling(self, filling: dict[str, Any]) -> None:
        """Note what a guest was filled with."""
        if filling not in self.fillings:
            self.fillings.append(filling)

    def find(self, kind: Kind, group: str, guest: str, folder: str) -> Comparison | None:
        """That comparison, if it was measured."""
        return next((each for each in self.comparisons if each.key == (kind, group, guest, folder)), None)

    def write(self, path: Path) -> None:
        """All or nothing of it, under ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".new")
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n")
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file that ``write`` made."""
        data = json.loads(path.read_text())
        data["comparisons"] = [Comparison.loaded(each) for each in data["comparisons"]]
        return cls(**data)

    @classmethod
    def continued(cls, path: Path, machine: dict[str, Any]) -> Self:
        """What is in ``path``, to be added to; or new ones.

        Raises:
            OtherMachineError: they were measured elsewhere, or with other versions of anything.

        """
        if not path.exists():
            return cls(machine)
        results = cls.read(path)
        different = [name for name in machine if results.machine.get(name) != machine[name]]
        if different:
            raise OtherMachineError(
                f"{path} was measured with another {', '.join(different)}: choose another --results, or delete it"
            )
        return results
