"""An initrd in the making: the "newc" cpio format that the kernel unpacks (Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A file (``data``), or a directory where that is None. ``mode`` holds the permissions only."""

    name: str
    data: bytes | None = None
    mode: int = 0o755


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive; directories go before what they hold."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _member(0, Entry("TRAILER!!!", b"", 0))])


def _member(inode: int, entry: Entry) -> bytes:
    data = entry.data or b""
    mode = entry.mode | (stat.S_IFDIR if entry.data is None else stat.S_IFREG)
    name = entry.name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device x 2, device x 2 of the node, size of the name, checksum (unused)
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
