"""A QEMU with a guest in it, for the length of a ``with``."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from streamsave.demo.console import Console
from streamsave.demo.machine import GUEST_KERNEL, Machine
from streamsave.units import MiB

from .qmp import Qmp

ACCEPTS = "00010000"
"""The flag of a listening socket in /proc/net/unix (``__SO_ACCEPTCON``)."""


@dataclass(frozen=True)
class Guest:
    """What runs in the machine. It prints ``tick N memory ok`` for ever, N from 1, or a line with ``DAMAGED``."""

    arguments: tuple[str, ...]
    memory_size: int
    boot_s: float
    """How long its first tick may take on a slow and busy host."""


def demo_guest(memory_size: int = 64 * MiB) -> Guest:
    """The demo guest: needs no disk and no kernel, ticks a second after its start, some eight times a second with 64 MiB."""
    return Guest(("-kernel", str(GUEST_KERNEL)), memory_size, boot_s=30 + memory_size / (32 * MiB))


def listens(path: Path) -> bool:
    """Whether something listens on the unix socket ``path``, found out without connecting to it."""
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[3] == ACCEPTS for line in sockets)


class RunningQemu:
    """A QEMU process in a private folder: ``monitor`` (QMP), ``console``, ``stderr()``. Killed and removed at the end.

    ``incoming``: it waits for a stream (``-incoming defer``). ``paused``: it starts with ``-S``. ``after``: it carries the
    guest of that other one on, so it appends to the same console.
    """

    def __init__(
        self,
        guest: Guest,
        *extra: str,
        incoming: bool = False,
        paused: bool = False,
        machine: str = "pc",
        after: RunningQemu | None = None,
    ) -> None:
        self.guest = guest
        self.home = Path(tempfile.mkdtemp(prefix="ss-"))  # short: a socket's path has 107 bytes
        self.console: Console = Console(after.console.path if after else self.home / "console")
        self.machine = Machine(
            self.console.path,
            self.home / "qmp",
            memory_size=guest.memory_size,
            machine=machine,
            name="test",
            guest=(*guest.arguments, *extra),
        )
        self._options = (*(("-incoming", "defer") if incoming else ()), *(("-S",) if paused else ()))
        try:
            self.process = self.machine.start(self.home / "stderr", *self._options)
        except BaseException:
            shutil.rmtree(self.home)
            raise

    @property
    def monitor(self) -> Path:
        """The QMP socket."""
        return self.machine.monitor

    @property
    def command(self) -> tuple[str, ...]:
        """The machine's command line, as a user would give it to ``restore``: without what makes QEMU wait."""
        return self.machine.command

    @property
    def pid(self) -> int:
        """Of the QEMU process."""
        return self.process.pid

    def qmp(self, timeout_s: float = 10.0) -> Qmp:
        """A QMP connection; waits until QEMU listens. Close it before anyone else is to use the monitor.

        ``timeout_s``: how long an answer may take.
        """
        self._wait(lambda: listens(self.monitor), 20, "QEMU does not listen")
        return Qmp(self.monitor, timeout_s)

    def status(self) -> str:
        """The run state, through a connection of its own."""
        with self.qmp() as qmp:
            return qmp.status()

    def boot(self) -> Self:
        """Wait for the guest's first tick."""
        return self.wait_for_counter(1, self.guest.boot_s)

    def counter(self) -> int:
        """The last number that the guest counted with its memory intact."""
        return self.console.counter()

    def ticks(self) -> list[int]:
        """All of them."""
        return self.console.ticks()

    def wait_for_counter(self, counter: int, timeout_s: float = 60.0) -> Self:
        """Wait until the guest counted to ``counter``; damage, its end and the lapse of time are failures."""
        self._wait(lambda: self.counter() >= counter, timeout_s, f"the guest did not count to {counter}")
        return self

    def wait_for_ticks(self, count: int = 2, timeout_s: float = 60.0) -> Self:
        """Wait for so many more ticks. The second one after a restore has seen all of the memory."""
        return self.wait_for_counter(self.counter() + count, timeout_s)

    def is_still(self, for_s: float = 1.0) -> bool:
        """Whether the guest prints nothing for that long."""
        before = self.console.text()
        time.sleep(for_s)
        return self.console.text() == before

    def stderr(self) -> str:
        """What QEMU said so far."""
        return (self.home / "stderr").read_text(errors="replace")

    def wait(self, timeout_s: float = 20.0) -> int:
        """Wait for QEMU's end; its exit status."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """At once, and reaped."""
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        """Kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _wait(self, ready: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        def watch() -> None:
            damage = self.console.damage()
            assert not damage, f"the guest reports: {damage}"
            if self.process.poll() is not None and not ready():
                raise AssertionError(f"{complaint}: QEMU ended with status {self.process.returncode}\n{self.stderr()}")

        if not self.console.wait_until(ready, timeout_s, watch):
            tail = "\n".join(self.console.text().splitlines()[-5:])
            raise AssertionError(f"{complaint} within {timeout_s:.0f} s; its console ends with:\n{tail}\n{self.stderr()}")
