"""The codec contract (``streamsave.codecs.base``), over every codec that is registered."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs
from streamsave.format.frames import FrameTable

from ..kit.tools import pipe_through
from .checks import Check, checks_for, decode, has_tool, lets_others_run, read_all
from .golden import FRAMES, frame_path, golden_chunk, golden_levels, ours

PROMISES = [
    pytest.param(codec, check, id=f"{codec.name}-{check.__name__}")
    for codec in codecs().values()
    for check in checks_for(codec)
]


@pytest.mark.parametrize(("codec", "check"), PROMISES)
def test_contract(codec: Codec, check: Check) -> None:
    check(codec)


@pytest.mark.parametrize("codec", ours(), ids=lambda codec: codec.name)
def test_golden_frames_decode(codec: Codec) -> None:
    for level in golden_levels(codec):
        path = frame_path(codec, level)
        assert path.exists(), f"{path} is missing: python -m tests.contract.golden writes it"
        frame = path.read_bytes()
        assert decode(codec, frame, len(golden_chunk())) == golden_chunk(), path.name
        assert read_all(codec, codec.prologue + frame * 2 + codec.epilogue) == golden_chunk() * 2, path.name
        assert codec.splitter().frame_size(memoryview(frame), final=True) == len(frame), path.name


@pytest.mark.parametrize("codec", [each for each in ours() if has_tool(each)], ids=lambda codec: codec.name)
def test_stock_tool_decodes_golden_frames(codec: Codec) -> None:
    for level in golden_levels(codec):
        frame = frame_path(codec, level).read_bytes()
        assert pipe_through(codec.tool_decode, codec.prologue + frame + codec.epilogue) == golden_chunk()


def test_every_golden_frame_has_its_codec() -> None:
    expected = {frame_path(codec, level).name for codec in ours() for level in golden_levels(codec)}
    assert {path.name for path in FRAMES.glob("*.frame")} == expected


def test_the_check_of_the_gil_can_fail() -> None:
    assert not lets_others_run(lambda: sum(range(100_000)), limit_s=0.2)
    assert lets_others_run(lambda: time.sleep(0.01))


CARRIED = {
    "raw": "4142434445464748",
    "gzip": "1f8b08040000000000ff0c00535808004142434445464748030000000000000000 00",
    "bzip2": "4142434445464748",
    "xz": "fd377a585a000000ff12d941"
    "0603040408000000040400000000040441424344 21010000d2ba80b700000000"
    "0603040445464748040400000000040400000000 21010000548b141600000000"
    "00021d001d00000047508 6efa8000afc020000000000595a",
    "lzop": "894c5a4f000d0a1a0a104020a009400105 0300004d00008180000000000000000000 2d6702b1"
    "00000008 4142434445464748 09cc022d 00000000",
    "zstd": "5a2a4d18080000004142434445464748"
    "5e2a4d18210000000c000000000000002600000005000000100000000000000003000000 00b1ea928f",
    "lz4": "5a2a4d18080000004142434445464748",
    "snappy": "fd0a000053584142434445464748",
}


@pytest.mark.parametrize("codec", ours(), ids=lambda codec: codec.name)
def test_carriers_are_what_the_documentation_says(codec: Codec) -> None:
    """For a frame of 50 bytes that holds 5: others implement this from docs/image-format.md, so no byte may change."""
    frames = FrameTable(codec.chunk_size, stream_size=5)
    frames.sizes.append(50)
    assert codec.carry(b"ABCDEFGH", frames).hex() == CARRIED[codec.name].replace(" ", "")
    rows = (Path(__file__).parents[2] / "docs" / "image-format.md").read_text()
    assert rows.count(f"\n| {codec.name} | ") == 2, "a row among the payloads and one among the carriers"
