"""Records a scenario as the kernel saw it: the operation runs in a process of its own, under strace.

The same events come out as from ``recorder``, which knows only what goes through Python; so each tells whether the other one
is to be believed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from ...kit.cli import ROOT
from .events import DEVICE, FOLDER, Created, Disk, Event, Named, Recording, Resized, Synced, Written
from .recorder import disk_of, files_of
from .scenarios import IMAGE, Recorded, Scenario, prepared

CALLS: Final = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,ftruncate,truncate,fallocate,"
    "copy_file_range,sendfile,splice,rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,lseek,ioctl"
)
LONGEST: Final = 64 << 20
"""How much of a write is recorded: all."""
HARMLESS: Final = {"ioctl", "openat", "lseek"}
"""Calls of which only some change a file."""

_HEX: Final = r"((?:\\x[0-9a-f]{2})*)"
_FD: Final = rf"\d+<{_HEX}[^>]*>(?:\(deleted\))?"
_AT: Final = rf"AT_FDCWD<{_HEX}>, "
_PATTERNS: Final = {
    name: re.compile(pattern)
    for name, pattern in {
        "openat": rf'{_AT}"{_HEX}", ([A-Z_|]+)(?:, 0[0-7]*)?\) = {_FD}',
        "linkat": rf'{_AT}"{_HEX}", {_FD}, "{_HEX}", AT_SYMLINK_FOLLOW\) = 0',
        "write": rf'{_FD}, "{_HEX}", \d+\) = (\d+)',
        "writev": rf"{_FD}, \[(.*)\], \d+\) = (\d+)",
        "pwrite64": rf'{_FD}, "{_HEX}", \d+, (\d+)\) = (\d+)',
        "fsync": rf"{_FD}\) = (-?\d+)",
        "ftruncate": rf"{_FD}, (\d+)\) = 0",
        "copy_file_range": rf"{_FD}, \[(\d+)[^]]*\], {_FD}, \[(\d+)[^]]*\], \d+, 0\) = (\d+)",
        "rename": rf'"{_HEX}", "{_HEX}"\) = 0',
        "renameat2": rf'{_AT}"{_HEX}", {_AT}"{_HEX}", RENAME_EXCHANGE\) = 0',
        "unlink": rf'"{_HEX}"\) = 0',
        "lseek": rf"{_FD}, -?\d+, SEEK_[A-Z]+\) = (\d+)",
        "ioctl": rf"{_FD}, BLKZEROOUT, \[(\d+), (\d+)\]\) = 0",
    }.items()
}
SYNCS: Final = {"fsync", "fdatasync"}
_PADDING: Final = re.compile(r"\) += ")


@cache
def can_trace() -> bool:
    """Whether there is a strace that may trace: not in every container."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def trace(scenario: Scenario, home: Path) -> Recorded:
    """See ``record``; ``can_trace()`` said yes."""
    with prepared(scenario, home) as (folder, device):
        disk = disk_of(folder, device)
        log = home / "trace"
        strace = ["strace", "-f", "-y", "-qq", "-xx", "-s", str(LONGEST), "-e", "signal=none", "-e", f"trace={CALLS}", "-o"]
        operation = [sys.executable, "-m", "tests.faults.powerloss.operate", scenario.name]
        command: list[str | Path] = [*strace, log, *operation, folder, device or folder / IMAGE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        error = RuntimeError(done.stderr) if done.returncode else None
        with log.open() as lines:
            reader = _Reader(folder, device, disk)
            for call in _calls(lines):
                reader.take(call)
        number = disk.names[DEVICE] if device else None
        return Recorded(scenario, Recording(disk, tuple(reader.events), number), error, files_of(folder, device))


@dataclass(frozen=True)
class _Call:
    """That returned; ``others``: those that had begun by then, by their threads."""

    thread: str
    name: str
    rest: str
    """Arguments and result."""
    others: dict[str, _Call]


def _calls(lines: Iterable[str]) -> Iterator[_Call]:
    """In the order in which they returned."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, rest = line.rstrip("\n").split(maxsplit=1)
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if rest.startswith("<... "):
            rest = begun.pop(thread) + rest.split(" resumed>", 1)[1].lstrip()
        name, paren, arguments = rest.partition("(")
        if paren:
            others = {other: _Call(other, text.partition("(")[0], text, {}) for other, text in begun.items()}
            yield _Call(thread, name, _PADDING.sub(") = ", arguments), others)


class _Reader:
    """Makes events of strace's lines."""

    def __init__(self, folder: Path, device: Path | None, before: Disk) -> None:
        self.events: list[Event] = []
        self._folder = str(folder)
        self._device = str(device)
        self._disk = before.copy()
        """As it is by now: names lead to files, and a copy needs what it copies."""
        self._offsets: dict[int, int] = {}
        self._nameless: dict[str, int] = {}
        """Files that were opened without a name, by what the kernel calls them: for ever."""
        self._spoilt: set[str] = set()
        """Threads with an fsync in the midst of which something was written."""
        self._next = max(before.files, default=-1) + 1

    def take(self, call: _Call) -> None:
        """One after the other. An fsync in the midst of which something was written counts for nothing."""
        if not self._concerns_us(call):
            return
        for other in filter(self._concerns_us, call.others.values()):
            if other.name in SYNCS and call.name not in HARMLESS:
                self._spoilt.add(other.thread)
            assert {other.name, call.name} & (SYNCS | HARMLESS), f"two at a time: {other.name} and {call.name}"
        if call.name in SYNCS and call.thread in self._spoilt:
            self._spoilt.remove(call.thread)
            return
        found = _PATTERNS[call.name].match(call.rest) if call.name in _PATTERNS else None
        if found:
            for event in getattr(self, f"_{call.name}")(*found.groups()):
                self.events.append(event)
                self._disk.apply(event)
        else:
            assert call.name in HARMLESS or " = -1 " in call.rest, f"not understood: {call.name}({call.rest[:1000]}"

    def _concerns_us(self, call: _Call) -> bool:
        return any(self._is_ours(_text(each)) for each in re.findall(rf'[<"]{_HEX}[>"]', call.rest[:4000]))

    def _is_ours(self, path: str) -> bool:
        return path in (self._device, self._folder) or os.path.dirname(path) == self._folder

    def _file(self, path: str) -> int:
        """Of the hexadecimal path of an open file, which is its name by now."""
        text = _text(path)
        if text == self._folder:
            return FOLDER
        if text in self._nameless:
            return self._nameless[text]
        return self._disk.names[DEVICE if text == self._device else os.path.basename(text)]

    def _openat(self, _at: str, path: str, flags: str, opened: str) -> Iterator[Event]:
        if "O_TMPFILE" in flags:
            self._nameless[_text(opened)] = self._next
            self._offsets[self._next] = 0
            yield Created(self._next)
            self._next += 1
            return
        if "O_CREAT" not in flags:
            if self._is_ours(_text(path)) and _text(path) != self._folder:
                self._offsets[self._file(path)] = 0
            return
        assert "O_EXCL" in flags
        self._offsets[self._next] = 0
        yield Named(((os.path.basename(_text(path)), self._next),))
        self._next += 1

    def _write(self, path: str, data: str, count: str) -> Iterator[Event]:
        yield from self._writev(path, f'iov_base="{data}"', count)

    def _writev(self, path: str, parts: str, count: str) -> Iterator[Event]:
        file = self._file(path)
        data = b"".join(map(_bytes, re.findall(rf'iov_base="{_HEX}"', parts)))[: int(count)]
        assert len(data) == int(count), "not all of a write was recorded"
        yield Written(file, self._offsets[file], data)
        self._offsets[file] += len(data)

    def _pwrite64(self, path: str, data: str, offset: str, count: str) -> Iterator[Event]:
        yield Written(self._file(path), int(offset), _bytes(data)[: int(count)])

    def _fsync(self, path: str, result: str) -> Iterator[Event]:
        yield Synced(self._file(path), well=result == "0")

    def _ftruncate(self, path: str, size: str) -> Iterator[Event]:
        yield Resized(self._file(path), int(size))

    def _copy_file_range(self, source: str, start: str, path: str, offset: str, count: str) -> Iterator[Event]:
        data = self._disk.files[self._file(source)][int(start) : int(start) + int(count)]
        yield Written(self._file(path), int(offset), bytes(data))

    def _ioctl(self, path: str, offset: str, size: str) -> Iterator[Event]:
        yield Written(self._file(path), int(offset), bytes(int(size)))

    def _linkat(self, _at: str, _link: str, file: str, path: str) -> Iterator[Event]:
        yield Named(((os.path.basename(_text(path)), self._file(file)),))

    def _rename(self, old: str, new: str) -> Iterator[Event]:
        yield Named(((os.path.basename(_text(old)), None), (os.path.basename(_text(new)), self._file(old))))

    def _renameat2(self, _at: str, first: str, _also: str, second: str) -> Iterator[Event]:
        names = os.path.basename(_text(first)), os.path.basename(_text(second))
        yield Named(((names[0], self._file(second)), (names[1], self._file(first))))

    def _unlink(self, path: str) -> Iterator[Event]:
        yield Named(((os.path.basename(_text(path)), None),))

    def _lseek(self, path: str, offset: str) -> Iterator[Event]:
        self._offsets[self._file(path)] = int(offset)
        yield from ()


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _text(escaped: str) -> str:
    return os.fsdecode(_bytes(escaped))
