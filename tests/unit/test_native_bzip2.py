"""The bzip2 compressor under the address and undefined-behaviour sanitizers, on texts made to break it."""

from __future__ import annotations

import bz2
import struct
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from streamsave._native.bzip2 import Bzip2Compressor
from streamsave.codecs.bzip2 import CODEC

from ..contract.checks import encode
from ..contract.samples import mixed, noise
from ..property.texts import HARD, random_text
from .native import NATIVE, build

HERE = Path(__file__).parent
FUZZING_S = 5


@pytest.fixture(scope="module", params=[(), ("-DSS_PORTABLE",)], ids=["vectors", "portable"])
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("driver") / "bzip2_driver"
    return build(program, HERE / "bzip2_driver.c", *NATIVE.glob("bzip2_*.c"), options=request.param)


def drive(driver: Path, level: int, texts: list[bytes], file: Path) -> list[bytes]:
    file.write_bytes(b"".join(struct.pack("=I", len(text)) + text for text in texts))
    run = subprocess.run([driver, str(level), file], capture_output=True, timeout=100)
    assert run.returncode == 0, run.stderr.decode()
    results = []
    left = run.stdout
    while left:
        size = struct.unpack_from("=I", left)[0]
        results.append(left[4 : 4 + size])
        left = left[4 + size :]
    return results


def check(driver: Path, level: int, texts: list[bytes], file: Path) -> None:
    compressor = Bzip2Compressor(level)
    streams = drive(driver, level, texts, file)
    assert streams == [encode(CODEC, text, level) for text in texts]
    assert [bz2.decompress(stream) for stream in streams] == texts
    blocks = [text for text in texts if 0 < len(text) <= 900_000]
    for text, result in zip(blocks, drive(driver, 0, blocks, file), strict=True):
        last, row = compressor.rotations(text)
        assert result == struct.pack("=I", row) + last


@pytest.mark.parametrize("level", [1, 9])
def test_sanitizers_find_nothing(driver: Path, tmp_path: Path, level: int) -> None:
    hard = [make(size) for make in HARD.values() for size in (2, 3, 50_000)]
    check(driver, level, [b"", *hard, noise(130_000), mixed(130_000), noise(level * 100_000)], tmp_path / "texts")


def test_fuzzing_finds_nothing(driver: Path, tmp_path: Path) -> None:
    """New texts in each run: a failure leaves them in pytest's directory, and names the seed."""
    until = time.monotonic() + FUZZING_S
    seed = time.time_ns()
    rng = Random(seed)
    count = 0
    while time.monotonic() < until:
        batch = [random_text(rng) for _ in range(20)]
        count += len(batch)
        try:
            check(driver, rng.randint(1, 9), batch, tmp_path / "texts")
        except BaseException as error:
            error.add_note(f"seed {seed}, texts {count - 20} to {count}")
            raise
    assert count
