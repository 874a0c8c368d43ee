"""What a caller can ask for, checked when it is built: an options object that exists can be carried out."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from .choices import AUTO, DEFAULT_WINDOW
from .choices import GuestState as GuestState  # as itself: callers find the types of the options here
from .choices import Level as Level
from .choices import Then as Then
from .choices import Transport as Transport
from .codecs.base import Codec
from .codecs.registry import find_codec
from .errors import UsageError
from .units import GiB, KiB

DEFAULT_FORMAT = "zstd"
MAX_THREADS = 256
WINDOW_RANGE = (1 * KiB, 2 * GiB)
"""The windows that zstd has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressOptions:
    """How a stream becomes a payload.

    Raises:
        FormatError: ``format`` names no codec of ours.
        UsageError: a level that the format does not have, fewer threads than one, or a limit that is no time.

    """

    format: str = DEFAULT_FORMAT
    level: Level | None = None
    """The stock tool's level; None: the format's default, see ``streamsave formats``. ``"auto"``: as high as the encoders
    keep up with at each moment, with what QEMU delivers and with what the destination takes."""
    threads: int | None = None
    """Encoder threads; None: as many processors as this process may really use."""
    bypass_cache: bool = False
    """Write past the page cache (``O_DIRECT``) where the file system can; a warning in the report says where it cannot."""
    timeout_s: float | None = None
    """Give up, with everything as before, if there is no image after so many seconds; None: take as long as it takes."""
    stream: bool = False
    """The destination is a pipe: its header is complete from the first byte on, and nothing can be taken back."""

    def __post_init__(self) -> None:
        _check_level(self.codec, self.level)
        _check_threads(self.threads)
        _check_limit("timeout_s", self.timeout_s)

    @property
    def codec(self) -> Codec:
        """The codec that ``format`` names."""
        return find_codec(self.format)

    @property
    def thread_count(self) -> int:
        """``threads``, or what the machine gives."""
        return self.threads or usable_cpus()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveOptions(CompressOptions):
    """How a guest is saved.

    Raises:
        UsageError: also for an unknown ``then`` or ``transport``.

    """

    then: Then = "quit"
    transport: Transport = "fd"
    save_command: bool = True
    """Whether the descriptive XML carries QEMU's command line, which may hold secrets."""
    max_stopped_s: float | None = None
    """Give up, and let a guest that ran run on, if it were to stand still for longer than so many seconds."""

    def __post_init__(self) -> None:
        super(SaveOptions, self).__post_init__()  # slots make a new class, which bare super() does not find
        _check_choice("then", self.then, get_args(Then))
        _check_limit("max_stopped_s", self.max_stopped_s)
        _check_choice("transport", self.transport, get_args(Transport))


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """How an image is restored.

    Raises:
        UsageError: fewer threads than one, an unknown ``state`` or ``transport``, a limit that is no time, or a window
            that cannot be.

    """

    threads: int | None = None
    """Decoder threads; None: as many processors as this process may really use."""
    state: GuestState | None = None
    """What the guest does afterwards; None: what it did when it was saved."""
    transport: Transport = "fd"
    timeout_s: float | None = None
    """Give up, with the image as it was, if the guest is not restored after so many seconds; None: never."""
    max_window: int = DEFAULT_WINDOW
    """How far back, in bytes, the compressed data of an image may refer (zstd's window): decoding takes that much memory.
    Only other programs' images need more, those of ``zstd --long=28`` and up."""

    def __post_init__(self) -> None:
        _check_threads(self.threads)
        _check_limit("timeout_s", self.timeout_s)
        if not WINDOW_RANGE[0] <= self.max_window <= WINDOW_RANGE[1]:
            raise UsageError(f"max_window must be {WINDOW_RANGE[0]} to {WINDOW_RANGE[1]} bytes, not {self.max_window}")
        if self.state is not None:
            _check_choice("state", self.state, get_args(GuestState))
        _check_choice("transport", self.transport, get_args(Transport))

    @property
    def thread_count(self) -> int:
        """``threads``, or what the machine gives."""
        return self.threads or usable_cpus()


def runs_after(state: GuestState | None, *, was_running: bool) -> bool:
    """Whether the guest is to run: as ``state`` says, or as it did when it was saved.

    Raises:
        UsageError: there is no such state.

    """
    if state is None:
        return was_running
    _check_choice("state", state, get_args(GuestState))
    return state == "running"


def usable_cpus() -> int:
    """The processors that this process may really use: its affinity, or its control group's quota if that is less."""
    return max(1, min(len(os.sched_getaffinity(0)), _cgroup_cpus() or MAX_THREADS, MAX_THREADS))


def _cgroup_cpus() -> int | None:
    """The smallest cgroup v2 ``cpu.max`` on the way up from our own group, rounded up; None without a limit."""
    try:
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup") / own[3:].lstrip("/")
    limits = []
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            limits.append(-(-int(quota) // int(period)))
    return min(limits, default=None)


def _check_level(codec: Codec, level: Level | None) -> None:
    if level != AUTO:
        codec.check_level(level)
    elif not codec.levels:
        raise UsageError(f"format {codec.name} has no levels to choose from: leave the level out")


def _check_threads(threads: int | None) -> None:
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"threads must be 1 to {MAX_THREADS}, not {threads}")


def _check_limit(name: str, limit_s: float | None) -> None:
    if limit_s is not None and not 0 < limit_s <= threading.TIMEOUT_MAX:  # NaN is neither
        raise UsageError(f"{name} must be a number of seconds greater than 0, not {limit_s:g}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
