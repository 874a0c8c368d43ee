"""What chance is made from in the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def seed_of(variable: str) -> int:
    """What the environment says in ``variable``, else a number that the sources decide.

    So the same commit gives the same answer twice, and the next one tries something else. Outside of a git checkout: 1.
    """
    if given := os.environ.get(variable):
        return int(given)
    here = Path(__file__).parent
    tree = subprocess.run(["git", "rev-parse", "HEAD^{tree}"], cwd=here, capture_output=True, text=True, check=False).stdout
    return int(tree[:8] or "1", 16)
