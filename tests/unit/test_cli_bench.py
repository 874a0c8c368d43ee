"""``streamsave bench``: what is told of made-up measurements, and short real ones of images."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter

import pytest

from streamsave.bench import measure as bench_measure
from streamsave.bench.bench import BenchReport, bench
from streamsave.bench.measure import measure, plan
from streamsave.bench.recommend import Measurement, Situation, recommend
from streamsave.bench.sample import PIECE_SIZE, Sample, filled, sample_host, sample_image, spread
from streamsave.cancel import Cancellation
from streamsave.cli import bench_picture
from streamsave.cli.bench import as_fields, describe
from streamsave.cli.main import main
from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs
from streamsave.errors import Aborted, DestinationError, UsageError
from streamsave.format.digest import leaves_of
from streamsave.operations.image_stream import open_stream
from streamsave.units import GiB, MiB
from tests.contract.samples import mixed
from tests.kit.images import made_up_stream, save_bytes

MEASURED = tuple(
    Measurement(format=name, level=level, threads=2, rate=rate, restore_rate=900.0, ratio=ratio, sample_size=32 * MiB)
    for name, level, rate, ratio in (
        ("raw", None, 3000.0, 1.0),
        ("zstd", 1, 640.0, 2.5),
        ("zstd", 3, 400.0, 2.8),
        ("gzip", 6, 100.0, 2.4),
        ("xz", 6, 3.5, 4.0),
    )
)
SITUATION = Situation(stream_size=4 * GiB, source_rate=2000.0, write_rate=200.0)
REPORT = BenchReport(
    origin="made up\x1b[2J",
    sample_size=32 * MiB,
    threads=2,
    wish="smallest",
    within_s=12.0,
    situation=SITUATION,
    size_known=True,
    measured=MEASURED,
    recommendation=recommend(MEASURED, SITUATION, "smallest", within_s=12.0),
    total_s=9.0,
)


def test_what_people_are_told() -> None:
    text = describe(REPORT)
    lines = text.splitlines()
    assert "QEMU sends 2000 MiB/s" in lines
    assert "the folder takes 200 MiB/s" in lines
    marked = [line.split()[1:3] for line in lines if line.startswith("* ")]
    assert marked == [["zstd", "3"]]
    assert not any("gzip" in line for line in lines), "zstd beats it in both"
    assert "smallest: --format zstd --level 3 --threads 2" in lines
    seconds = REPORT.recommendation.expectation.save_s
    assert f"the save is expected to take {seconds:.1f} s, the image 1.4 GiB, decompressing it 4.6 s" in text


def test_what_programs_are_told() -> None:
    fields = json.loads(json.dumps(as_fields(REPORT)))
    recommended = fields["recommended"]
    assert (recommended["format"], recommended["level"], recommended["fits"]) == ("zstd", 3, True)
    assert recommended["save_s"] < 12
    assert [(each["format"], each["level"]) for each in fields["measured"]] == [
        (each.format, each.level) for each in MEASURED
    ]
    assert fields["stream_size"] == 4 * GiB


def test_the_picture() -> None:
    lines = bench_picture.draw(MEASURED, MEASURED[2], 70)
    assert all(len(line) <= 70 for line in lines)
    field = [line[10:] for line in lines[1 : 1 + bench_picture.HEIGHT]]
    assert field[0].rstrip().endswith("a"), "raw is the fastest and the largest: right above"
    assert field[-1][0] == "d", "xz the slowest and the smallest: left below"
    assert sum(line.count("@") for line in field) == 1
    assert "a raw  b zstd  c gzip  d xz" in lines[-1]
    assert bench_picture.draw(MEASURED, MEASURED[2], 30) == []
    assert bench_picture.draw(MEASURED[:1], MEASURED[0], 80) == []
    same = (MEASURED[0], MEASURED[0])
    assert bench_picture.draw(same, same[0], 80), "nothing to spread over"


@pytest.mark.parametrize("codec", codecs().values(), ids=lambda codec: codec.name)
def test_every_level_is_planned_once_the_default_first(codec: Codec) -> None:
    planned = list(plan(codec))
    assert len(planned) == max(1, len(codec.levels))
    assert set(planned) == (set(codec.levels) if codec.levels else {None})
    assert planned[0] == (codec.default_level if codec.levels else None)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_spread_is_every_place_once(count: int) -> None:
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    if count == 8:
        assert order == [0, 4, 2, 6, 1, 5, 3, 7]


def test_filled() -> None:
    assert len(filled(bytearray(b"abc"))) == PIECE_SIZE
    assert filled(bytearray(PIECE_SIZE + 5)) == bytes(PIECE_SIZE)


def test_a_sample_of_an_image_is_of_all_of_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    save_bytes(made_up_stream(12_000), image)
    with open_stream(image) as stream:
        whole = stream.readall()
    sample = sample_image(image, 2 * PIECE_SIZE, Cancellation())
    assert sample.stream_size == len(whole)
    half = len(whole) // 2
    assert bytes(sample.data) == whole[:PIECE_SIZE] + whole[half : half + PIECE_SIZE]


def test_measuring_is_bounded_and_can_be_cancelled() -> None:
    sample, cancel, told = Sample(data=bytearray(mixed(2 * PIECE_SIZE)), origin="test"), Cancellation(), list[str]()
    began_s = perf_counter()
    found = measure(sample, 2, began_s + 3, cancel, told.append)
    assert perf_counter() - began_s < 40, "three seconds, and what was begun, on a busy machine"
    assert {"raw", "zstd", "lz4"} <= {each.format for each in found}
    assert all(each.rate > 0 and each.restore_rate > 0 and each.ratio > 0.5 for each in found)
    assert len(told) == sum(max(1, len(codec.levels)) for codec in codecs().values()), "each was considered"
    cancel.cancel()
    with pytest.raises(Aborted):
        measure(sample, 2, perf_counter() + 3, cancel, told.append)


def test_a_ratio_does_not_depend_on_the_part_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first piece is all zeros, and a slow level is measured with that one alone."""
    sample = Sample(data=bytearray(PIECE_SIZE) + bytearray(mixed(PIECE_SIZE)), origin="test")
    codec = codecs()["zstd"]
    monkeypatch.setattr(bench_measure._Bench, "_trial", lambda *_: 0.01)  # 0.16 s for a piece: 0.3 s are one, or two

    def ratio(left_s: float) -> Measurement:
        found = bench_measure._Bench(sample, 1, Cancellation()).level(codec, 2, left_s)
        assert found is not None
        return found

    part = ratio(0.17 / bench_measure.LARGEST_SHARE)
    monkeypatch.setattr(bench_measure, "SHORT_S", 10.0)
    monkeypatch.setattr(bench_measure._Bench, "_best", lambda _self, run: (run(), 1.0)[1])
    whole = ratio(1000.0)
    assert (part.sample_size, whole.sample_size) == (PIECE_SIZE, 2 * PIECE_SIZE)
    assert part.ratio == pytest.approx(whole.ratio, rel=0.2)


