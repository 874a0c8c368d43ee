"""What the trials of one worker happen in: a guest that lives from trial to trial, and images of it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.options import SaveOptions
from streamsave.units import MiB

from ...kit.qemu import RunningQemu, demo_guest, listens
from ...kit.qmp import Qmp, QmpError
from ...kit.waiting import until

GUEST: Final = demo_guest(16 * MiB)
TRIALS: Final = 15
"""As many trials a guest sees: its console, which is read again and again, shall not become long."""
GONE: Final = (ConnectionError, FileNotFoundError, QmpError, ValueError)
"""What asking a QEMU comes to that has ended, or is about to."""


class Life:
    """One guest from its boot on, in one QEMU after the other. ``second`` is a monitor that no save is given."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._names = (folder / f"second{number}" for number in count())
        self.trials = 0
        self.second = next(self._names)
        self.qemu = self._start().boot()
        self.qemu.qmp().close()
        self.settings = self.ask("query-migrate-capabilities"), self.ask("query-migrate-parameters")

    def _start(self, *, after: RunningQemu | None = None) -> RunningQemu:
        qmp = f"unix:{self.second},server=on,wait=off"
        qemu = RunningQemu(GUEST, "-qmp", qmp, incoming=after is not None, after=after)
        self._stack.enter_context(qemu)
        until(lambda: listens(self.second) or qemu.process.poll() is not None, timeout_s=20)
        for cpu in self.ask("query-cpus-fast"):
            with suppress(ProcessLookupError):  # it counts for ever, and others are to get on too
                os.setpriority(os.PRIO_PROCESS, cpu["thread-id"], 19)
        return qemu

    def ask(self, command: str, **arguments: object) -> Any:
        """The answer on a connection of its own. ``GONE`` if QEMU has ended."""
        with Qmp(self.second) as qmp:
            return qmp.execute(command, **arguments)

    def state(self) -> str:
        """Its run state, ``gone`` without a QEMU."""
        if self.qemu.process.poll() is not None:
            return "gone"
        try:
            return str(self.ask("query-status")["status"])
        except GONE:
            self.qemu.wait(10)
            return "gone"

    def is_free(self) -> bool:
        """Whether it runs, or has ended."""
        return self.state() in ("running", "gone")

    def rise_again(self, image: Path) -> None:
        """In a new QEMU, out of an image; the old QEMU is gone."""
        old = self.qemu
        old.kill()
        self.second = next(self._names)
        self.qemu = self._start(after=old)
        restore(image, monitor=self.qemu.monitor)

    def close(self) -> None:
        """Its end."""
        self._stack.close()


class World:
    """For one worker: trial after trial. A context manager."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sst-"))
        self._lives = (self.home / f"life{number}" for number in count())
        self._life: Life | None = None
        self._images: dict[tuple[str, int | None], Path] = {}

    @property
    def guest(self) -> Life:
        """The guest, running; a new one if the last one has ended, or lived for long enough."""
        if self._life is None:
            folder = next(self._lives)
            folder.mkdir()
            self._life = Life(folder)
        return self._life

    def begin(self) -> None:
        """A trial begins: the guest is there, and runs."""
        if self._life is not None and (self._life.trials >= TRIALS or self._life.state() != "running"):
            self.drop_guest()
        self.guest.trials += 1

    def drop_guest(self) -> None:
        """The next trial gets another one."""
        if self._life is not None:
            self._life.close()
            self._life = None

    def image(self, codec: str, level: int | None) -> Path:
        """A complete image of a guest that ran, in that format; not to be changed."""
        if (codec, level) not in self._images:
            path = self.home / f"{codec}.{level}.save"
            save(self.guest.qemu.monitor, path, SaveOptions(format=codec, level=level, then="resume"))
            self._images[codec, level] = path
        return self._images[codec, level]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty one, gone afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="t", dir=self.home))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def close(self) -> None:
        """Nothing is left."""
        self.drop_guest()
        shutil.rmtree(self.home)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def patience(seconds: float) -> float:
    """``seconds`` on a machine that has a processor for everybody, up to four times as many where others want it too."""
    return seconds * min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def settled(look: Any, timeout_s: float) -> float | None:
    """The seconds until ``look()`` is true; None: it did not come true in time."""
    began = time.monotonic()
    try:
        until(look, timeout_s=timeout_s)
    except AssertionError:
        return None
    return time.monotonic() - began
