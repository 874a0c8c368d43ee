"""Images that are being written: they have no name yet, but whoever writes them has them open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamsave.endpoints import file


def unfinished_size(pid: int, folder: Path) -> int:
    """Bytes in the file without a name that the process has open in ``folder``; 0: it has none."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
            if target.startswith(f"{folder}/#") and target.endswith(" (deleted)"):
                return link.stat().st_size
        except FileNotFoundError:
            continue  # just closed
    return 0


def without_nameless_files(patch: pytest.MonkeyPatch) -> None:
    """As on a file system that has none: a new image has its temporary name from the beginning."""
    patch.setattr(file, "open_nameless", lambda folder, mode: -1)
