"""What the guardian is told: at its start, and while it watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..qemu.recovery import Command

READY = b"ready\n"
DISARM, STOPPING, MIGRATING, NOT_MIGRATING, CHILD, COMMITTED = b"d", b"s", b"m", b"n", b"c", b"e"
"""What the parent says: that it goes its way; before it does so, that what it did to the guest is its own doing; and that
the image exists, which may soon be all that there is of the guest."""
LAST_CALLS_S = 0.5
"""How long the parent may take to end after its descriptors closed: until then a rename may be under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardianPlan:
    """What the guardian has to know: where the image is before and after its commit, and what the guest is owed."""

    kind: str
    """Of the destination: a new ``file``, which has a temporary name first; written ``in place``; or ``piped``: none that
    could be looked at."""
    temporary: str = ""
    destination: str = ""
    partial: str = ""
    complete: str = ""
    """What a partial and a complete image begin with; ASCII, of one length."""
    was_running: bool = False
    then: str = "quit"
    undo: Sequence[Command] = ()
    """QMP commands that put QEMU's settings back."""