def test_of_the_host() -> None:
    sample = sample_host(8 * MiB, Cancellation())
    assert sample.piece_count == 2
    assert len({leaves_of(memoryview(sample.data)[at : at + MiB]) for at in range(0, 8 * MiB, MiB)}) > 4
    assert sample.stream_size == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["guest.save", "--qmp", "socket"], "give an image or a guest, not both"),
        (["--within", "5", "--seconds", "0.1"], "nobody knows how much there is to save"),
        (["--within", "0"], "the time to stay within must be greater than 0"),
        (["--seconds", "0"], "timeout_s must be"),
        (["--threads", "0"], "threads must be"),
    ],
)
def test_what_cannot_be_asked_for(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_image_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_measure, "WRITE_SIZE", 32 * MiB)
    image = tmp_path / "image"
    report = save_bytes(made_up_stream(3000), image)
    arguments = ["bench", str(image), "--within", "1e6", "--seconds", "1.5", "--folder", str(tmp_path), "--json"]
    assert main(arguments) == 0
    event = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["event"] == "bench"
    assert (event["stream_size"], event["wish"]) == (report.stream_size, "smallest")
    assert event["write_rate"] > 0
    assert event["recommended"]["image_size"] == min(each["image_size"] for each in event["measured"])
    assert [path.name for path in tmp_path.iterdir()] == ["image"]
    assert main(["bench", str(image), "--within", "1e-6", "--seconds", "1"]) == 0
    told = capsys.readouterr()
    assert "nothing that was measured stays within 1e-06 s" in told.err
    assert "measured with " in told.out


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="cannot write a file there to see how fast it is"):
        bench(folder=tmp_path / "nowhere", seconds=0.1)
    with pytest.raises(UsageError, match="give an image or a guest"):
        bench("image", monitor="socket")
