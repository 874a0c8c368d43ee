"""Every scenario: as it goes, with a fault, and with a kill; each with the power failing at any moment of it.

``python -m tests.faults.powerloss`` (``make powerloss``) looks at all of it, ``test_powerloss.py`` at a part in every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX
from streamsave.errors import DestinationError
from streamsave.guardian.child import _act, _Image, _Said
from streamsave.guardian.plan import GuardianPlan

from .events import COMPLETE, PARTIAL, Created, Disk, Event, Named, Recording, Synced
from .judge import Findings, Judge, Sight, examine, failed_in_vain, unneeded_barriers
from .recorder import Fault, Recorder, no_fault, nth_fails, recording
from .scenarios import IMAGE, IN_PLACE, ONE_OF_BOTH, Recorded, Scenario, record


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much to look at: ``subsets`` and ``samples`` as in ``Moment.many``; which kinds of calls are to fail."""

    subsets: int
    samples: int
    faults: tuple[str, ...]


SHORT: Final = Effort(subsets=8, samples=40, faults=("sync", "name"))
LONG: Final = Effort(subsets=11, samples=2000, faults=("sync", "name", "write"))


class BrokenPromiseError(AssertionError):
    """Without a power failure already."""


class Trial:
    """A scenario that was carried out well, and what is looked at with it."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        effort: Effort = SHORT,
        recorder: Callable[[Scenario, Path], Recorded] = record,
    ) -> None:
        """``recorder``: in this process, or ``tracing.trace``."""
        self.scenario = scenario
        self._random = Random(f"{seed} {scenario.name}")
        self._faults = effort.faults
        self._amount: dict[str, Any] = {"subsets": effort.subsets, "samples": effort.samples}
        self.recorded = _record(scenario, recorder)
        if self.recorded.error:
            raise self.recorded.error
        self.recording = self.recorded.recording
        self.judge = Judge(self.recorded.expected())
        left = [name for name in self.recorded.after if name.endswith(TEMPORARY_SUFFIX)]
        self._hold(not left, "it succeeded", left)

    def power_fails(self, *, keep: bool = False) -> Findings:
        """At any moment of an operation that succeeds."""
        return examine(self.recording, self.judge, self._random, keep=keep, **self._amount)

    def needed_barriers(self) -> int:
        """How many of the recording's fsyncs, each left out, make ``power_fails`` complain."""
        unneeded = unneeded_barriers(self.recording, self.judge, self._random)
        return len(self.recording.barriers()) - len(unneeded)

    # With a fault

    def power_fails_after_faults(self) -> Iterator[tuple[str, Findings]]:
        """Each call of some kinds fails, it alone or with all that follow it."""
        for kind in self._faults:
            count = sum(kind == kind_of(event) for event in self.recording.events)
            for number in range(1, count + 1):
                for for_good in (False, True):
                    label = f"{kind} {number} of {count} fails{' for good' if for_good else ''}"
                    yield label, self._fault(label, nth_fails(kind, number, for_good=for_good), for_good=for_good)

    def _fault(self, label: str, fault: Fault, *, for_good: bool) -> Findings:
        recorded = _record(self.scenario, partial(record, fault=fault))
        error = recorded.error
        self._hold(error is None or isinstance(error, DestinationError), label, error)
        self._hold(error is not None or not failed_in_vain(recorded.recording), label, "a success in spite of the fsync")
        judge = Judge(recorded.expected(self._after_a_fault()))
        seen = _look(recorded.after, judge)
        left = [sight for name, sight in seen.items() if name.endswith(TEMPORARY_SUFFIX)]
        taken_back = not any(_tells_of_the_image(note) for note in getattr(error, "__notes__", ()))
        allowed = (self._after_a_fault() - ({"new"} if taken_back else set())) if error else {"new"}
        self._hold(seen.get(self.scenario.destination, "absent") in allowed, label, error, seen)
        self._hold(not left or for_good or (error is None and left == ["earlier"]), label, error, seen)
        end = judge.expected.sights if error else frozenset({"new"})
        return examine(recorded.recording, judge, self._random, end=end, **self._amount)

    def _after_a_fault(self) -> frozenset[Sight]:
        """Where an older image changes places with the new one it is there, or the new one is; else it may be gone."""
        sights = self.scenario.sights
        return sights if sights == ONE_OF_BOTH and self.scenario.exchanges else sights | {"incomplete", "absent"}

    # With a kill

    def power_fails_after_kills(self) -> Iterator[tuple[str, Findings]]:
        """``kill -9`` after each event since the guardian is there; which does its part, and then the power fails.

        Once more with each of the guardian's fsyncs failing, four at the most, where it comes to them. And in place once
        more right after each fsync that failed.
        """
        for count in range(self.recorded.begun, len(self.recording.events) + 1):
            for number in range(5):
                fault = nth_fails("sync", number, for_good=False)
                guardian = _guardian_acts(self.recorded, count, fault)
                if number and not _sync_failed(guardian.events):
                    break
                label = f"killed after {count} of {len(self.recording.events)} events"
                label += f", the guardian's fsync {number} fails" if number else ""
                yield label, self._after_the_guardian(label, self.recorded, count, guardian)
        count = sum(kind_of(event) == "sync" for event in self.recording.events)
        for number in range(1, count + 1 if self.scenario.sights == IN_PLACE else 0):
            recorded = _record(self.scenario, partial(record, fault=nth_fails("sync", number, for_good=False)))
            at = next(at for at, event in enumerate(recorded.recording.events, 1) if _sync_failed([event]))
            label = f"killed after fsync {number} failed"
            yield label, self._after_the_guardian(label, recorded, at, _guardian_acts(recorded, at, no_fault))

    def _after_the_guardian(self, label: str, recorded: Recorded, count: int, guardian: _Guardian) -> Findings:
        failed = _sync_failed(guardian.events)
        judge = Judge(recorded.expected(self._after_a_fault() if failed else self._taken_back()))
        seen = _look(guardian.after, judge)
        allowed = {"new"} if guardian.committed else judge.expected.sights - {"new"}
        self._hold(seen.get(self.scenario.destination, "absent") in allowed, label, seen)
        self._hold(not any(name.endswith(TEMPORARY_SUFFIX) for name in seen), label, seen)
        whole = recorded.recording.then(guardian.events, count)
        end = judge.expected.sights if failed and not guardian.committed else allowed  # what it did is durable
        return examine(whole, judge, self._random, first=count, end=end, **self._amount)

    def _taken_back(self) -> frozenset[Sight]:
        """A name that comes back has nothing complete behind it."""
        sights = self.scenario.sights
        return sights if sights == ONE_OF_BOTH and self.scenario.exchanges else sights | {"incomplete"}

    def _hold(self, held: bool, label: str, *what: object) -> None:
        if not held:
            raise BrokenPromiseError(f"{self.scenario.name}, {label}: {what}")


