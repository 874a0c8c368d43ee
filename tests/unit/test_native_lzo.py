"""LZO1X in C: against the reference, against what ``lzop`` writes, and under the sanitizers."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from streamsave._native import lzo
from streamsave.demo.machine import QEMU
from streamsave.units import KiB, MiB

from ..contract.samples import CONTENTS, mixed, noise, text, zeros
from ..kit.missing import require_tools
from . import golden, lzo_reference
from .native import NATIVE, build

HERE = Path(__file__).parent
COMPRESSORS: dict[str, lzo.LzoCompressor | lzo.LzoBestCompressor] = {
    "fast": lzo.LzoCompressor(fast=True),
    "usual": lzo.LzoCompressor(fast=False),
    "best": lzo.LzoBestCompressor(depth=4),
    "very best": lzo.LzoBestCompressor(depth=48),
}


def compress(data: bytes, how: str) -> bytes:
    room = memoryview(bytearray(lzo.bound(len(data))))
    return bytes(room[: COMPRESSORS[how].compress(data, room)])


def decompress(data: bytes, size: int) -> bytes | None:
    room = memoryview(bytearray(size))
    return bytes(room) if lzo.decompress(data, room) else None


def expected(data: bytes, size: int) -> bytes | None:
    try:
        return lzo_reference.decompress(data, size)
    except lzo_reference.Damaged:
        return None


def blocks_of(payload: bytes) -> Iterator[tuple[bytes, int]]:
    """The compressed data in what ``lzop -c`` writes, and how much they hold."""
    position = 38
    while size := int.from_bytes(payload[position : position + 4], "big"):
        data_size = int.from_bytes(payload[position + 4 : position + 8], "big")
        position += 12 + data_size
        if data_size < size:
            yield payload[position - data_size : position], size


def lzop_blocks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """``data`` as ``lzop`` compresses them, at one level of each of its three methods."""
    require_tools("lzop")
    for level in ("-1", "-3", "-9"):
        yield from blocks_of(subprocess.run(["lzop", level, "-c"], input=data, capture_output=True, check=True).stdout)


def random_stream(random: Random) -> bytes:
    """Instructions of every kind, with operands that mostly make sense."""
    stream, size, literals = bytearray(), 0, 0

    def long(length: int, most: int) -> bytes:
        rest = length - most
        return bytes((rest - 1) // 255) + bytes([(rest - 1) % 255 + 1])

    def trailing() -> int:
        return random.choice((0, 0, 1, 2, 3))

    if random.random() < 0.7:
        literals = random.choice((1, 2, 3, 4, 50, 238))
        stream += bytes([17 + literals]) + random.randbytes(literals)
        size = literals
    for _ in range(random.randrange(40)):
        kind = random.randrange(6)
        follow = trailing()
        reach = max(1, size + (random.random() < 0.01))
        if kind == 0 and literals == 0:
            count = random.choice((4, 5, 18, 19, 273, 274, 1000))
            stream += bytes([count - 3]) if count <= 18 else b"\0" + long(count, 18)
            stream += random.randbytes(count)
            literals, size = 4, size + count
            continue
        if kind == 1 and 1 <= literals <= 3:
            distance, length = random.randint(1, min(reach, 1024)), 2
            stream += bytes([(distance - 1 & 3) << 2 | follow, distance - 1 >> 2])
        elif kind == 2 and literals == 4 and reach > 2048:
            distance, length = random.randint(2049, min(reach, 3072)), 3
            stream += bytes([(distance - 2049 & 3) << 2 | follow, distance - 2049 >> 2])
        elif kind == 3 and reach > 16384:
            distance, length = random.randint(16385, min(reach, 49151)), random.choice((3, 9, 10, 264, 265, 2000))
            code = distance - 16384
            head = 16 | (code >> 14) << 3
            stream += bytes([head | length - 2]) if length <= 9 else bytes([head]) + long(length, 9)
            stream += ((code & 0x3FFF) << 2 | follow).to_bytes(2, "little")
        elif kind == 4:
            distance = random.choice((1, 2, 3, 4, 7, 8, 9, 15, 16, 17, reach, random.randint(1, reach)))
            distance, length = min(distance, reach, 16384), random.choice((3, 16, 33, 34, 288, 289, 5000))
            stream += bytes([32 | length - 2]) if length <= 33 else b"\x20" + long(length, 33)
            stream += (distance - 1 << 2 | follow).to_bytes(2, "little")
        else:
            distance, length = random.randint(1, min(reach, 2048)), random.randint(3, 8)
            stream += bytes([length - 1 << 5 | (distance - 1 & 7) << 2 | follow, distance - 1 >> 3])
        stream += random.randbytes(follow)
        literals, size = follow, size + length + follow
    return bytes(stream) + lzo_reference.END


def size_in(stream: bytes) -> int:
    """How much ``stream`` decompresses to; a guess for one that does not."""
    reference = lzo_reference._Stream(stream, 1 << 20)
    try:
        reference.run()
    except (IndexError, lzo_reference.Damaged):
        return len(reference.out)
    return len(reference.out)


def test_it_decompresses_as_the_reference_does() -> None:
    random = Random(1)
    whole = 0
    for _ in range(3000):
        stream = random_stream(random)
        size = size_in(stream)
        result = decompress(stream, size)
        assert result == expected(stream, size), stream.hex()
        whole += result is not None
        for other in {size + 1, max(size - 1, 0)} - {size}:
            assert decompress(stream, other) is None
    assert whole > 2000


def test_it_takes_and_refuses_what_the_reference_does() -> None:
    random = Random(2)
    taken = refused = 0
    for _ in range(6000):
        stream = bytearray(random_stream(random))
        for _ in range(random.randint(1, 3)):
            stream[random.randrange(len(stream))] = random.choice((0, 16, 17, 32, 64, 255, random.randrange(256)))
        stream = stream[: random.choice((None, random.randrange(len(stream) + 1)))]
        size = size_in(bytes(stream))
        result = decompress(bytes(stream), size)
        assert result == expected(bytes(stream), size), stream.hex()
        taken, refused = taken + (result is not None), refused + (result is None)
    assert taken > 500
    assert refused > 500


def test_it_decompresses_what_lzop_compresses() -> None:
    data = golden.stream()[-200_000:] + text(50_000) + zeros(20_000) + noise(300) + mixed(300 * KiB)
    for packed, size in lzop_blocks(data):
        assert decompress(packed, size) == expected(packed, size) != None  # noqa: E711


@pytest.mark.parametrize("how", COMPRESSORS)
def test_what_it_compresses_comes_back(how: str) -> None:
    random = Random(3)
    for make in CONTENTS.values():
        for size in (*range(70), 1000, 65_535, 65_536, 65_537, 100_000, 256 * KiB):
            data = make(size)
            packed = compress(data, how)
            assert len(packed) <= lzo.bound(size)
            assert decompress(packed, size) == data, (make.__name__, size)
            if size <= 1000:
                assert expected(packed, size) == data
    for _ in range(200):
        words = [random.randbytes(random.randint(1, 40)) for _ in range(random.randint(1, 60))]
        data = b"".join(random.choices(words, k=random.randint(1, 300)))
        assert expected(compress(data, how), len(data)) == data


@pytest.mark.parametrize("how", COMPRESSORS)
@pytest.mark.parametrize(("distance", "is_found"), [(49151, True), (49152, False)])
def test_matches_reach_as_far_as_the_format_does(distance: int, is_found: bool, how: str) -> None:
    """The same bytes again, behind others that do not compress but are passed quickly: more of the same, each found."""
    again = noise(64 * KiB)[:distance] * 3
    packed = compress(again, how)
    assert decompress(packed, len(again)) == again
    assert (len(packed) < distance + 1000) == is_found


@pytest.mark.parametrize(
    ("how", "option", "limit"),
    [("fast", "-1", 1.04), ("usual", "-3", 1.02), ("best", "-7", 1.04), ("very best", "-9", 1.0)],
)
def test_it_is_as_small_as_lzop(how: str, option: str, limit: float) -> None:
    """On a program, of which a guest's memory holds many."""
    require_tools("lzop", QEMU)
    data = Path(shutil.which(QEMU) or "").read_bytes()[: 4 * MiB]
    done = subprocess.run(["lzop", option, "-c"], input=data, capture_output=True, check=True)
    ours = sum(len(compress(data[at : at + 256 * KiB], how)) for at in range(0, len(data), 256 * KiB))
    assert ours < limit * len(done.stdout)


