"""lzop payloads that ``lzop`` writes and we do not, and those that nobody should write."""

from __future__ import annotations

import struct
import subprocess
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from streamsave._native import lzo
from streamsave.codecs.base import DecodeError, NotFramed, TruncatedError
from streamsave.codecs.registry import find_codec
from streamsave.units import KiB, MiB

from ..kit.missing import require_tools
from ..kit.tools import pipe_through
from .checks import decode, encode, frame_sizes, payload_of, read_all, room_for
from .hostile import peak_growth, refuses
from .samples import mixed, noise, text, zeros

LZOP = find_codec("lzop")
DATA = mixed(700 * KiB) + noise(300 * KiB) + text(100 * KiB)
MAGIC = b"\x89LZO\0\r\n\x1a\n"
END = bytes(4)
ADLER_D, ADLER_C, EXTRA, CRC_D, CRC_C, MULTIPART, FILTER, CRC_H = 0x1, 0x2, 0x40, 0x100, 0x200, 0x400, 0x800, 0x1000


def header(
    flags: int = ADLER_D,
    *,
    version: int = 0x1040,
    needed: int = 0x0940,
    method: int = 1,
    name: bytes = b"",
    extra: bytes | None = None,
    wrong: int = 0,
) -> bytes:
    check = zlib.crc32 if flags & CRC_H else zlib.adler32
    flags |= EXTRA if extra is not None else 0
    fields = struct.pack(">HHHBBIIIIB", version, 0x20A0, needed, method, 5, flags, 0o100644, 1, 0, len(name)) + name
    whole = MAGIC + fields + struct.pack(">I", check(fields) ^ wrong)
    if extra is not None:
        field = struct.pack(">I", len(extra)) + extra
        whole += field + struct.pack(">I", check(field) ^ wrong)
    return whole


def block(data: bytes, flags: int = ADLER_D, *, wrong: int = 0) -> bytes:
    """``wrong``: the check of this flag is."""
    room = memoryview(bytearray(lzo.bound(len(data))))
    packed = bytes(room[: lzo.LzoCompressor(fast=False).compress(data, room)])
    packed = packed if len(packed) < len(data) else data
    out = struct.pack(">II", len(data), len(packed))
    for flag, check, of in (
        (ADLER_D, zlib.adler32, data),
        (CRC_D, zlib.crc32, data),
        (ADLER_C, zlib.adler32, packed),
        (CRC_C, zlib.crc32, packed),
    ):
        if flags & flag and (flag in (ADLER_D, CRC_D) or packed is not data):
            out += struct.pack(">I", check(of) ^ (flag == wrong))
    return out + packed


def split(payload: bytes, step: int = 64 * KiB) -> bytes:
    """``payload`` decoded frame by frame."""
    position, out = LZOP.prologue_size(memoryview(payload)[: LZOP.probe_size]), b""
    for size in frame_sizes(LZOP, payload, step):
        out += decode(LZOP, payload[position : position + size], LZOP.chunk_size)
        position += size
    assert position == len(payload) - len(END)
    return out


def lzop(*options: str, data: bytes = DATA, path: Path | None = None) -> bytes:
    require_tools("lzop")
    command = ["lzop", "-c", *options, *([str(path)] if path else [])]
    return subprocess.run(command, input=None if path else data, stdout=subprocess.PIPE, check=True, timeout=60).stdout


# -- what lzop writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(1, 10))
def test_every_level_of_lzop_is_decoded_in_parallel(level: int) -> None:
    payload = lzop(f"-{level}")
    assert read_all(LZOP, payload, room=MiB) == DATA
    assert read_all(LZOP, payload, step=1000, room=10_000) == DATA
    assert split(payload) == DATA


@pytest.mark.parametrize(
    ("options", "is_split"),
    [(("-F",), False), (("--no-checksum",), False), (("--crc32",), False), (("-C",), True), (("--checksum", "-9"), True)],
)
def test_lzops_checksums(options: tuple[str, ...], is_split: bool) -> None:
    payload = lzop(*options)
    assert read_all(LZOP, payload, room=MiB) == DATA
    if is_split:
        assert split(payload) == DATA
    else:
        with pytest.raises(NotFramed):
            split(payload)


