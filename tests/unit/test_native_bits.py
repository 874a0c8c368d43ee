"""The search and the copying of bits under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import random
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from streamsave._native.bits import BitFinder
from streamsave.units import MiB

from ..contract.checks import lets_others_run
from ..property import bits
from .native import NATIVE, build

HERE = Path(__file__).parent
MAGICS = (0x314159265359, 0x177245385090)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver") / "bits_driver", HERE / "bits_driver.c", NATIVE / "bits.c")


def expected(data: bytes) -> list[str]:
    """What the driver prints, from the reference."""
    sums = []
    for length in range(min(200, max(0, 8 * len(data) - 16))):
        copies = b""
        for start in range(8):
            for to in range(8):
                copies += bits.copied(b"\xa5" * ((to + length + 7) // 8), to, data, start, length)
        sums.append(zlib.adler32(copies))
    return ["".join(f"{number} " for number in numbers) for numbers in (list(bits.find_all(data, MAGICS)), sums)]


def test_sanitizers_find_nothing(driver: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    inputs = [b"", b"1", rng.randbytes(5), rng.randbytes(300)]
    for lead in range(24):
        noise = [f"{rng.getrandbits(rng.randrange(1, 90)):b}" for _ in range(4)]
        magics = [f"{rng.choice(MAGICS):048b}" for _ in range(3)]
        inputs.append(
            bits.to_bytes("1" * lead + "".join(part for pair in zip(magics, noise, strict=False) for part in pair))
        )
        inputs.append(inputs[-1][:-1])
    files = [tmp_path / str(number) for number in range(len(inputs))]
    for file, data in zip(files, inputs, strict=True):
        file.write_bytes(data)
    run = subprocess.run([driver, *files], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [line for data in inputs for line in expected(data)]


def test_the_search_lets_others_run_and_is_fast() -> None:
    """4.6 GB/s where it was measured; the limit leaves room for a slow and busy machine."""
    data, finder = random.Random(1).randbytes(16 * MiB), BitFinder(MAGICS)
    assert lets_others_run(lambda: finder.find(data, 0))
    shortest = 1.0
    for _ in range(5):
        began = time.perf_counter()
        assert finder.find(data, 0) == -1
        shortest = min(shortest, time.perf_counter() - began)
    assert len(data) / shortest > 500 * MiB
