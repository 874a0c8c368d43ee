"""Every fuzz target for a few seconds; ``make fuzz`` takes its time."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from .targets import TARGETS

SECONDS = int(os.environ.get("FUZZ_SECONDS", "6"))
MEMORY_MIB = 1500
"""What libFuzzer lets a process have."""


def fuzz(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", name, f"-rss_limit_mb={MEMORY_MIB}", "-timeout=20", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 90)


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"planted"}))
def test_nothing_breaks(name: str) -> None:
    run = fuzz(name, f"-max_total_time={SECONDS}")
    assert run.returncode == 0, run.stderr[-3000:]
    done = re.search(r"Done (\d+) runs in", run.stderr)
    assert done, run.stderr[-3000:]
    assert int(done[1]) > 100
    covered = [int(count) for count in re.findall(r"\bft: (\d+)", run.stderr)]
    assert covered[-1] > 20, "the target is not instrumented"


@pytest.mark.timeout(240)
def test_a_planted_bug_is_found() -> None:
    run = fuzz("planted", "-runs=2000000", "-seed=1")
    assert run.returncode != 0
    assert "ZeroDivisionError" in run.stdout + run.stderr
