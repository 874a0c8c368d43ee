"""Who is compared, as data: formats and levels of ours, and the pipes that others save and restore through.

A group is what runs in turn, round after round; a ratio is taken between two members of a group, within a round.
Threads are those of the machine where a tool takes them from it, and 1 where its command says nothing else; both are in the
commands (xz would else decide by its version).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from streamsave.choices import AUTO, Level


@dataclass(frozen=True)
class Ours:
    """streamsave with a format at a level (None: it has none)."""

    format: str
    level: Level | None = None

    @property
    def name(self) -> str:
        """What the tables call it."""
        return self.format if self.level is None else f"{self.format} {self.level}"


@dataclass(frozen=True)
class Pipe:
    """A command between QEMU and a file: it has the stream on its standard input when saving, the file when restoring."""

    command: str
    appends: bool = False
    """It opens the file by itself: the 2009 pipeline's ``dd``."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{self.command} | dd" if self.appends else self.command

    def into(self, path: str) -> str:
        """The shell command that saves to ``path``."""
        if self.appends:
            return f"{self.command} | dd of={path} oflag=append conv=notrunc 2>/dev/null"
        return f"{self.command} > {path}"

    def out_of(self, path: str) -> str:
        """The shell command that restores from ``path``."""
        return f"{self.command} < {path}"


@dataclass(frozen=True)
class Discard:
    """QEMU's stream into a reader that throws it away: what no save can be faster than."""

    name: str = "QEMU alone"


Contestant: TypeAlias = Ours | Pipe | Discard


@dataclass(frozen=True)
class SaveGroup:
    """``slow``: one of them takes minutes for a large guest."""

    name: str
    members: tuple[Contestant, ...]
    slow: bool = False


@dataclass(frozen=True)
class RestoreGroup:
    """Restores of one payload: ours and the pipe that libvirt would use.

    ``made_by``: the pipe whose image it is, None for ours, at its default level.
    """

    format: str
    made_by: Pipe | None
    pipe: Pipe

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{self.format} by {self.made_by.command.split()[0]}" if self.made_by else self.format


SAVES: Final = (
    SaveGroup("raw", (Discard(), Ours("raw"), Pipe("cat"))),
    SaveGroup("lz4", (Ours("lz4", 1), Pipe("lz4 -c"))),
    SaveGroup("lzop", (Ours("lzop", 3), Pipe("lzop -c"))),
    SaveGroup(
        "zstd",
        (
            *(Ours("zstd", 1), Pipe("zstd -c -1 -T0")),
            *(Ours("zstd", 3), Pipe("zstd -c"), Pipe("zstd -c -T0"), Pipe("pzstd -c -3")),
        ),
    ),
    SaveGroup("auto", (Ours("zstd", AUTO), Pipe("zstd -c --adapt -T0"))),
    SaveGroup(
        "gzip",
        (
            *(Ours("gzip", 1), Pipe("pigz -c -1"), Ours("gzip", 6), Pipe("pigz -c")),
            *(Pipe("gzip -c"), Pipe("gzip -c", appends=True)),
        ),
        slow=True,
    ),
    SaveGroup("bzip2", (Ours("bzip2", 9), Pipe("lbzip2 -c"), Pipe("bzip2 -c")), slow=True),
    SaveGroup("xz", (Ours("xz", 3), Pipe("xz -c -3 -T0"), Pipe("xz -c -3 -T1")), slow=True),
)
RESTORES: Final = (
    RestoreGroup("zstd", None, Pipe("zstd -dc")),
    RestoreGroup("zstd", Pipe("zstd -c"), Pipe("zstd -dc")),
    RestoreGroup("gzip", None, Pipe("gzip -dc")),
    RestoreGroup("gzip", Pipe("gzip -c"), Pipe("gzip -dc")),
    RestoreGroup("bzip2", None, Pipe("bzip2 -dc")),
    RestoreGroup("bzip2", Pipe("bzip2 -c"), Pipe("bzip2 -dc")),
    RestoreGroup("xz", None, Pipe("xz -dc")),
    RestoreGroup("lzop", None, Pipe("lzop -dc --ignore-warn")),
    RestoreGroup("lz4", None, Pipe("lz4 -dc")),
    RestoreGroup("raw", None, Pipe("cat")),
)


def tools() -> tuple[str, ...]:
    """Every program that is run by one of the pipes."""
    pipes = [member for group in SAVES for member in group.members if isinstance(member, Pipe)]
    pipes += [pipe for restore in RESTORES for pipe in (restore.pipe, restore.made_by) if pipe]
    return tuple(sorted({pipe.command.split()[0] for pipe in pipes}))
