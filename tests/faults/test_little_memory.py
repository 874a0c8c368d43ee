"""A decoder that gets no memory says so, and nothing of the bytes: damage would be taken for the image's end."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from streamsave.codecs.registry import codecs

from ..kit.cli import ROOT

SCRIPT: Final = """
import resource, sys
from io import BytesIO
from random import Random
from pathlib import Path
from streamsave.codecs.registry import codecs
from streamsave.units import KiB

codec = codecs()[sys.argv[1]]
size = codec.chunk_size
chunk = Random(1).randbytes(size // 2) + bytes(size // 2)
room = memoryview(bytearray(codec.bound(size)))
frame = memoryview(b"".join(codec.encoder(codec.default_level).encode(memoryview(chunk), room)))
payload = codec.prologue + frame + codec.epilogue
piece = memoryview(bytearray(size + 1))

def whole():
    assert codec.decoder().decode(frame, room) == chunk

def sequential():
    assert codec.stream_reader(BytesIO(payload).read).readinto(piece) == size
    assert piece[:size] == chunk

for decode in (whole, sequential):
    decode()  # loads its libraries
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for more in (*range(0, 1024, 32), *range(1024, 16384, 512)):
        limit = pages * resource.getpagesize() + more * KiB
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            decode()
            outcome = "good"
        except MemoryError:
            outcome = "no memory"
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(outcome)
"""


@pytest.mark.parametrize("name", list(codecs()))
def test_lack_of_memory_is_no_damage(name: str) -> None:
    gives_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # what is freed, so that it counts
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        cwd=ROOT,
        env={**os.environ, **gives_back},
        capture_output=True,
        text=True,
        check=False,
    )
    if name in ("lz4", "snappy") and run.returncode == -6:
        return  # its library ends the process then: docs/exit-codes.md
    assert run.returncode == 0, run.stderr
    outcomes = run.stdout.split("\n")[:-1]
    assert set(outcomes) <= {"good", "no memory"}
    assert "good" in outcomes