@pytest.mark.parametrize("options", [(), ("-N",), ("-P",), ("-9", "--crc32", "-P")])
def test_a_file_with_a_name(options: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / ("memory" * 30)
    path.write_bytes(DATA)
    payload = lzop(*options, path=path)
    assert b"memorymemory" in payload[:200]
    assert read_all(LZOP, payload, room=MiB) == DATA
    if "--crc32" not in options:
        assert split(payload) == DATA


def test_lzops_files_back_to_back() -> None:
    files = [lzop(*options) for options in ((), ("-F", "-9"), ("--crc32",), ("-1",))]
    payload = b"".join([*files, payload_of(LZOP, b"ours", DATA[:1000]), lzop(data=b"")])
    for step, room in ((7, 5000), (MiB, MiB)):
        assert read_all(LZOP, payload, step=step, room=room) == DATA * 4 + b"ours" + DATA[:1000]


def test_damage_in_what_lzop_wrote_is_seen() -> None:
    for options in ((), ("-9",), ("--crc32",)):
        payload = bytearray(lzop(*options, data=text(5000) + noise(500)))
        for bit in range(8 * 9, 8 * len(payload), 61):
            payload[bit // 8] ^= 1 << bit % 8
            try:
                assert read_all(LZOP, bytes(payload)) == text(5000) + noise(500)
            except DecodeError:
                pass
            payload[bit // 8] ^= 1 << bit % 8


# -- what lzop could write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, ADLER_D, CRC_D, ADLER_D | ADLER_C, CRC_D | CRC_C, ADLER_D | ADLER_C | CRC_D | CRC_C])
def test_every_choice_of_checksums(flags: int) -> None:
    parts = [text(1000), noise(1000), zeros(256 * KiB), text(40_000)]
    payload = header(flags) + b"".join(block(part, flags) for part in parts) + END
    for step in (1, MiB):
        assert read_all(LZOP, payload, step=step) == b"".join(parts)
    assert pipe_through(LZOP.tool_decode, payload) == b"".join(parts)
    for wrong in (ADLER_D, ADLER_C, CRC_D, CRC_C):
        if flags & wrong:
            with pytest.raises(DecodeError, match="checksum"):
                read_all(LZOP, header(flags) + block(parts[0], flags, wrong=wrong) + END)


@pytest.mark.parametrize("size", [1, 1000, 256 * KiB, 300 * KiB, 5 * MiB])
def test_blocks_of_any_size(size: int) -> None:
    data = mixed(2 * size + size // 2)
    blocks = [block(data[start : start + size]) for start in range(0, len(data), size)]
    payload = header() + b"".join(blocks) + END
    for room in (64 * KiB, 8 * MiB):
        assert read_all(LZOP, payload, room=room) == data
    if size <= 256 * KiB:
        assert pipe_through(LZOP.tool_decode, payload) == data
        assert split(payload) == data
    else:
        with pytest.raises(NotFramed):
            split(payload)


@pytest.mark.parametrize("extra", [b"", b"x", noise(1_000_000)])
def test_extra_fields_are_skipped(extra: bytes) -> None:
    for flags in (ADLER_D, CRC_D | CRC_H):
        payload = header(flags, extra=extra, name=b"name") + block(DATA, flags) + END
        assert read_all(LZOP, payload, step=100_000) == DATA
        with pytest.raises(NotFramed):
            split(payload)
    damaged = bytearray(header(extra=b"extra") + END)
    damaged[-10] ^= 1
    with pytest.raises(DecodeError, match="extra field"):
        read_all(LZOP, bytes(damaged))


@pytest.mark.parametrize(
    "head",
    [
        header(version=0x0930),
        header(needed=0x1050),
        header(method=0),
        header(method=128),
        header(ADLER_D | FILTER),
        header(ADLER_D | MULTIPART),
        header(ADLER_D | 0x4000),
        header(wrong=1),
        header(CRC_H, wrong=1),
    ],
)
def test_headers_that_are_refused(head: bytes) -> None:
    payload = head + block(DATA) + END
    with pytest.raises(DecodeError, match="lzop"):
        read_all(LZOP, payload)
    with pytest.raises(NotFramed):
        split(payload)


# -- ours -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("make", [text, noise])
def test_a_frame_of_full_blocks_has_an_end(count: int, make: object) -> None:
    """Four of them are a chunk; fewer can only be the last of a stream, and end with a new file."""
    chunk = (text if make is text else noise)(count * 256 * KiB)
    frame = encode(LZOP, chunk)
    assert (MAGIC in frame) == (count < 4)
    assert len(frame) <= LZOP.bound(len(chunk))
    payload = payload_of(LZOP, chunk, chunk, b"x")
    assert split(payload, 1000) == chunk * 2 + b"x"
    assert read_all(LZOP, payload) == chunk * 2 + b"x"
    assert pipe_through(LZOP.tool_decode, payload) == chunk * 2 + b"x"


def test_what_does_not_compress_is_not_copied() -> None:
    chunk = memoryview(noise(MiB))
    parts = LZOP.encoder(3).encode(chunk, room_for(LZOP, chunk))
    assert [part.obj for part in parts if isinstance(part, memoryview) and len(part) == 256 * KiB] == [chunk.obj] * 4


def test_frames_that_are_cut_between_blocks() -> None:
    frame = encode(LZOP, mixed(MiB))
    ends = [0]
    while ends[-1] < len(frame):
        ends.append(ends[-1] + 12 + int.from_bytes(frame[ends[-1] + 4 : ends[-1] + 8], "big"))
    assert len(ends) == 5
    for end in ends[:-1]:
        with pytest.raises(TruncatedError):
            decode(LZOP, frame[:end], MiB)
        refuses(LZOP, frame[:end] + END)
        refuses(LZOP, frame[:end] + END + header())
    for start, end in pairwise(ends):
        refuses(LZOP, frame[start:end])
    refuses(LZOP, frame + frame)
    refuses(LZOP, frame + encode(LZOP, b"x"))


# -- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"x", b"trailing garbage", bytes(1), bytes(4), bytes(100_000), noise(5000)])
def test_other_bytes_behind_the_last_file_are_ignored(tail: bytes) -> None:
    """As ``lzop -dc --ignore-warn`` does: a block device keeps what is not overwritten."""
    for payload in (payload_of(LZOP, DATA[:5000]), lzop(data=DATA[:5000])):
        assert read_all(LZOP, payload + tail, step=9) == DATA[:5000]
        assert pipe_through(LZOP.tool_decode, payload + tail) == DATA[:5000]
        with pytest.raises(NotFramed):
            list(frame_sizes(LZOP, payload + tail + b"1234", 100))


def test_no_damaged_start_loses_a_file_in_silence() -> None:
    first, second = payload_of(LZOP, text(100)), payload_of(LZOP, text(200))
    for bit in range(8 * len(MAGIC)):
        damaged = bytearray(second)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            read_all(LZOP, first + damaged)
    for size in range(1, len(second)):
        with pytest.raises(TruncatedError):
            read_all(LZOP, first + second[:size])


def test_no_block_that_lost_its_size_is_the_end() -> None:
    """One bit turns the size of a full block into the end of the file."""
    payload = bytearray(payload_of(LZOP, mixed(MiB), text(100)))
    assert payload[39] == 4
    payload[39] = 0
    with pytest.raises(DecodeError, match="damaged"):
        read_all(LZOP, bytes(payload))
    with pytest.raises(NotFramed):
        split(bytes(payload))


@pytest.mark.parametrize(
    ("size", "data_size"),
    [(0xFFFFFFFF, 100), (64 * MiB + 1, 64 * MiB), (100, 101), (100, 0), (64 * MiB, 1000), (2**31, 2**31), (1, 2**32 - 1)],
)
def test_sizes_that_cannot_be(size: int, data_size: int) -> None:
    bad = struct.pack(">III", size, data_size, 1) + noise(1000)
    for payload in (header() + bad, header() + block(text(100)) + bad):
        with pytest.raises(DecodeError, match="no lzop block has"):
            read_all(LZOP, payload)
    with pytest.raises(NotFramed):
        LZOP.splitter().frame_size(memoryview(bad), final=False)
    refuses(LZOP, bad)


def test_hostile_sizes_take_no_memory() -> None:
    """Within what a block may claim, nothing is believed before its data are there."""
    claims = header() + struct.pack(">III", 64 * MiB, 64 * MiB, 1) + noise(100)
    field = header(extra=b"")[: -4 - 4] + struct.pack(">I", 2**32 - 1) + noise(100)

    def read() -> None:
        for payload in (claims, field):
            with pytest.raises(TruncatedError):
                read_all(LZOP, payload)

    assert peak_growth(read) < 8 * MiB


def test_reading_a_bomb_takes_no_more_than_was_asked_for() -> None:
    bomb = lzop(data=zeros(200 * MiB))

    def read_some() -> None:
        reader = LZOP.stream_reader(lambda size: bomb)
        view = memoryview(bytearray(MiB))
        for _ in range(20):
            assert reader.readinto(view) == MiB

    assert peak_growth(read_some) < 16 * MiB
