"""The order of a measurement: guests, folders, groups. What was measured is in the results before the next begins."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.qemu import Guest, RunningQemu

from streamsave.units import MiB

from .contestants import RESTORES, SAVES, Discard, RestoreGroup, SaveGroup
from .guests import describe, filled_guest
from .machine import file_system
from .results import Comparison, Kind, Results
from .rounds import prepare_image, restore_rounds, save_rounds
from .runs import save_run


@dataclass(frozen=True)
class Plan:
    """What is to be measured. Memory in bytes."""

    folders: tuple[Path, ...]
    guests: tuple[str, ...]
    groups: tuple[str, ...]
    """Names of groups of saves and formats of restores; empty: all."""
    memory: int
    slow_memory: int
    """Of the guest for the slow groups."""
    rounds: int
    kinds: tuple[Kind, ...] = ("save", "restore")

    def saves(self, *, slow: bool) -> list[SaveGroup]:
        """The groups of saves, slow or not."""
        chosen = "save" in self.kinds
        return [group for group in SAVES if chosen and group.slow == slow and self._wants(group.name)]

    def restores(self, *, slow: bool) -> list[RestoreGroup]:
        """The groups of restores; slow: those whose image takes long to make, or to restore."""
        slow_ones = {group.name for group in SAVES if group.slow}
        chosen = "restore" in self.kinds
        return [each for each in RESTORES if chosen and (each.format in slow_ones) == slow and self._wants(each.format)]

    def _wants(self, group: str) -> bool:
        return not self.groups or group in self.groups


class Measurement:
    """Carries out a plan, adding to ``results``, which are written to ``path`` after every group."""

    def __init__(self, plan: Plan, results: Results, path: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._results = results
        self._path = path
        self._say = say

    def run(self) -> None:
        """All of it; what the results have already with as many rounds is not measured again."""
        for name in self._plan.guests:
            for slow in (False, True):
                memory = self._plan.slow_memory if slow else self._plan.memory
                saves, restores = self._plan.saves(slow=slow), self._plan.restores(slow=slow)
                if any(self._is_new(*each, name, memory) for each in _keys(saves, restores, self._plan.folders)):
                    self._guest(name, memory, saves, restores)

    def _guest(self, name: str, memory: int, saves: Sequence[SaveGroup], restores: Sequence[RestoreGroup]) -> None:
        guest, filling = filled_guest(name, memory)
        self._results.add_filling(describe(filling))
        self._say(f"guest {name}, {memory // MiB} MiB: booting")
        with RunningQemu(guest) as qemu:
            qemu.boot()
            _, told = save_run(qemu, Discard(), Path("/nonexistent"))
            for folder in self._plan.folders:
                with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as work:
                    where = file_system(folder)
                    for group in saves:
                        if self._is_new("save", group.name, where, name, memory):
                            place = Comparison("save", group.name, name, memory, where, told["stream_size"])
                            self._say(f"save {group.name}, guest {name}, on {where}")
                            self._keep(save_rounds(qemu, group, place, Path(work), self._plan.rounds, self._say))
                    for restore in restores:
                        if self._is_new("restore", restore.name, where, name, memory):
                            place = Comparison("restore", restore.name, name, memory, where, told["stream_size"])
                            self._restore(qemu, guest, restore, place, Path(work))

    def _restore(self, qemu: RunningQemu, guest: Guest, group: RestoreGroup, place: Comparison, work: Path) -> None:
        self._say(f"restore {group.name}, guest {place.guest}, from {place.folder}")
        with _folder(work / "restore") as folder:
            files = prepare_image(qemu, group, folder)
            with _stopped(qemu):
                self._keep(restore_rounds(guest, group, files, place, self._plan.rounds, self._say))

    def _is_new(self, kind: Kind, group: str, where: str, guest: str, memory: int) -> bool:
        known = self._results.find(kind, group, guest, where)
        return known is None or known.memory != memory or any(len(runs) < self._plan.rounds for runs in known.runs.values())

    def _keep(self, comparison: Comparison) -> None:
        self._results.add(comparison)
        self._results.write(self._path)


def _keys(
    saves: Sequence[SaveGroup], restores: Sequence[RestoreGroup], folders: Sequence[Path]
) -> Iterator[tuple[Kind, str, str]]:
    for folder in folders:
        where = file_system(folder)
        yield from (("save", group.name, where) for group in saves)
        yield from (("restore", group.name, where) for group in restores)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def _stopped(qemu: RunningQemu) -> Iterator[None]:
    """The guest takes no time of the processors meanwhile."""
    with qemu.qmp() as qmp:
        qmp.execute("stop")
        yield
        qmp.execute("cont")
