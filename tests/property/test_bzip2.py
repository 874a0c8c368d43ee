"""The bzip2 compressor: its sort against sorting in Python, its streams against decoders and libbz2's size."""

from __future__ import annotations

import bz2
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamsave._native.bzip2 import Bzip2Compressor
from streamsave.codecs.bzip2 import CODEC
from streamsave.units import MiB

from ..contract.checks import lets_others_run
from ..contract.samples import CONTENTS, mixed, noise, text
from ..kit.tools import pipe_through
from .texts import HARD, RUNS, random_text, texts

levels = st.integers(1, 9)


compressor = cache(Bzip2Compressor)


def compress(compressor: Bzip2Compressor, data: bytes, size: int | None = None) -> bytes:
    """``data`` as a stream, in a room of ``size`` bytes."""
    room = memoryview(bytearray(CODEC.bound(len(data)) if size is None else size))
    return bytes(room[: compressor.compress(data, room)])


def stream_of(data: bytes, level: int = 9) -> bytes:
    return compress(compressor(level), data)


def sorted_rotations(data: bytes) -> bytes:
    """The last column."""
    order = sorted(range(len(data)), key=lambda start: data[start:] + data[:start])
    return bytes(data[start - 1] for start in order)


def check_sort(data: bytes) -> None:
    last, row = compressor(9).rotations(data)
    assert last == sorted_rotations(data)
    rows = sorted(data[start:] + data[:start] for start in range(len(data)))
    assert rows[row] == data


@given(texts.filter(bool))
@example(b"\xff" * 5)
@example(b"ab")
@example(b"ba")
def test_rotations_are_sorted(data: bytes) -> None:
    check_sort(data[:3000])


def test_rotations_of_every_short_text_are_sorted() -> None:
    """Over three characters, and so with every way for rises, falls and what is equal to follow each other."""
    for size in range(1, 8):
        for number in range(3**size):
            check_sort(bytes(number // 3**place % 3 for place in range(size)))


@pytest.mark.parametrize("name", HARD)
def test_rotations_of_hard_texts_are_sorted(name: str) -> None:
    for size in (2, 3, 255, 256, 1000, 1001):
        check_sort(HARD[name](size))


def test_the_sort_takes_blocks_only() -> None:
    for size in (0, 900_001):
        with pytest.raises(ValueError, match=f"{size} bytes are no block"):
            compressor(9).rotations(bytes(size))


@given(texts, levels)
def test_streams_decode(data: bytes, level: int) -> None:
    assert bz2.decompress(stream_of(data, level)) == data


@given(texts)
def test_streams_are_not_larger(data: bytes) -> None:
    assert len(stream_of(data)) <= 1.01 * len(bz2.compress(data)) + 3


def check_streams(samples: Sequence[bytes], level: int) -> None:
    """Each decodes, and the tools decode them all."""
    streams = [stream_of(data, level) for data in samples]
    for data, stream in zip(samples, streams, strict=True):
        assert stream[:4] == b"BZh%d" % level
        assert bz2.decompress(stream) == data
    for tool in ("bzip2", "lbzip2"):
        assert pipe_through(f"{tool} -dc", b"".join(streams)) == b"".join(samples), tool


def test_every_small_size_decodes() -> None:
    check_streams([make(size) for size in range(301) for make in CONTENTS.values()], 9)


def test_every_run_decodes() -> None:
    runs = [run for size in range(1, 600) for run in (bytes(size), b"a" * size + b"b", b"\xfb" * size + b"\4\4\4\4")]
    check_streams([*runs, *(b"x".join([b"y" * size] * 50) for size in RUNS)], 1)


@pytest.mark.parametrize("level", range(1, 10))
def test_blocks_end_anywhere(level: int) -> None:
    """Literals, and a run that does not fit any more, at each of the last bytes of a block."""
    edge = level * 100_000 - 19
    filler = noise(edge + 40).replace(b"\0", b"\1")
    samples = [filler[: edge - back] + bytes(300) + b"end" for back in range(-3, 9)] if level == 1 else []
    check_streams([*samples, filler[:edge], filler[: edge + 1], filler], level)


@pytest.mark.parametrize("name", HARD)
def test_hard_texts_decode_in_time(name: str) -> None:
    data, usual = HARD[name](MiB), noise(MiB)
    encode_time(data)  # the first touches memory
    assert encode_time(data) < 5 * encode_time(usual), "sorting is not linear here"
    check_streams([data], 9)


def encode_time(data: bytes) -> float:
    """CPU seconds."""
    began = time.thread_time()
    stream_of(data)
    return time.thread_time() - began


@cache
def programs() -> bytes:
    """What a guest's RAM is full of, as far as any machine has it."""
    paths = (path for path in sorted(Path("/usr/lib").rglob("*.so*")) if path.is_file() and not path.is_symlink())
    data = b""
    while len(data) < 4 * MiB and (path := next(paths, None)):
        data += path.read_bytes()[: 2 * MiB]
    assert len(data) >= MiB, "no libraries here?"
    return data[: 4 * MiB]


@pytest.mark.parametrize("level", range(1, 10))
def test_programs_become_as_small_as_by_libbz2(level: int) -> None:
    total = their_total = 0
    for start in range(0, len(programs()), MiB):
        chunk = programs()[start : start + MiB]
        stream, theirs = stream_of(chunk, level), bz2.compress(chunk, level)
        assert bz2.decompress(stream) == chunk
        assert len(stream) <= 1.01 * len(theirs)
        total += len(stream)
        their_total += len(theirs)
    assert total <= 1.002 * their_total


@settings(max_examples=20)
@given(st.lists(st.tuples(texts, levels), min_size=2, max_size=4))
def test_streams_depend_on_nothing_else(samples: list[tuple[bytes, int]]) -> None:
    """Neither on what was compressed before, nor on what is left in memory."""
    for data, level in samples:
        assert stream_of(data, level) == compress(Bzip2Compressor(level), data)


def test_what_does_not_fit_is_refused() -> None:
    for data in (b"", text(2000), noise(300_000)):
        size = len(stream_of(data))
        for room in (0, 1, 20, size // 2, size - 9):
            with pytest.raises(ValueError, match=f"{len(data)} bytes do not fit"):
                compress(compressor(9), data, room)
        assert len(stream_of(data)) == size


def test_a_stream_is_within_its_bound() -> None:
    rng = Random(5)
    quadruples = b"".join(bytes([rng.randrange(256)]) * 4 for _ in range(MiB // 4))
    for data in (noise(MiB), quadruples, noise(100_000), *(random_text(rng) for _ in range(50))):
        for level in (1, 9):
            assert len(stream_of(data, level)) <= CODEC.bound(len(data))


def test_compressing_lets_others_run() -> None:
    assert lets_others_run(lambda: stream_of(mixed(MiB)))
