"""What an operation did to files, in the order in which the kernel saw it: enough to have them as they were at any moment.

A file is a number here, for names change. There is one folder, and perhaps a block device outside of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX
from streamsave.format.header import MAGIC_COMPLETE, MAGIC_PARTIAL, MAGIC_SIZE, OWN_MAGIC_COMPLETE, OWN_MAGIC_PARTIAL

COMPLETE: Final = (MAGIC_COMPLETE, OWN_MAGIC_COMPLETE)
PARTIAL: Final = (MAGIC_PARTIAL, OWN_MAGIC_PARTIAL)
FOLDER: Final = -1
"""The number of the folder, which is synced like a file."""
DEVICE: Final = "the device"
"""What it is called among the names of the files."""


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes in a file. Also zeros that a device was told to make, and what was copied from another file."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Created:
    """A new file, which has no name yet."""

    file: int


@dataclass(frozen=True, slots=True)
class Named:
    """Names that lead to other files now, all at one instant; None: to no file any more."""

    names: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """An fsync that returned. Not ``well``: with an error, after which nobody knows what the disk has."""

    file: int
    well: bool = True


Event: TypeAlias = Created | Written | Resized | Named | Synced


@dataclass
class Disk:
    """Files and their names."""

    files: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def apply(self, event: Event) -> None:
        match event:
            case Written(file, offset, data):
                write(self.files.setdefault(file, bytearray()), offset, data)
            case Resized(file, size):
                resize(self.files[file], size)
            case Created(file):
                self.files[file] = bytearray()
            case Named(names):
                rename(self.names, names)
                for _, number in names:
                    if number is not None:
                        self.files.setdefault(number, bytearray())
            case Synced():
                pass

    def copy(self) -> Disk:
        return Disk({number: bytearray(data) for number, data in self.files.items()}, dict(self.names))

    def contents(self) -> dict[str, bytes]:
        return {name: bytes(self.files[number]) for name, number in self.names.items()}


def rename(names: dict[str, int], changes: Iterable[tuple[str, int | None]]) -> None:
    """Change where ``names`` lead."""
    for name, number in changes:
        names.pop(name, None)
        if number is not None:
            names[name] = number


def write(data: bytearray, offset: int, new: bytes | memoryview) -> None:
    if offset > len(data):
        resize(data, offset)
    data[offset : offset + len(new)] = new


def resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


@dataclass(frozen=True)
class Recording:
    """``events`` began with ``before`` on the disk, durable. ``device``: the file that is one, and has its size for ever."""

    before: Disk
    events: tuple[Event, ...]
    device: int | None = None

    def disk_after(self, count: int | None = None) -> Disk:
        """As every process sees it after so many events; after all of them."""
        disk = self.before.copy()
        for event in self.events[:count]:
            disk.apply(event)
        return disk

    def without(self, numbers: Sequence[int]) -> Recording:
        """As if the events of these numbers had been forgotten."""
        return replace(self, events=tuple(event for number, event in enumerate(self.events) if number not in numbers))

    def then(self, more: Sequence[Event], count: int | None = None) -> Recording:
        """The first ``count`` events, and ``more``."""
        return replace(self, events=(*self.events[:count], *more))

    def barriers(self) -> list[list[int]]:
        """The fsyncs that made something durable; those of a file between which nothing became of it count as one."""
        found: list[list[int]] = []
        dirty: set[int] = set()
        open_at: dict[int, list[int]] = {}
        for number, event in enumerate(self.events):
            if isinstance(event, Created):
                continue
            if not isinstance(event, Synced):
                file = FOLDER if isinstance(event, Named) else event.file
                dirty.add(file)
                open_at.pop(file, None)
            elif event.file in dirty:
                dirty.remove(event.file)
                found.append([number])
                open_at[event.file] = found[-1]
            elif event.file in open_at:
                open_at[event.file].append(number)
        return found

    def shape(self) -> list[str]:
        """The order of things, without what differs between two runs: random names, and how much one write takes."""
        roles = {file: name_role(name) for name, file in self.before.names.items()}
        lines: list[str] = []
        for event in self.events:
            match event:
                case Created(file):
                    line = "a new file"
                    roles[file] = "what had no name"
                case Named(names):
                    for name, number in names:
                        if number is not None:
                            roles.setdefault(number, f"what was first {name_role(name)}")
                    line = " and ".join(f"{name_role(name)} is {'gone' if f is None else roles[f]}" for name, f in names)
                case Written(file, offset, data):
                    start = data[:MAGIC_SIZE] if offset == 0 else b""
                    kind = "complete" if start in COMPLETE else "partial" if start in PARTIAL else "data"
                    line = f"{roles[file]} gets {kind}"
                case Resized(file):
                    line = f"{roles[file]} gets its size"
                case Synced(file, well):
                    line = f"{'the folder' if file == FOLDER else roles[file]} is synced{'' if well else ', in vain'}"
            if not (lines and line == lines[-1] and isinstance(event, Written)):
                lines.append(line)
        return lines


def name_role(name: str) -> str:
    return "the temporary" if name.endswith(TEMPORARY_SUFFIX) else name
