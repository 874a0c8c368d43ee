"""A payload through the engine, from memory to memory."""

from __future__ import annotations

from copy import copy
from pathlib import Path

from streamsave.codecs.base import Codec, NotFramed
from streamsave.endpoints.memory import MemorySink, MemorySource
from streamsave.pipeline.decompress import Decompression
from streamsave.pipeline.stats import Stats

from ..kit.pipelines import run_to_end


class NoSplitter:
    """Takes every payload for another program's."""

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        raise NotFramed


def restore(codec: Codec, payload: bytes, *, threads: int = 2, split: bool = True) -> tuple[bytes, Stats]:
    """What ``payload`` decodes to, and how that went. Not ``split``: none of it is taken for ours."""
    if not split:
        codec = copy(codec)
        codec.splitter = NoSplitter  # type: ignore[method-assign]
    sink = MemorySink()
    pipeline = Decompression(
        MemorySource(payload),
        sink,
        codec,
        threads=threads,
        observe=lambda view: None,
        path=Path("image"),
        payload_offset=4096,
    )
    run_to_end(pipeline)
    return bytes(sink.data), pipeline.stats
