"""The bzip2 decompressor against libbz2, under the address and undefined-behaviour sanitizers, on good and bad streams."""

from __future__ import annotations

import bz2
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from streamsave._native.bzip2 import Bzip2Decompressor

from ..contract.bzip2_craft import block, run_of, stream
from ..contract.samples import mixed, noise, text, zeros
from ..property.texts import HARD, random_text
from .native import NATIVE, build

HERE = Path(__file__).parent
FUZZING_S = 5
ROOM = 2_000_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = (NATIVE / "bzip2_decode.c", NATIVE / "bzip2_walk.c")
    return build(tmp_path_factory.mktemp("driver") / "bunzip2_driver", HERE / "bunzip2_driver.c", *sources)


def drive(driver: Path, streams: Sequence[bytes], room: int, file: Path) -> list[bytes | int]:
    file.write_bytes(b"".join(struct.pack("=II", len(each), room) + each for each in streams))
    run = subprocess.run([driver, file], capture_output=True, timeout=100)
    assert run.returncode == 0, run.stderr.decode()
    results: list[bytes | int] = []
    left = memoryview(run.stdout)
    while left:
        (size,) = struct.unpack_from("=i", left)
        results.append(bytes(left[4 : 4 + size]) if size >= 0 else size)
        left = left[4 + max(size, 0) :]
    return results


def expected(data: bytes, room: int) -> bytes | None:
    """What libbz2 makes of it, None for an error, and for more than there is room for."""
    decompressor = bz2.BZ2Decompressor()
    try:
        out = decompressor.decompress(data, room + 1)
    except OSError:
        return None
    return out if decompressor.eof and not decompressor.unused_data and len(out) <= room else None


def check(driver: Path, streams: Sequence[bytes], file: Path, room: int = ROOM) -> int:
    """How many were right."""
    wanted = [expected(each, room) for each in streams]
    results = drive(driver, streams, room, file)
    randomised = Bzip2Decompressor.RANDOMISED
    for got, want in zip(results, wanted, strict=True):
        assert got == want if isinstance(got, bytes) else want is None or got == randomised
    return sum(isinstance(result, bytes) for result in results)


@pytest.mark.parametrize("level", [1, 9])
def test_right_streams(driver: Path, tmp_path: Path, level: int) -> None:
    texts = [make(size) for make in HARD.values() for size in (2, 3, 511, 512, 513, 50_000)]
    texts += [b"", noise(130_000), mixed(1_100_000), text(1_000_000), zeros(1_500_000), noise(level * 100_000)]
    texts += [b"ab" * 40_000, b"abc" * 300_000, bytes(range(256)) * 3000]
    texts += [b"x" * count for count in (1, 3, 4, 5, 258, 259, 260, 263, 1000)]
    streams = [bz2.compress(each, level) for each in texts]
    assert check(driver, streams, tmp_path / "streams") == len(texts)


def test_blocks_that_no_compressor_makes(driver: Path, tmp_path: Path) -> None:
    rng = Random(3)
    blocks = [block("".join(rng.choices("0123456789abcde", k=count))) for count in (1, 2, 49, 50, 51, 99, 1000)]
    streams = [stream(each) for each in blocks if each.data] + [stream(*(each for each in blocks if each.data))]
    assert check(driver, streams, tmp_path / "streams") == len(streams)


def test_a_block_may_have_more_selectors_than_are_of_any_use(driver: Path, tmp_path: Path) -> None:
    """Some programs write more; 15 bits tell how many."""
    streams = [stream(block("23452345", more_selectors=more)) for more in (1, 18_000, 18_001, 18_002, 32_766)]
    assert check(driver, streams, tmp_path / "streams") == len(streams)


@pytest.mark.parametrize(
    ("digits", "fits"),
    [
        (run_of(900_000), True),
        (run_of(900_001), False),
        (f"{run_of(450_000)}2{run_of(449_999)}", True),
        (f"{run_of(450_000)}2{run_of(450_000)}", False),
        (f"{run_of(900_000)}2", False),
    ],
)
def test_a_block_is_no_larger_than_its_level_allows(digits: str, fits: bool, driver: Path, tmp_path: Path) -> None:
    """900,000 bytes, whichever byte or run goes beyond it."""
    assert check(driver, [stream(block(digits))], tmp_path / "streams", room=20_000_000) == fits


def test_each_checksum_counts(driver: Path, tmp_path: Path) -> None:
    whole = bz2.compress(text(300))
    places = [*range(80, 112), *range(8 * len(whole) - 39, 8 * len(whole) - 7)]
    flipped = []
    for bit in places:
        copy = bytearray(whole)
        copy[bit // 8] ^= 0x80 >> bit % 8
        flipped.append(bytes(copy))
    assert set(drive(driver, flipped, ROOM, tmp_path / "streams")) == {Bzip2Decompressor.DAMAGED}


def test_room_is_kept_to(driver: Path, tmp_path: Path) -> None:
    for data in (b"", b"x", b"x" * 300, text(5000), noise(5000)):
        one = bz2.compress(data)
        for room in {0, 1, 3, 4, 5, len(data) - 1, len(data), len(data) + 1} - {-1}:
            (result,) = drive(driver, [one], room, tmp_path / "streams")
            assert result == (data if room >= len(data) else Bzip2Decompressor.TOO_LARGE)


def test_every_cut_and_extension(driver: Path, tmp_path: Path) -> None:
    whole = bz2.compress(text(300)) + b""
    cuts = [whole[:size] for size in range(len(whole))]
    assert set(drive(driver, cuts, ROOM, tmp_path / "streams")) == {Bzip2Decompressor.CUT}
    more = [whole + b"\0", whole + whole, whole + bytes(100)]
    assert set(drive(driver, more, ROOM, tmp_path / "streams")) == {Bzip2Decompressor.FOLLOWED}


def damaged(rng: Random, data: bytes) -> bytes:
    """Bits flipped, most of them in the headers and tables, and perhaps cut."""
    copy = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        bit = rng.randrange(8 * min(len(copy), rng.choice([14, 40, 150, len(copy)])))
        copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy[: rng.choice([None, None, None, rng.randrange(len(copy))])])


def test_fuzzing_finds_nothing(driver: Path, tmp_path: Path) -> None:
    """New streams in each run: a failure leaves them in pytest's directory, and names the seed."""
    until, seed = time.monotonic() + FUZZING_S, time.time_ns()
    rng, right = Random(seed), 0
    while time.monotonic() < until:
        streams = [bz2.compress(random_text(rng), rng.randint(1, 9)) for _ in range(10)]
        streams += [damaged(rng, rng.choice(streams)) for _ in range(60)]
        try:
            right += check(driver, streams, tmp_path / "streams")
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert right


def test_it_is_faster_than_libbz2() -> None:
    """More than twice as fast where it was measured, both by the processor's time."""
    data = text(400_000) + noise(400_000)
    one, room, decompressor = bz2.compress(data), memoryview(bytearray(len(data))), Bzip2Decompressor()

    def ours() -> None:
        assert decompressor.decompress(one, room) == len(data)

    shortest = []
    for call in (ours, lambda: bz2.decompress(one)):
        times = []
        for _ in range(5):
            began = time.thread_time()
            call()
            times.append(time.thread_time() - began)
        shortest.append(min(times))
    assert shortest[0] < shortest[1]
