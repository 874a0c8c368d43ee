"""The undamaged images of a campaign: ours in every format, those of stock virsh, and what other tools write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from streamsave._native.scan import StreamScanner
from streamsave.codecs.registry import codecs
from streamsave.format.header import HEADER_SIZE
from streamsave.operations.image import read_info

from ..kit.images import head_of, made_up_stream, restored, save_bytes
from ..kit.tools import pipe_through

GOLDEN: Final = Path(__file__).parents[1] / "data" / "golden"
PIECE_COUNT: Final = 5

IN_PIECES: Final = ("lzop -c", "pzstd -1 -c", "tiny.lzop.save")
"""What has a checksum for each piece and none for their order."""

Region = tuple[int, int]
"""From which to which byte of the file."""


@dataclass(frozen=True)
class Sample:
    """An undamaged image: its bytes, the stream in it, and where its regions begin and end."""

    name: str
    data: bytes
    stream: bytes
    regions: dict[str, Region]
    """``header``, ``metadata``, ``frames``, ``end``, and ``index`` where there is one."""
    frames: tuple[tuple[int, int], ...]
    """Offset and size in the file of what decodes on its own; none where the tool's format shows none without decoding."""
    checked: bool
    """Whether all of the stream is under a checksum: not in raw images that another program wrote."""
    firm_size: int
    """How much of the stream, from its start, is held in order: all, but where another tool wrote pieces with a checksum
    each and none of them all. There the structure of the stream holds the guest's RAM; the devices' state has none."""


@cache
def samples() -> tuple[Sample, ...]:
    """All of them."""
    stream = made_up_stream(700)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "guest.save"
        found = []
        for name in codecs():
            save_bytes(stream, path, format=name)
            found.append(_sample(name, path, stream))
        for label, name, payload, frames in _foreign(stream):
            path.write_bytes(head_of(name) + payload)
            found.append(_sample(label, path, stream, frames))
    golden = sorted(GOLDEN.glob("*.save"))
    found += [_sample(path.name, path, restored(path)[0], checked=".raw." not in path.name) for path in golden]
    return tuple(found)


def _sample(name: str, path: Path, stream: bytes, frames: list[tuple[int, int]] | None = None, **more: bool) -> Sample:
    """``frames``: in the payload; those of the index where there is one."""
    info = read_info(path)
    start, end = info.payload_offset, info.payload_offset + info.payload_size
    regions = {
        "header": (0, HEADER_SIZE),
        "metadata": (HEADER_SIZE, start),
        "frames": (start, end),
        "end": (max(start, info.file_size - 200), info.file_size),
    }
    if info.index:
        regions["index"] = (end, info.file_size)
        table = info.index.frames
        frames = [(table.frame_offset(number), table.sizes[number]) for number in range(len(table))]
    places = tuple((start + offset, size) for offset, size in frames or ())
    scanner = StreamScanner()
    scanner.feed(stream)
    in_pieces = not info.index and (name in IN_PIECES or "concatenated" in name)
    firm_size = scanner.map().ram_end if in_pieces else len(stream)
    return Sample(name, path.read_bytes(), stream, regions, places, more.get("checked", True), firm_size)


# -- other tools ------------------------------------------------------------------------------------------------------


def _foreign(stream: bytes) -> Iterator[tuple[str, str, bytes, list[tuple[int, int]]]]:
    """What the sample is called, its format, the payload, and the frames in that as far as they are known."""
    for command, name, find in WHOLE:
        payload = pipe_through(command, stream)
        yield command, name, payload, find(payload)
    size = len(stream) // PIECE_COUNT + 1
    for name in ("gzip", "bzip2", "xz", "zstd"):
        pieces = [pipe_through(f"{name} -c", stream[start : start + size]) for start in range(0, len(stream), size)]
        frames, at = [], 0
        for piece in pieces:
            frames.append((at, len(piece)))
            at += len(piece)
        yield f"{name} -c, concatenated", name, b"".join(pieces), frames


def _none(_payload: bytes) -> list[tuple[int, int]]:
    return []


def _of_pzstd(payload: bytes) -> list[tuple[int, int]]:
    """Each frame with the skippable one that announces it."""
    frames, at = [], 0
    while at < len(payload):
        frames.append((at, 12 + int.from_bytes(payload[at + 8 : at + 12], "little")))
        at += frames[-1][1]
    return frames


def _of_lzop(payload: bytes) -> list[tuple[int, int]]:
    """The blocks behind a header of 38 bytes: two sizes, an adler32, and the data."""
    frames, at = [], 38
    while int.from_bytes(payload[at : at + 4], "big"):
        frames.append((at, 12 + int.from_bytes(payload[at + 4 : at + 8], "big")))
        at += frames[-1][1]
    return frames


WHOLE: Final[tuple[tuple[str, str, Callable[[bytes], list[tuple[int, int]]]], ...]] = (
    ("gzip -c", "gzip", _none),
    ("bzip2 -c", "bzip2", _none),
    ("xz -1 -c", "xz", _none),
    ("xz -1 -c -T2 --block-size=512KiB", "xz", _none),
    ("lzop -c", "lzop", _of_lzop),
    ("zstd -c", "zstd", _none),
    ("pzstd -1 -c", "zstd", _of_pzstd),
    ("lz4 -c", "lz4", _none),
)
