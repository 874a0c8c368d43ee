"""The formula of docs/hot-path.md for the peak memory of a save, held against the kernel's word on a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamsave.codecs.registry import find_codec
from streamsave.units import MiB

DOCUMENT = Path(__file__).parents[2] / "docs" / "hot-path.md"
SLACK = 4 * MiB
"""Threads' stacks, what malloc keeps, what a codec's library takes once."""
CODE = """
import os, sys, time
from streamsave.cli.heap import keep_freed_memory
from streamsave.codecs.registry import find_codec
from streamsave.endpoints.memory import DiscardSink
from streamsave.pipeline.compress import Compression
from tests.kit.leaks import forget_peak, memory
from tests.kit.pipelines import run_to_end

class Noise:
    left, asked_s = 6 * int(sys.argv[2]) + 40, time.monotonic()
    def readinto(self, view):
        self.left -= 1
        self.asked_s = time.monotonic()
        view[:] = os.urandom(65536) * (len(view) // 65536)
        return len(view) if self.left >= 0 else 0
    def abort(self): ...
    def close(self): ...

class Late(DiscardSink):  # takes nothing until all slots are full
    def write(self, parts):
        while not self.size and parts != [b""] and time.monotonic() - source.asked_s < 0.3:
            time.sleep(0.05)
        super().write(parts)

keep_freed_memory()
codec, threads = find_codec(sys.argv[1]), int(sys.argv[2])
codec.encoder(codec.default_level)
before = forget_peak()
source = Noise()
run_to_end(Compression(source, Late(), codec, level=codec.default_level, threads=threads, observe=lambda view: None))
print(memory("VmHWM") - before)
"""


def encoder_size(name: str) -> int:
    """What an encoder of ``name`` at the default level takes, as the document says."""
    memory = DOCUMENT.read_text().partition("\n## Memory\n")[2]
    row = re.search(rf"^\| {name} \|.*\| (\d+) MiB \|$", memory, re.MULTILINE)
    assert row, f"{DOCUMENT} does not say how much memory an encoder of {name} takes"
    return int(row[1]) * MiB


@pytest.mark.parametrize("threads", [2, 6])
@pytest.mark.parametrize("name", ["zstd", "gzip", "lz4", "bzip2"])
def test_a_save_takes_what_the_document_says(name: str, threads: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CODE, name, str(threads)], capture_output=True, text=True, check=True, timeout=60
    )
    codec, grown = find_codec(name), int(run.stdout)
    slots = 2 * threads + 3
    assert slots * codec.chunk_size <= grown, "less than the chunks that are held: nothing was measured"
    frame = codec.bound(codec.chunk_size)
    assert grown <= slots * (codec.chunk_size + frame) + threads * encoder_size(name) + SLACK