@dataclass(frozen=True)
class _Guardian:
    """What it did."""

    committed: bool
    events: tuple[Event, ...]
    after: dict[str, bytes]


def _guardian_acts(recorded: Recorded, count: int, fault: Fault) -> _Guardian:
    """On files as they are after ``count`` events; on a device it does the same.

    It was told that the image exists before the one is removed that it took the place of, which is the last of all.
    """
    disk, events = recorded.recording.disk_after(count), recorded.recording.events
    told = count == len(events) and kind_of(events[-1]) == "name"
    with TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        for name, data in disk.contents().items():
            (home / name).write_bytes(data)
        recorder = Recorder(home, known=disk, fault=fault)
        fd = _open_image(recorded.image, disk, home)
        recorder.add(fd, recorded.image)
        try:
            with recording(recorder):
                plan = _plan(recorded, disk, home)
                image = _Image(plan, fd)
                committed = _act(plan, image, _Said(committed=told), -1)
                (image.tidy_up if committed else image.take_back)()
        finally:
            os.close(fd)
        after = {path.name: path.read_bytes() for path in home.iterdir()}
    _check(recorder.recording(), after)
    return _Guardian(committed, tuple(recorder.events), after)


def _open_image(image: int, disk: Disk, home: Path) -> int:
    """By its name, if it has one."""
    for name, file in disk.names.items():
        if file == image:
            return os.open(home / name, os.O_RDWR)
    fd = os.open(home, os.O_RDWR | os.O_TMPFILE)
    os.write(fd, disk.files[image])
    return fd


def _plan(recorded: Recorded, disk: Disk, home: Path) -> GuardianPlan:
    temporary = next((name for name in disk.names if name.endswith(TEMPORARY_SUFFIX)), f"none{TEMPORARY_SUFFIX}")
    return GuardianPlan(
        kind="in place" if recorded.scenario.sights == IN_PLACE else "file",
        temporary=str(home / temporary),
        destination=str(home / recorded.scenario.destination),
        partial=PARTIAL[COMPLETE.index(recorded.magic)].decode(),
        complete=recorded.magic.decode(),
    )


def _sync_failed(events: Iterable[Event]) -> bool:
    return any(isinstance(event, Synced) and not event.well for event in events)


def _record(scenario: Scenario, recorder: Callable[[Scenario, Path], Recorded]) -> Recorded:
    with TemporaryDirectory() as home:
        recorded = recorder(scenario, Path(home).resolve())
    _check(recorded.recording, recorded.after)
    return recorded


def _check(recording: Recording, after: dict[str, bytes]) -> None:
    """Nothing went by unseen."""
    made = recording.disk_after().contents()
    differing = [name for name in made.keys() | after.keys() if made.get(name) != after.get(name)]
    if differing:
        raise BrokenPromiseError(f"what was recorded does not make {differing}: a write went by unseen")


def _look(files: dict[str, bytes], judge: Judge) -> dict[str, Sight]:
    """What a process sees there."""
    return {
        name: judge.judge(data) if data.startswith(COMPLETE) else "incomplete"
        for name, data in files.items()
        if name not in judge.expected.others
    }


def _tells_of_the_image(note: str) -> bool:
    """The image itself, not its temporary file, could not be taken back or removed."""
    return Path(note.split(" could not be ")[0]).name in (IMAGE, "device")


def kind_of(event: Event) -> str:
    """Of the call that made it."""
    if isinstance(event, Created):
        return "create"
    if isinstance(event, Named):
        return "create" if len(event.names) == 1 and event.names[0][1] is not None else "name"
    return "sync" if isinstance(event, Synced) else "write"
