"""The scanner in C under the address and undefined-behaviour sanitizers, and its manners as a library."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from streamsave._native.scan import StreamScanner
from streamsave.format.scanner import StreamScanner as ReferenceScanner
from streamsave.units import KiB, MiB

from ..contract.checks import lets_others_run
from ..property.streams import StreamBuilder
from . import golden
from .native import NATIVE, build

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = HERE / "scan_driver.c", NATIVE / "scan.c", NATIVE / "scan_end.c"
    return build(tmp_path_factory.mktemp("driver") / "scan_driver", *sources)


def drive(driver: Path, piece_size: int, files: list[Path]) -> list[str]:
    run = subprocess.run([driver, str(piece_size), *files], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def expected(data: bytes, piece_size: int) -> str:
    """What the driver prints, from the reference."""
    scanner = ReferenceScanner()
    for start in range(0, len(data), piece_size):
        scanner.feed(data[start : start + piece_size])
    s = scanner._state
    first = (int(s.pages_in_order), *(scanner.first_record or (-1, -1, 0)))
    numbers = (s.size, int(s.phase), s.page_size, len(s.blocks), s.ram_offset, s.ram_end, s.device_offset, s.page_count)
    more = (s.zero_page_count, s.description_offset, s.description_end, int(s.end_mark), scanner.ram_size)
    return " ".join(map(str, (*first, *numbers, *more)))


def many_blocks() -> bytes:
    builder = (
        StreamBuilder()
        .configuration("m" * 255, capabilities=["c" * 255])
        .ram_start({f"{number:0255}": 4096 for number in range(600)})
    )
    return bytes(builder.data)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """``data`` with its structure hit: near the start, among the pages, in the devices or at the end; perhaps cut."""
    copy = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.choice([rng.randrange(200), rng.randrange(len(copy)), len(copy) - 1 - rng.randrange(50_000)])
        copy[at : at + rng.randint(0, 9)] = rng.randbytes(rng.randint(0, 9))
    return bytes(copy[: rng.choice([None, rng.randrange(len(copy))])])


@pytest.mark.parametrize("piece_size", [1, 3, 9, 4104, 64 * KiB, 1 * MiB])
def test_sanitizers_find_nothing(driver: Path, tmp_path: Path, piece_size: int) -> None:
    rng = random.Random(piece_size)
    stream = golden.stream()
    inputs = [stream, many_blocks(), b"", rng.randbytes(5000), b"QEVM\0\0\0\3" + rng.randbytes(5000)]
    inputs += [damaged(rng, stream) for _ in range(4 if piece_size == 1 else 12)]
    files = [tmp_path / str(number) for number in range(len(inputs))]
    for file, data in zip(files, inputs, strict=True):
        file.write_bytes(data)
    assert drive(driver, piece_size, files) == [expected(data, piece_size) for data in inputs]


def test_pages_of_sizes_that_cannot_be(driver: Path, tmp_path: Path) -> None:
    """No shift goes too far: QEMU tells a page's size as a power of two, of which 32 bits say the exponent."""
    streams = []
    for bits in (0, 11, 12, 24, 25, 31, 32, 63, 64, 200, 2**32 - 1):
        builder = StreamBuilder().configuration("m", page_bits=12)
        builder.data[-4:] = bits.to_bytes(4, "big")
        streams.append(bytes(builder.ram_start({"pc.ram": 4096}).data))
    files = [tmp_path / str(number) for number in range(len(streams))]
    for file, data in zip(files, streams, strict=True):
        file.write_bytes(data)
    assert drive(driver, 7, files) == [expected(data, 7) for data in streams]


def test_feeding_lets_other_threads_run() -> None:
    noise = b"QEVM\0\0\0\3\x09" + bytes(32 * MiB)
    assert lets_others_run(lambda: StreamScanner().feed(noise))


def test_walking_pages_costs_next_to_nothing() -> None:
    """15 us a MiB where it was measured; the limit leaves room for a slow and busy machine."""
    builder = StreamBuilder().ram_start({"pc.ram": 64 * MiB})
    page = builder.page(bytes(4096))
    builder.ram_part(builder.page(bytes(4096), block="pc.ram"), *[page] * 16_000, last=True)
    data = bytes(builder.data)
    shortest = 1.0
    for _ in range(5):
        scanner = StreamScanner()
        began = time.perf_counter()
        scanner.feed(data)
        shortest = min(shortest, time.perf_counter() - began)
    assert scanner.pages_seen == 16_001
    assert shortest / (len(data) / MiB) < 200e-6
