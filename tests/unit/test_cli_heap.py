from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from streamsave.units import MiB

ROUNDS = 20
HELD = 8 * MiB
"""Twice as much as glibc keeps of its own accord when it has seen blocks of 1 MiB."""
PAGES = HELD // resource.getpagesize()
CODE = f"""
import resource
from streamsave.cli.heap import keep_freed_memory
if {{keep}}:
    keep_freed_memory()
for number in range({ROUNDS + 1}):
    blocks = [b"x" * {MiB} for _ in range({HELD // MiB})]
    del blocks
    if not number:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    """How many pages the kernel gave for what was allocated again and again."""
    run = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif("gnu" not in sys.implementation._multiarch, reason="the C library is not glibc")
def test_freed_memory_is_used_again() -> None:
    assert faults(keep=True) < PAGES
    assert faults(keep=False) > ROUNDS * PAGES // 2, "glibc does that of its own accord: the setting can go"
