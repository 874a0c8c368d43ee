"""What a guest prints on its serial line, read from the file that QEMU appends it to.

Each QEMU that carries the guest on appends where the one before stopped, so that the whole life of a guest is one text. A
guest that was restored to the instant at which it was saved leaves no seam in it: no number of its counter is missing, none
comes twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_TICK: Final = re.compile(r"^tick (\d+) memory ok\b", re.MULTILINE)
_DAMAGE: Final = re.compile(r"^.*DAMAGED.*$", re.MULTILINE)
_LOOK_S: Final = 0.02


class Console:
    """The serial console of a guest that counts its ticks. ``path`` need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self) -> str:
        """All whole lines so far."""
        try:
            text = self.path.read_text("ascii", "replace")
        except FileNotFoundError:
            return ""
        return text[: text.rfind("\n") + 1].replace("\r", "")

    def is_up(self) -> bool:
        """Whether the guest said that it runs."""
        return bool(re.search(r"^up$", self.text(), re.MULTILINE))

    def ticks(self) -> list[int]:
        """Every number that the guest counted with its memory intact."""
        return [int(number) for number in _TICK.findall(self.text())]

    def counter(self) -> int:
        """The last of ``ticks()``, or 0."""
        return max(self.ticks()[-1:], default=0)

    def damage(self) -> str:
        """The line in which the guest reported damaged memory; empty: none so far."""
        found = _DAMAGE.search(self.text())
        return found.group().strip() if found else ""

    def seamless(self) -> bool:
        """Whether the guest counted 1, 2, 3 and so on without a number too few or too many, and saw no damage."""
        ticks = self.ticks()
        return not self.damage() and ticks == list(range(1, len(ticks) + 1))

    def wait_for_counter(self, counter: int, timeout_s: float, watch: Callable[[], object] = lambda: None) -> bool:
        """Wait until the guest counted to ``counter``; False: it did not, or it reported damage. See ``wait_until``."""
        self.wait_until(lambda: self.counter() >= counter or bool(self.damage()), timeout_s, watch)
        return self.counter() >= counter and not self.damage()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float, watch: Callable[[], object] = lambda: None) -> bool:
        """Look again and again until ``ready()``; False after ``timeout_s``.

        ``watch`` is called before each look: what it raises (cancelled, QEMU ended) ends the wait.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            watch()
            if ready():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_S)
