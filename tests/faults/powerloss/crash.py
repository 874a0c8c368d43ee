"""What a disk may hold after the power failed: the model of a crash.

Certain is what an fsync that came back well had been asked for: the bytes and the size of a file, the names in a folder. Of
everything later each change may be there or not, whatever the order; a write also in part, by sectors of 512 bytes; a file
may have got its size without its bytes (zeros then), or bytes without its size. Names change as a whole or not at all: a
rename never leaves half of itself. After an fsync that failed, what it was asked for is uncertain for ever, whatever a later
fsync says: the kernel may have dropped it. A change of names is the same in that, but sets what a later one sets anew.
An fsync of a file that has no name makes nothing certain: so it is on btrfs before Linux 6.15.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Final, Literal, TypeAlias

from .events import COMPLETE, FOLDER, Created, Event, Named, Recording, Resized, Synced, Written, rename, resize, write

SECTOR: Final = 512
NOT, WHOLE = 0, 1
"""What became of a change; a larger number: a write is torn, and that is the seed of which sectors are there."""
Fates: TypeAlias = tuple[int, ...]
Size: TypeAlias = Literal["as written", "first", "last"]
"""A file has the size that its bytes make, or without regard to them the durable one, or the largest it ever had."""


@dataclass
class _Log:
    """A file, or the folder: what is certain of it, and what came later."""

    certain: bytearray = field(default_factory=bytearray)
    changes: list[Event] = field(default_factory=list)
    synced: list[bool | None] = field(default_factory=list)
    """Of each change: whether it is certain; None: it never will be."""
    version: int = 0
    """Of what is certain."""

    def add(self, change: Event) -> None:
        self.changes.append(change)
        self.synced.append(False)

    def sync(self, *, well: bool) -> None:
        self.synced = [(True if well else None) if each is False else each for each in self.synced]

    def settle(self) -> list[Event]:
        """The oldest changes, as far as they are certain, which need not be kept apart any more."""
        count = next((number for number, each in enumerate(self.synced) if each is not True), len(self.synced))
        settled, self.changes, self.synced = self.changes[:count], self.changes[count:], self.synced[count:]
        self.version += bool(count)
        return settled

    def open(self) -> list[int]:
        """The changes that may be there or not."""
        return [number for number, each in enumerate(self.synced) if each is not True]

    def chosen(self, fates: Fates) -> Iterator[tuple[Event, int, bool]]:
        """All changes, what became of them, and whether that is certain; ``fates`` are those of the open ones."""
        fate = iter(fates)
        for change, synced in zip(self.changes, self.synced, strict=True):
            yield change, WHOLE if synced is True else next(fate), synced is True


@dataclass(frozen=True)
class State:
    """What may be there after a crash: which changes of which file, and how it comes to its size."""

    moment: Moment
    fates: dict[int, Fates]
    size: Size = "as written"

    def names(self) -> dict[str, int]:
        names = dict(self.moment.names)
        for change, fate, _ in self.moment.logs[FOLDER].chosen(self.fates[FOLDER]):
            assert isinstance(change, Named)
            if fate:
                rename(names, change.names)
        return names

    def key(self, file: int) -> tuple[object, ...]:
        """Equal keys within one recording: equal contents."""
        return file, self.moment.logs[file].version, tuple(self.moment.logs[file].synced), self.fates[file], self.size

    def content(self, file: int, limit: int | None = None) -> bytearray:
        """Of ``file``, or its first ``limit`` bytes: without zeros at their end that only a later write brings about."""
        log = self.moment.logs[file]
        data = log.certain[:limit]
        first = last = len(log.certain)
        for change, fate, certain in log.chosen(self.fates[file]):
            if isinstance(change, Resized):
                first, last = change.size if certain else first, max(last, change.size)
                if fate:
                    resize(data, change.size if limit is None else min(change.size, limit))
            elif isinstance(change, Written):
                end = change.offset + len(change.data)
                first, last = max(first, end) if certain else first, max(last, end)
                for offset, piece in _pieces(change, fate, end if limit is None else limit):
                    write(data, offset, piece)
        if self.size != "as written" and file != self.moment.device:
            size = first if self.size == "first" else last
            resize(data, size if limit is None else min(size, limit))
        return data

    def __str__(self) -> str:
        """How to make it again by hand."""
        lines = [f"after {self.moment.count} events, sizes {self.size}"]
        for file, fates in sorted(self.fates.items()):
            for number, fate in zip(self.moment.logs[file].open(), fates, strict=True):
                what = "dropped" if fate == NOT else "on the disk" if fate == WHOLE else f"torn ({fate})"
                lines.append(f"  {describe(self.moment.logs[file].changes[number])}: {what}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Moment:
    """After ``count`` events."""

    count: int
    names: dict[str, int]
    logs: dict[int, _Log]
    device: int | None

    def open(self) -> list[tuple[int, int]]:
        """Everything that may be there or not: of which file, which change."""
        return [(file, number) for file, log in sorted(self.logs.items()) for number in log.open()]

    def state(self, fates: Sequence[int], size: Size = "as written") -> State:
        """``fates`` of ``open()``."""
        split: dict[int, list[int]] = {file: [] for file in self.logs}
        for (file, _), fate in zip(self.open(), fates, strict=True):
            split[file].append(fate)
        return State(self, {file: tuple(each) for file, each in split.items()}, size)

    def few(self) -> Iterator[State]:
        """Nothing of the uncertain, all of it, and the last change alone, and all but that."""
        count = len(self.open())
        yield self.state([NOT] * count)
        if count:
            yield self.state([WHOLE] * count)
            yield self.state([*[NOT] * (count - 1), WHOLE])
            yield self.state([*[WHOLE] * (count - 1), NOT])

    def many(self, random: Random, *, subsets: int, samples: int) -> Iterator[State]:
        """All subsets of up to so many changes, or the telling ones of more; and so many random ones, with torn writes."""
        open_ = self.open()
        if len(open_) <= subsets:
            yield from (self.state(fates) for fates in product((NOT, WHOLE), repeat=len(open_)))
        else:
            yield from self._telling(open_)
        for _ in range(samples if open_ else 0):
            share = random.random()
            fates = [self._random_fate(random, share, *each) for each in open_]
            yield self.state(fates, random.choice(("as written", "as written", "first", "last")))

    def _telling(self, open_: list[tuple[int, int]]) -> Iterator[State]:
        names = [file == FOLDER for file, _ in open_]
        magics = [begins_complete(self.logs[file].changes[number]) for file, number in open_]
        for size in ("as written", "first", "last"):
            yield self.state([NOT] * len(open_), size)
            yield self.state([WHOLE] * len(open_), size)
            yield self.state([WHOLE if each else NOT for each in names], size)
            yield self.state([NOT if each else WHOLE for each in names], size)
            yield self.state([WHOLE if each else NOT for each in magics], size)
            yield self.state([WHOLE if name or magic else NOT for name, magic in zip(names, magics, strict=True)], size)
            for alone in range(len(open_)):
                yield self.state([WHOLE if number == alone or magics[number] else NOT for number in range(len(open_))], size)
                yield self.state([NOT if number == alone else WHOLE for number in range(len(open_))], size)

    def _random_fate(self, random: Random, share: float, file: int, number: int) -> int:
        torn = isinstance(self.logs[file].changes[number], Written) and random.random() < 0.3
        return random.randrange(2, 1 << 32) if torn else int(random.random() < share)


def moments(recording: Recording) -> Iterator[tuple[Moment, bool]]:
    """After every event; and whether no later moment of this one's states has more of them."""
    names = dict(recording.before.names)
    now = dict(names)
    logs = {file: _Log(bytearray(data)) for file, data in recording.before.files.items()}
    logs[FOLDER] = _Log()
    for count in range(len(recording.events) + 1):
        if count:
            _advance(recording.events[count - 1], names, now, logs)
        upcoming = recording.events[count] if count < len(recording.events) else None
        yield (
            Moment(count, names, logs, recording.device),
            upcoming is None or (isinstance(upcoming, Synced) and upcoming.well),
        )


