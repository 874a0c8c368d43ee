"""The guests that are saved: what fills their memory, the same bytes in every run with the same versions of the packages.

``idle`` has just booted; ``programs`` has three quarters of its memory (all but 128 MiB of a small one) full of programs and
libraries, over and over if there are not enough (730 MiB apart: farther than any compressor here looks back);
``half-random`` has a MiB of them, a MiB of noise from a generator with a fixed seed, and so on.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from tests.kit.linux import Blob, blob_of, linux_guest
from tests.kit.qemu import Guest

from streamsave.units import MiB

from .packages import contents_of, fetch, version_of

RECIPE: Final = 1
"""Counts the changes to how a filling is made from the packages: kept files are of one recipe."""
IDLE_SIZE: Final = 16 * MiB
IDLE_S: Final = 24 * 60 * 60
"""A guest looks at its memory once, then it takes no time of the processors from those who are measured."""
SYSTEM_SIZE: Final = 128 * MiB
"""What the guest's system needs for itself."""


@dataclass(frozen=True)
class Filling:
    """What is in a guest's memory, for the report."""

    name: str
    size: int
    sha256: str
    packages: dict[str, str]
    """Versions by name."""


def filled_guest(name: str, memory: int) -> tuple[Guest, Filling]:
    """The guest ``name`` with ``memory`` bytes of RAM.

    Raises:
        KitError: it cannot be built here; says why.

    """
    blob, filling = filled_blob(name, IDLE_SIZE if name == "idle" else min(memory * 3 // 4, memory - SYSTEM_SIZE))
    return linux_guest(blob, memory, pause_s=IDLE_S), filling


def filled_blob(name: str, size: int) -> tuple[Blob, Filling]:
    """``size`` bytes of what the guest ``name`` has in its memory.

    Raises:
        KitError: as ``filled_guest``.

    """
    packages = fetch()
    versions = {package: version_of(path) for package, path in packages.items()}

    def contents() -> Iterator[bytes]:
        while True:
            yield from contents_of(packages.values())

    key = hashlib.sha256(repr((RECIPE, sorted(versions.items()))).encode()).hexdigest()[:8]
    blob = blob_of(f"bench-{_FILLINGS[name].__name__}-{key}-{size}", _FILLINGS[name](contents()), size)
    return blob, Filling(name, size, _sha256(blob), versions)


def _sha256(blob: Blob) -> str:
    """Kept beside the file: it is large."""
    note = blob.path.with_suffix(".json")
    known = json.loads(note.read_text()) if note.exists() else {}
    if known.get("md5") != blob.md5:
        with blob.path.open("rb") as file:
            known = {"md5": blob.md5, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        note.write_text(json.dumps(known))
    return str(known["sha256"])


def plain(contents: Iterator[bytes]) -> Iterator[bytes]:
    """All of it."""
    return contents


def half_random(contents: Iterator[bytes]) -> Iterator[bytes]:
    """A MiB of it, a MiB of noise, and so on."""
    noise, left = random.Random(1), bytearray()
    for piece in contents:
        left += piece
        while len(left) >= MiB:
            yield bytes(left[:MiB])
            yield noise.randbytes(MiB)
            del left[:MiB]


_FILLINGS: Final[dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]]] = {
    "programs": plain,
    "half-random": half_random,
    "idle": plain,
}
GUESTS: Final = tuple(_FILLINGS)
"""Their names, the most telling first."""


def describe(filling: Filling) -> dict[str, object]:
    """For the JSON."""
    return asdict(filling)
