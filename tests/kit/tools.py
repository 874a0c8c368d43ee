"""The stock tools, as filters."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .missing import require_tools


def pipe_through(command: str | Sequence[str], data: bytes) -> bytes:
    """What ``command`` makes of ``data``; a string is split at its spaces."""
    words = command.split() if isinstance(command, str) else command
    require_tools(words[0])
    return subprocess.run(words, input=data, stdout=subprocess.PIPE, check=True, timeout=100).stdout
