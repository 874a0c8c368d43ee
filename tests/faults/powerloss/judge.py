"""Looks at what a crash left, as whoever comes back to it would: what calls itself complete has to verify."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from xxhash import xxh3_128_digest

from streamsave.errors import StreamsaveError
from streamsave.format.header import MAGIC_SIZE
from streamsave.format.metadata import Metadata
from streamsave.operations.image import read_info
from streamsave.operations.verify import verify

from ...kit.images import restored
from .crash import State, moments
from .events import COMPLETE, FOLDER, Recording, Synced, name_role

Sight: TypeAlias = str
"""Of a name: ``absent``, ``incomplete``, the ``earlier`` image byte for byte, the ``new`` one verified; or what is wrong."""
MAX_COMPLAINTS: Final = 5
ALWAYS: Final = frozenset({"incomplete", "earlier", "new"})


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What may be at the destination after a crash, and what the images are."""

    destination: str
    sights: frozenset[Sight]
    earlier: bytes
    """The image that was there; empty: none."""
    final: bytes
    """The image that is there in the end, which ``verify`` likes; empty: there was never to be one."""
    stream_sha256: str
    """Of the new image's stream."""
    others: frozenset[str] = frozenset()
    """Names beside it that stay as they are."""


@dataclass
class Findings:
    """What was looked at."""

    states: int = 0
    moments: int = 0
    distinct: set[tuple[tuple[str, Sight], ...]] = field(default_factory=set)
    """The folders that were found, names by their roles."""
    complaints: list[str] = field(default_factory=list)
    samples: dict[tuple[tuple[str, Sight], ...], dict[str, bytes]] = field(default_factory=dict)
    """Of each such folder the first one, if they were asked for."""


class Judge:
    """Knows every content it has seen: there are few that are complete."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self._sights: dict[bytes, Sight] = {}
        self._keys: dict[tuple[object, ...], Sight] = {}
        self._final = _described(expected.final) if expected.final else None

    def forget_keys(self) -> None:
        """The next states are of another recording."""
        self._keys.clear()

    def look(self, state: State) -> dict[str, Sight]:
        """At every name."""
        return {name: self._look_at(state, file) for name, file in state.names().items() if name not in self.expected.others}

    def _look_at(self, state: State, file: int) -> Sight:
        if bytes(state.content(file, MAGIC_SIZE)) not in COMPLETE:
            return "incomplete"
        key = state.key(file)
        if key not in self._keys:
            self._keys[key] = self.judge(bytes(state.content(file)))
        return self._keys[key]

    def judge(self, content: bytes) -> Sight:
        """A file that calls itself complete."""
        digest = xxh3_128_digest(content)
        if digest not in self._sights:
            self._sights[digest] = "earlier" if content == self.expected.earlier else self._verify(content)
        return self._sights[digest]

    def _verify(self, content: bytes) -> Sight:
        with _file_of(content) as path:
            try:
                if (proof := verify(path).proof) != "digests":
                    return f"complete, but all that is left of its proof are {proof}"
                if _description(path) != self._final:
                    return "complete, but neither the earlier image nor the new one"
                if hashlib.sha256(restored(path)[0]).hexdigest() != self.expected.stream_sha256:
                    return "complete and verified, but another stream comes out of it"
            except StreamsaveError as error:
                return f"complete, but it does not verify: {error}"
        if content != self.expected.final:  # streamsave does not mind, but who reads on behind the payload would
            return "complete and verified, but not byte for byte what was written"
        return "new"

    def problem(self, seen: dict[str, Sight], allowed: AbstractSet[Sight]) -> str:
        """What is wrong with such a folder; empty: nothing. ``allowed``: what may be at the destination."""
        expected = self.expected
        sight = seen.get(expected.destination, "absent")
        if sight not in allowed:
            return f"{expected.destination} is {sight}"
        for name, each in seen.items():
            if name != expected.destination and (each not in ALWAYS or name_role(name) != "the temporary"):
                return f"there is {name}, {each}"
        return ""


@contextmanager
def _file_of(content: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


def _described(content: bytes) -> tuple[Metadata, bool, str]:
    with _file_of(content) as path:
        return _description(path)


def _description(path: Path) -> tuple[Metadata, bool, str]:
    info = read_info(path)
    return info.metadata, info.header.was_running, info.index.root.hex() if info.index else ""


def examine(
    recording: Recording,
    judge: Judge,
    random: Random,
    *,
    subsets: int = 9,
    samples: int = 60,
    first: int = 0,
    end: AbstractSet[Sight] = frozenset({"new"}),
    keep: bool = False,
) -> Findings:
    """All states that the model allows at every moment from ``first`` on, or as many as that.

    ``end``: what may be there when all is done, whatever is lost; after a success the new image alone. ``keep`` samples.
    """
    findings = Findings()
    judge.forget_keys()
    for moment, is_fullest in moments(recording):
        if moment.count < first:
            continue
        findings.moments += 1
        allowed = end if moment.count == len(recording.events) else judge.expected.sights
        states: Iterable[State] = moment.few()
        if is_fullest:
            states = [*states, *moment.many(random, subsets=subsets, samples=samples)]
        for state in states:
            seen = judge.look(state)
            folder = tuple(sorted((name_role(name), sight) for name, sight in seen.items()))
            findings.states += 1
            if problem := judge.problem(seen, allowed):
                findings.complaints.append(f"{problem}\n{state}")
                if len(findings.complaints) == MAX_COMPLAINTS:
                    return findings
            if keep and folder not in findings.distinct:
                names = state.names()
                findings.samples[folder] = {name: bytes(state.content(names[name])) for name in seen}
            findings.distinct.add(folder)
    return findings


def unneeded_barriers(recording: Recording, judge: Judge, random: Random) -> list[list[int]]:
    """The fsyncs without which nothing is wrong: if there are any, either they or this look is of no use."""
    return [
        barrier
        for barrier in recording.barriers()
        if not examine(recording.without(barrier), judge, random, subsets=6, samples=20).complaints
    ]


def failed_in_vain(recording: Recording) -> bool:
    """Whether an fsync of a file failed: then nothing may be called a success."""
    return any(isinstance(event, Synced) and not event.well and event.file != FOLDER for event in recording.events)
