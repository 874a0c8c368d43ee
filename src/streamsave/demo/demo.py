"""One guest, carried through every format: saved, its QEMU gone, restored into a new one, saved in the next format.

The guest counts, and checks all of its memory for each number. All its QEMUs append to one console, so the proof is there to
read: a counter that goes on over every save as if nothing had been.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ..cancel import Cancellation
from ..choices import Level
from ..codecs.registry import codecs
from ..errors import ProcessError
from ..operations.restore import restore
from ..operations.save import save
from ..options import RestoreOptions, SaveOptions
from ..qemu.process import QemuProcess
from ..units import MiB, format_duration, format_size
from .console import Console
from .machine import QEMU, Accelerator, Machine, end_process, find_qemu, probe_accelerator

MEMORY_SIZE: Final = 64 * MiB

BOOT_S: Final = 60.0
TICKS_S: Final = 60.0
"""How long the restored guest may take for two ticks. Slow hosts need seconds; none of this is waited for in vain."""

HEADINGS: Final = ("format", "image", "ratio", "save", "restore", "stood still", "counter", "memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRow:
    """What one format did. Sizes in bytes, durations in seconds."""

    format: str
    level: Level
    image_size: int
    ratio: float
    save_s: float
    restore_s: float
    stopped_s: float
    counter_before: int
    """The last number that the guest printed before it was saved."""
    counter_after: int
    """The last one seen since it was restored; the guest has looked at all of its memory meanwhile."""
    memory_intact: bool
    """No damage was reported, and no number of the counter is missing or came twice in the guest's whole life."""

    def cells(self) -> tuple[str, ...]:
        """The row as text below ``HEADINGS``."""
        return (
            self.format,
            format_size(self.image_size),
            f"{self.ratio:.2f}",
            format_duration(self.save_s),
            format_duration(self.restore_s),
            format_duration(self.stopped_s),
            f"{self.counter_before} -> {self.counter_after}",
            "intact" if self.memory_intact else "DAMAGED",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoGuest:
    """What the demo runs on."""

    accelerator: Accelerator
    memory_size: int
    command: tuple[str, ...]
    """The QEMU command that boots the guest, and that every restore starts again."""


def run_demo(
    *,
    formats: Sequence[str] = (),
    qemu: str = QEMU,
    memory_size: int = MEMORY_SIZE,
    on_guest: Callable[[DemoGuest], None] | None = None,
    on_row: Callable[[DemoRow], None] | None = None,
    cancel: Cancellation | None = None,
) -> tuple[DemoRow, ...]:
    """Boot the demo guest and take it through ``formats`` (none: every registered one), one after the other.

    ``on_guest`` is called once the guest counts, ``on_row`` after each format. Needs no more than QEMU, and leaves nothing.

    Raises:
        ProcessError: QEMU is not installed, or the guest does not come up in it.
        StreamsaveError: what ``save`` and ``restore`` raise.

    """
    names = tuple(formats) or tuple(codecs())
    options = [SaveOptions(format=name) for name in names]  # an unknown name is an error before anything was started
    cancel = cancel or Cancellation()
    qemu = find_qemu(qemu)
    accelerator = probe_accelerator(qemu)
    with tempfile.TemporaryDirectory(prefix="streamsave-demo-") as folder:
        home = Path(folder)
        machine = Machine(home / "console", home / "qmp", accelerator, memory_size, qemu)
        with _Life(machine, home, cancel) as life:
            if on_guest is not None:
                on_guest(DemoGuest(accelerator=accelerator, memory_size=memory_size, command=machine.command))
            rows = []
            for option in options:
                rows.append(life.carry_over(option))
                if on_row is not None:
                    on_row(rows[-1])
            return tuple(rows)


class _Life:
    """The guest from its boot to its end, in one QEMU after the other. A context manager: inside, the guest runs."""

    def __init__(self, machine: Machine, home: Path, cancel: Cancellation) -> None:
        self._machine = machine
        self._console = Console(machine.console)
        self._image = home / "guest.save"
        self._cancel = cancel
        self._boot_log = home / "stderr"
        self._wait: Callable[[], object]
        """Waits for the end of the QEMU that has the guest now."""
        self._end: Callable[[], object]
        """Ends it."""

    def __enter__(self) -> Self:
        process = self._machine.start(self._boot_log)
        self._wait, self._end = process.wait, lambda: end_process(process)
        try:
            self._boot(process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def _boot(self, process: subprocess.Popen[bytes]) -> None:
        def watch() -> None:
            self._cancel.check()
            if process.poll() is not None:
                said = self._boot_log.read_text(errors="replace").strip()
                raise ProcessError(f"{self._machine.qemu} ended with status {process.returncode}: {said}", stderr=said)

        if not self._console.wait_for_counter(2, BOOT_S, watch):
            raise ProcessError(
                f"the demo guest did not count to 2 within {BOOT_S:.0f} s of its boot in {self._machine.qemu}"
            )

    def carry_over(self, options: SaveOptions) -> DemoRow:
        """Save the guest, and restore it into a new QEMU."""
        saved = save(self._machine.monitor, self._image, options, cancel=self._cancel)
        self._wait()  # it was told to quit; only now the console holds all that this guest printed
        before = self._console.counter()
        restored = restore(
            self._image, command=self._machine.command, options=RestoreOptions(state="running"), cancel=self._cancel
        )
        process = restored.process
        assert process is not None, "restore() was given a command"
        self._wait, self._end = process.wait, lambda: _kill(process)
        # One tick completes the look at the memory that the save interrupted, the next one is a look at all of it.
        went_on = self._console.wait_for_counter(before + 2, TICKS_S, self._cancel.check)
        return DemoRow(
            format=options.format,
            level=saved.level,
            image_size=saved.image_size,
            ratio=saved.ratio,
            save_s=saved.total_s,
            restore_s=restored.total_s,
            stopped_s=saved.stopped_s,
            counter_before=before,
            counter_after=self._console.counter(),
            memory_intact=went_on and self._console.seamless(),
        )


def _kill(process: QemuProcess) -> None:
    """End it without the line that QEMU prints about every other signal."""
    process.send_signal(signal.SIGKILL)
    process.wait()
