"""The codec contract (``streamsave.codecs.base``), over every codec that is registered."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from streamsave.codecs.base import Codec
from streamsave.codecs.registry import codecs

from .checks import CHECKS, decode, lets_others_run, read_all, run_tool
from .golden import FRAMES, frame_path, golden_chunk, golden_levels, ours

CODECS = list(codecs().values())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_contract(codec: Codec, check: Callable[[Codec], None]) -> None:
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


@pytest.mark.parametrize("codec", ours(), ids=lambda codec: codec.name)
def test_stock_tool_decodes_golden_frames(codec: Codec) -> None:
    for level in golden_levels(codec):
        frame = frame_path(codec, level).read_bytes()
        assert run_tool(codec, codec.tool_decode[1:], codec.prologue + frame + codec.epilogue) == golden_chunk()


def test_every_golden_frame_has_its_codec() -> None:
    expected = {frame_path(codec, level).name for codec in ours() for level in golden_levels(codec)}
    assert {path.name for path in FRAMES.glob("*.frame")} == expected


def test_the_check_of_the_gil_can_fail() -> None:
    assert not lets_others_run(lambda: sum(range(100_000)), limit_s=0.2)
    assert lets_others_run(lambda: time.sleep(0.01))
