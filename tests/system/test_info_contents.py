"""What ``info`` tells of a payload, from real images: by the index, by the beginning of the stream, or by all of it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from streamsave.cli.memory_picture import draw
from streamsave.codecs.registry import codecs, find_codec
from streamsave.operations.contents import look_into
from streamsave.operations.image import read_info
from streamsave.units import KiB, MiB

from ..kit.cli import streamsave
from ..kit.images import flip, made_up_stream, save_bytes
from ..property.streams import StreamBuilder

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest.save"


@pytest.mark.parametrize("name", codecs())
def test_by_the_index(name: str, image: Path) -> None:
    stream = made_up_stream()
    report = save_bytes(stream, image, format=name)
    fields = json.loads(streamsave("info", image, "--json").out)
    assert (fields["index"], fields["index_problem"], fields["proof"]) == (True, "", "digests")
    assert (fields["stream_size"], fields["frame_count"]) == (len(stream), report.frame_count)
    assert fields["chunk_size"] == find_codec(name).chunk_size
    assert fields["ratio"] == pytest.approx(report.ratio)
    assert fields["stream_machine"] == "pc-made-up"
    assert fields["ram_blocks"] == [{"name": "pc.ram", "size": 1800 * 4 * KiB}, {"name": "rom", "size": 64 * KiB}]
    assert (fields["page_count"], fields["zero_page_count"], fields["page_size"]) == (900, 901, 4096)
    assert (len(fields["image_id"]), len(fields["root"]), fields["metadata_as_saved"]) == (32, 32, True)
    shown = streamsave("info", image).out
    assert "\npages         1801 of 4.0 KiB: 901 are zero (50 %)\n" in shown
    assert f"digest {fields['root']}" in shown
    assert "▁" not in shown, "the picture is for terminals"


def test_one_frame_is_not_several(image: Path) -> None:
    save_bytes(made_up_stream(20), image)
    assert " in 1 frame of 1.0 MiB, ratio " in streamsave("info", image).out


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.save")), ids=lambda path: path.name)
def test_by_the_beginning_or_by_all_of_it(path: Path) -> None:
    fields = json.loads(streamsave("info", path, "--json").out)
    assert (fields["index"], fields["stream_machine"]) == (False, "pc-q35-7.2")
    assert [block["name"] for block in fields["ram_blocks"]] == ["pc.ram", "pc.bios", "pc.rom"]
    assert fields["page_count"] is fields["stream_size"] is fields["ratio"] is None
    assert "\nRAM           pc.ram 16.0 MiB, pc.bios" in streamsave("info", path).out
    scanned = json.loads(streamsave("info", path, "--json", "--scan").out)
    assert (scanned["page_count"], scanned["zero_page_count"], scanned["stream_size"]) == (114, 4078, 581465)
    assert scanned["proof"] == ("structure" if "raw" in path.name else "checksums")


def test_damage_is_told_and_does_not_end_info(image: Path) -> None:
    save_bytes(made_up_stream(), image, format="gzip")
    info = read_info(image)
    flip(image, info.payload_offset + info.payload_size + 50)
    run = streamsave("info", image)
    assert run.status == 0
    assert "\nindex         damaged: " in run.out
    flip(image, info.payload_offset + 100)
    assert streamsave("info", image).status == 0
    assert streamsave("info", image, "--scan").status == 14


def density_stream(*kinds: bytes) -> bytes:
    """4 MiB of RAM in as many equal parts as ``kinds``; each page of a part begins with its kind."""
    builder = StreamBuilder().ram_start({"pc.ram": 4 * MiB, "rom": 64 * KiB})
    count = 4 * MiB // 4096
    records = []
    for number in range(count):
        kind = kinds[number * len(kinds) // count]
        block, offset = ("pc.ram" if number == 0 else None), number * 4096
        if kind == b"zero":
            records.append(builder.zero_page(block=block, offset=offset))
        else:
            records.append(builder.page(os.urandom(4096) if kind == b"noise" else kind * 4096, block=block, offset=offset))
    builder.ram_part(*records, last=True)
    return bytes(builder.device(3, "cpu", b"x").end(b"{}").data)


def test_the_picture_shows_where_memory_does_not_compress(image: Path) -> None:
    save_bytes(density_stream(b"noise", b"noise", b"x", b"zero"), image, format="zstd")
    index = read_info(image).index
    assert index
    (line,) = draw(index, 32)
    assert len(line) <= 32
    assert line.startswith("pc.ram  0 ")
    assert line.endswith(" 4.0 MiB")
    bars = line[len("pc.ram  0 ") : -len(" 4.0 MiB")]
    assert set(bars[: len(bars) // 2 - 2]) <= set("▇█")
    assert set(bars[len(bars) // 2 + 2 :]) <= set(" ▁")
    assert draw(index, 20) == []


def test_no_picture_of_pages_in_no_order(image: Path) -> None:
    builder = StreamBuilder().ram_start({"pc.ram": 4 * MiB})
    builder.ram_part(builder.zero_page(block="pc.ram", offset=4096), builder.zero_page(offset=0), last=True)
    save_bytes(bytes(builder.device(3, "cpu", b"x").end(b"{}").data), image)
    index = read_info(image).index
    assert index
    assert draw(index, 80) == []


def test_the_picture_is_on_a_terminal(image: Path) -> None:
    save_bytes(density_stream(b"noise", b"zero"), image)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamsave.cli", "info", image], stdout=theirs, env={**os.environ, "COLUMNS": "60"}
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the other side is closed: that is how a terminal ends
    os.close(ours)
    assert process.wait(30) == 0
    assert "pc.ram  0 █".encode() in shown or "pc.ram  0 ▇".encode() in shown


def test_contents_of_what_cannot_be_decoded(image: Path) -> None:
    save_bytes(made_up_stream(), image)
    image.write_bytes(b"LibvirtQemudPart" + image.read_bytes()[16:4000] + bytes(90000))
    contents = look_into(read_info(image))
    assert (contents.stream, contents.frame_count, contents.ratio(100)) == (None, -1, 0.0)
