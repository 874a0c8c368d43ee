"""A block device for the length of a ``with``: a file behind a loop device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .missing import missing, require_root, require_tools


@contextmanager
def block_device(backing: Path, content: bytes) -> Iterator[Path]:
    """A device as large as ``content``, which it holds. Needs root."""
    require_root("a block device")
    require_tools("losetup")
    backing.write_bytes(content)
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if made.returncode:
        missing(f"no loop device can be had here: {made.stderr}")
    device = Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
