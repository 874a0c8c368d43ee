"""Images that other programs wrote, whole: any header that libvirt ever wrote, payloads of the stock tools and of others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from streamsave.errors import CorruptImageError
from streamsave.format.header import Header, encode_header
from streamsave.format.metadata import encode_metadata
from streamsave.format.save_format import SaveFormat
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.operations.verify import verify
from streamsave.units import GiB, KiB, MiB

from ..kit.images import METADATA, made_up_stream, restored
from ..kit.tools import pipe_through

STREAM = made_up_stream()
OTHER = "big" if sys.byteorder == "little" else "little"
COMMANDS = {
    "gzip": ("gzip -c", "gzip -9 -c", "pigz -c", "pigz -c -p1"),
    "bzip2": ("bzip2 -c", "bzip2 -1 -c", "lbzip2 -c", "pbzip2 -c"),
    "xz": ("xz -c", "xz -3 -c -T2", "xz -c -T2 --block-size=1MiB", "xz -c --block-size=1MiB"),
    "lzop": ("lzop -c", "lzop -1 -c", "lzop -9 -c", "lzop -c --crc32"),
    "zstd": ("zstd -c", "zstd -19 -c", "zstd -c --long=27", "zstd -c -T2", "pzstd -c"),
}


def image(path: Path, payload: bytes, number: int, **changes: object) -> Path:
    """As libvirt writes it, with ``changes`` in the header."""
    metadata, cookie_offset = encode_metadata(METADATA)
    header = Header(complete=True, data_size=len(metadata), was_running=True, format=number, cookie_offset=cookie_offset)
    path.write_bytes(encode_header(replace(header, **changes)) + metadata + payload)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(("name", "command"), [(name, each) for name, commands in COMMANDS.items() for each in commands])
def test_what_a_tool_wrote(name: str, command: str, tmp_path: Path) -> None:
    path = image(tmp_path / "image", pipe_through(command, STREAM), SaveFormat[name.upper()])
    stream, report = restored(path)
    assert stream == STREAM
    assert report.format == name
    assert report.parallel or name == "gzip" or command == "xz -c" or command.startswith("zstd") or "--crc32" in command


def lzop_blocks(payload: bytes) -> list[tuple[int, int]]:
    """Offset and size of each block of a file of lzop's, whose header has 38 bytes without a name."""
    found, at = [], 38
    while size := int.from_bytes(payload[at : at + 4], "big"):
        found.append((at, 12 + int.from_bytes(payload[at + 4 : at + 8], "big")))
        assert size <= 256 * KiB
        at += found[-1][1]
    return found


@pytest.mark.parametrize("name", ["gzip", "lzop", "zstd"])
def test_pieces_in_another_order_show_though_each_is_whole(name: str, tmp_path: Path) -> None:
    """Each has its own checksum, and nothing covers their order but the structure of the stream."""
    if name == "lzop":
        payload = pipe_through("lzop -c", STREAM)
        (first, size), (second, other_size) = lzop_blocks(payload)[1:3]
        swapped = payload[:first] + payload[second : second + other_size] + payload[first : first + size]
        swapped += payload[second + other_size :]
    else:
        pieces = [pipe_through(f"{name} -c", STREAM[start : start + MiB]) for start in range(0, len(STREAM), MiB)]
        payload, swapped = b"".join(pieces), b"".join([*pieces[:1], pieces[2], pieces[1], *pieces[3:]])
    path = image(tmp_path / "image", payload, SaveFormat[name.upper()])
    assert verify(path).stream_size == len(STREAM)
    image(path, swapped, SaveFormat[name.upper()])
    before = path.read_bytes()
    for attempt in (verify, restored, lambda path: convert(path, path)):
        with pytest.raises(CorruptImageError, match="pieces of it are missing or in the wrong place"):
            attempt(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["raw", *COMMANDS])
def test_a_header_of_the_other_byte_order(name: str, tmp_path: Path) -> None:
    payload = pipe_through(COMMANDS[name][0], STREAM) if name in COMMANDS else STREAM
    path = image(tmp_path / "image", payload, SaveFormat[name.upper()], byte_order=OTHER)
    info = read_info(path)
    assert (info.header.byte_order, info.format, info.metadata) == (OTHER, name, METADATA)
    assert restored(path)[0] == STREAM


@pytest.mark.parametrize("order", [sys.byteorder, OTHER])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_version_1_is_raw_whatever_its_format_says(number: int, order: str, tmp_path: Path) -> None:
    """libvirt decompresses from version 2 on."""
    path = image(tmp_path / "image", STREAM, number, version=1, byte_order=order)
    stream, report = restored(path)
    assert stream == STREAM
    assert report.format == "raw"


def test_a_window_is_allowed_by_the_option(tmp_path: Path) -> None:
    path = image(tmp_path / "image", pipe_through("zstd -c --long=30", STREAM), SaveFormat.ZSTD)
    with pytest.raises(CorruptImageError, match="--max-window"):
        restored(path)
    assert restored(path, max_window=GiB)[0] == STREAM
    with pytest.raises(CorruptImageError, match="--max-window"):
        verify(path)
    assert verify(path, max_window=GiB).stream_size == len(STREAM)
