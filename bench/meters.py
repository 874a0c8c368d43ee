"""What the kernel counts of processes: processor time, page faults, the most memory. Read from outside, through /proc."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
LOOK_S: Final = 0.1


@dataclass(frozen=True)
class Account:
    """Seconds of processor time, kernel included, and page faults: a process's own, and those of its children that ended."""

    own_s: float
    children_s: float
    children_faults: int

    def since(self, before: Account) -> Account:
        """What came to it since ``before``."""
        return Account(
            self.own_s - before.own_s,
            self.children_s - before.children_s,
            self.children_faults - before.children_faults,
        )


def account_of(pid: int) -> Account:
    """So far; to one hundredth of a second (proc(5), /proc/PID/stat)."""
    # The second field, the name, is in parentheses and may hold anything; the third is the first behind the last of these.
    fields = ["0"] * 3 + Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1:]
    numbers = [int(field) for field in fields]
    cminflt, cmajflt, utime, stime, cutime, cstime = (numbers[number - 1] for number in (11, 13, 14, 15, 16, 17))
    return Account((utime + stime) * TICK_S, (cutime + cstime) * TICK_S, cminflt + cmajflt)


def peak_memory(pid: int) -> int:
    """The most memory, in bytes, that ``pid`` ever had in RAM; 0 once it ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def children_of(pid: int) -> list[int]:
    """Those that live, of all threads, and theirs."""
    found = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
    except OSError:
        pass  # it ended meanwhile
    return found + [grandchild for child in found for grandchild in children_of(child)]


class PeakOfChildren:
    """Looks, for the length of a ``with``, how much memory the children of ``pid`` take. ``size`` sums each one's peak."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak")

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(self._peaks.values())

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            for child in children_of(self._pid):
                self._peaks[child] = max(self._peaks.get(child, 0), peak_memory(child))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