def _advance(event: Event, names: dict[str, int], now: dict[str, int], logs: dict[int, _Log]) -> None:
    """``names`` are the certain ones, ``now`` those that every process sees."""
    match event:
        case Synced(file) if file != FOLDER and file not in now.values():
            pass
        case Synced(file, well):
            logs[file].sync(well=well)
            for change in logs[file].settle():
                if isinstance(change, Named):
                    rename(names, change.names)
                elif isinstance(change, Written):
                    write(logs[file].certain, change.offset, change.data)
                elif isinstance(change, Resized):
                    resize(logs[file].certain, change.size)
        case Named(changed):
            rename(now, changed)
            logs[FOLDER].add(event)
            for _, number in changed:
                if number is not None:
                    logs.setdefault(number, _Log())
        case Created(file):
            logs[file] = _Log()
        case Written(file) | Resized(file):
            logs[file].add(event)


def _pieces(change: Written, fate: int, limit: int) -> Iterator[tuple[int, memoryview]]:
    """What of a write is on the disk before the offset ``limit``."""
    data = memoryview(change.data)[: max(0, limit - change.offset)]
    if fate == NOT or not data:
        return
    if fate == WHOLE:
        yield change.offset, data
        return
    first, end = change.offset // SECTOR, -(-(change.offset + len(data)) // SECTOR)
    random = Random(fate)
    for sector in range(first, end):
        there, more = random.getrandbits(1), random.getrandbits(1)
        if (there, there & more, there | more)[fate % 3]:
            start, stop = max(change.offset, sector * SECTOR), min(change.offset + len(data), (sector + 1) * SECTOR)
            yield start, data[start - change.offset : stop - change.offset]


def begins_complete(change: Event) -> bool:
    return isinstance(change, Written) and change.offset == 0 and change.data.startswith(COMPLETE)


def describe(change: Event) -> str:
    match change:
        case Written(file, offset, data):
            return f"{len(data)} bytes at {offset} of file {file}{' with the complete magic' * begins_complete(change)}"
        case Resized(file, size):
            return f"file {file} gets {size} bytes"
        case Named(names):
            return ", ".join(f"{name} is {'gone' if file is None else f'file {file}'}" for name, file in names)
    return str(change)