def test_best_never_costs_more_than_literals_and_knows_every_form() -> None:
    """Of 300 texts with many short matches: as the reference reads them, and no larger than what the others make."""
    random = Random(5)
    pairs = triples = 0
    for _ in range(300):
        words = [random.randbytes(random.randint(2, 6)) for _ in range(random.randint(20, 900))]
        data = b"".join(random.choices(words, k=random.randint(1, 900)))
        packed = compress(data, "best")
        stream = Recording(packed, len(data))
        stream.run()
        assert stream.out == data
        assert len(packed) <= min(len(compress(data, "usual")), len(compress(data, "fast")))
        pairs, triples = pairs + stream.pairs, triples + stream.triples
    assert pairs > 100
    assert triples > 10


class Recording(lzo_reference._Stream):
    """Counts the two forms that only literals before them make possible."""

    pairs = triples = 0

    def copy_match(self, distance: int, length: int, literals: int) -> None:
        self.pairs += length == 2
        self.triples += length == 3 and self.literals == 4 and 2048 < distance <= 3072
        super().copy_match(distance, length, literals)


@pytest.mark.parametrize("period", [1, 2, 3, 7, 8, 9, 15, 16, 17, 1000])
def test_what_repeats_to_the_end_comes_back(period: int) -> None:
    data = (noise(period) * (256 * KiB // period + 1))[: 256 * KiB]
    for cut in (0, 1, 31, 32, 33):
        part = data[: len(data) - cut]
        assert decompress(compress(part, "usual"), len(part)) == part


def test_a_long_match_at_the_end_is_not_copied_byte_by_byte() -> None:
    """60 GB/s where it was measured, and 0.5 byte by byte."""
    packed, room = compress(zeros(256 * KiB), "usual"), memoryview(bytearray(256 * KiB))
    shortest = 1.0
    for _ in range(20):
        began = time.perf_counter()
        assert lzo.decompress(packed, room)
        shortest = min(shortest, time.perf_counter() - began)
    assert shortest < len(room) / 3e9


def test_too_little_room_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        lzo.LzoCompressor(fast=False).compress(bytes(1000), memoryview(bytearray(1000)))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [HERE / "lzo_driver.c", *NATIVE.glob("lzo_*.c")]
    return build(tmp_path_factory.mktemp("driver") / "lzo_driver", *sources)


def test_sanitizers_find_nothing(driver: Path, tmp_path: Path) -> None:
    """Streams of every kind of instruction and what is compressed, whole and damaged: 23,000 inputs, the same each time."""
    random = Random(4)
    inputs = [b"", b"\0", noise(31), text(5000), mixed(70_000), zeros(3000)]
    for _ in range(150):
        stream = random_stream(random)
        inputs.append(size_in(stream).to_bytes(3, "big")[-2:] + stream)
    for number, data in enumerate(inputs):
        (tmp_path / f"{number:03}").write_bytes(data)
    run = subprocess.run([driver, "150", *sorted(tmp_path.iterdir())], capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
