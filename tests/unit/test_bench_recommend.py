"""From measurements to a recommendation, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from streamsave.bench.recommend import (
    Expectation,
    Measurement,
    Situation,
    Wish,
    expect,
    recommend,
    worth_a_look,
)
from streamsave.errors import UsageError
from streamsave.units import GiB, MiB


def measured(name: str, level: int | None, rate: float, ratio: float, **more: Any) -> Measurement:
    values: dict[str, Any] = {"threads": 4, "restore_rate": 2048.0, "sample_size": 32 * MiB}
    return Measurement(format=name, level=level, rate=rate, ratio=ratio, **(values | more))


RAW = measured("raw", None, 8000.0, 1.0)
LZ4 = measured("lz4", 1, 2000.0, 1.8)
ZSTD1 = measured("zstd", 1, 1024.0, 2.5)
ZSTD3 = measured("zstd", 3, 512.0, 2.8)
GZIP = measured("gzip", 6, 300.0, 2.4)
XZ = measured("xz", 6, 8.0, 4.0)
ALL = [XZ, ZSTD3, RAW, GZIP, LZ4, ZSTD1]
ALONE = Situation(stream_size=2 * GiB)


def test_what_a_save_waits_for() -> None:
    assert expect(ZSTD1, ALONE) == Expectation(
        save_s=2.0, restore_s=1.0, image_size=round(2 * GiB / 2.5), limit="compression", threads=4
    )
    disk = expect(ZSTD1, Situation(stream_size=2 * GiB, write_rate=100.0))
    assert disk.limit == "destination"
    assert disk.save_s == pytest.approx(2048 / 250)
    shared = expect(ZSTD3, Situation(stream_size=2 * GiB, source_rate=500.0, write_rate=5000.0))
    assert shared.limit == "compression"
    assert shared.save_s == pytest.approx(2048 / (4 / (4 / 512 + 1 / 500))), "QEMU takes a part of the processors"
    assert expect(RAW, Situation(stream_size=2 * GiB, source_rate=500.0)).limit == "QEMU"


@pytest.mark.parametrize(("write_rate", "threads"), [(0.0, 4), (1e9, 4), (1024 / 2.5 / 2, 3), (40.96, 1), (1.0, 1)])
def test_no_more_threads_than_are_needed(write_rate: float, threads: int) -> None:
    assert expect(ZSTD1, Situation(stream_size=GiB, write_rate=write_rate)).threads == threads


@pytest.mark.parametrize(
    ("wish", "situation", "chosen"),
    [
        ("fastest", ALONE, RAW),
        ("smallest", ALONE, XZ),
        ("balanced", ALONE, RAW),
        ("fastest", Situation(stream_size=GiB, write_rate=300.0), ZSTD1),
        ("fastest", Situation(stream_size=GiB, write_rate=10.0), ZSTD3),
        ("balanced", Situation(stream_size=GiB, write_rate=300.0), ZSTD1),
        ("balanced", Situation(stream_size=GiB, write_rate=1.0), XZ),
    ],
)
def test_wishes(wish: Wish, situation: Situation, chosen: Measurement) -> None:
    found = recommend(ALL, situation, wish)
    assert found.measurement is chosen
    assert found.expectation == expect(chosen, situation)
    assert found.fits


@pytest.mark.parametrize(
    ("within_s", "chosen"), [(1000.0, XZ), (255.0, ZSTD3), (4.0, ZSTD3), (3.9, ZSTD1), (1.5, LZ4), (0.3, RAW)]
)
def test_the_smallest_within_a_time(within_s: float, chosen: Measurement) -> None:
    found = recommend(ALL, ALONE, "smallest", within_s=within_s)
    assert (found.measurement, found.fits) == (chosen, True)
    assert found.expectation.save_s <= within_s


def test_nothing_is_quick_enough() -> None:
    found = recommend(ALL, ALONE, "smallest", within_s=0.01)
    assert (found.measurement, found.fits) == (RAW, False)


def test_what_is_as_fast_may_be_smaller() -> None:
    slower = measured("other", 1, 7800.0, 1.3)
    assert recommend([RAW, slower], ALONE, "fastest").measurement is slower
    assert recommend([RAW, measured("other", 1, 7000.0, 1.3)], ALONE, "fastest").measurement is RAW


def test_nothing_was_measured() -> None:
    with pytest.raises(UsageError, match="nothing was measured: allow more seconds"):
        recommend([], ALONE, "fastest")


def test_worth_a_look_is_what_no_other_beats() -> None:
    assert worth_a_look(ALL) == [RAW, LZ4, ZSTD1, ZSTD3, XZ]
    assert worth_a_look([]) == []
