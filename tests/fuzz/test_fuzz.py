"""Every fuzz target for a few seconds; ``make fuzz`` takes its time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .targets import TARGETS

SECONDS = int(os.environ.get("FUZZ_SECONDS", "6"))
MEMORY_MIB = 1500
"""What libFuzzer lets a process have."""


def fuzz(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """With ``folder`` for temporary files; of these none may be left but what broke something."""
    command = [sys.executable, "-m", "tests.fuzz", name, f"-rss_limit_mb={MEMORY_MIB}", "-timeout=20", *options]
    env = {**os.environ, "TMPDIR": str(folder)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 90, env=env)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(f"{name}-")] == []
    return run


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"planted"}))
def test_nothing_breaks(name: str, tmp_path: Path) -> None:
    run = fuzz(name, tmp_path, f"-max_total_time={SECONDS}")
    assert run.returncode == 0, run.stderr[-3000:]
    done = re.search(r"Done (\d+) runs in", run.stderr)
    assert done, run.stderr[-3000:]
    assert int(done[1]) > 100
    covered = [int(count) for count in re.findall(r"\bft: (\d+)", run.stderr)]
    assert covered[-1] > 20, "the target is not instrumented"


@pytest.mark.timeout(240)
def test_a_planted_bug_is_found(tmp_path: Path) -> None:
    run = fuzz("planted", tmp_path, "-runs=2000000", "-seed=1")
    assert run.returncode != 0
    assert "ZeroDivisionError" in run.stdout + run.stderr
    (found,) = tmp_path.glob("planted-crash-*")
    assert fuzz("planted", tmp_path, str(found)).returncode != 0
