"""Payloads that we would not write but the stock tools accept, or that claim what is not so."""

from __future__ import annotations

import bz2
import gzip
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from streamsave.codecs.base import Codec, DecodeError, NotFramed, TruncatedError
from streamsave.codecs.registry import find_codec
from streamsave.units import KiB, MiB

from ..kit.missing import require_tools
from .checks import decode, encode, frame_sizes, payload_of, read_all
from .hostile import peak_growth, refuses
from .samples import mixed, noise, text, zeros

GZIP, BZIP2, ZSTD = find_codec("gzip"), find_codec("bzip2"), find_codec("zstd")
DATA = mixed(50 * KiB)
GARBAGE = b"trailing garbage"
ANNOUNCEMENT = struct.Struct("<III")


def skippable(content: bytes, kind: int = 3) -> bytes:
    return struct.pack("<II", 0x184D2A50 + kind, len(content)) + content


def decode_frames(codec: Codec, payload: bytes) -> None:
    position = 0
    for size in frame_sizes(codec, payload, 100):
        decode(codec, payload[position : position + size], codec.chunk_size)
        position += size


# -- gzip -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 100, MiB])
def test_gzip_members_of_any_kind(step: int) -> None:
    named = bytearray(gzip.compress(b"named"))
    named[3] = 8 | 16  # a name and a comment
    named[10:10] = b"memory.img\0a comment\0"
    members = [gzip.compress(DATA), gzip.compress(b""), bytes(named), encode(GZIP, text(1000)), gzip.compress(b"x", 0)]
    assert read_all(GZIP, b"".join(members), step=step) == DATA + b"named" + text(1000) + b"x"


@pytest.mark.parametrize("count", [1, 7, 5000, 200_000])
def test_zeros_may_follow_gzip_members(count: int) -> None:
    assert read_all(GZIP, gzip.compress(DATA) + bytes(count)) == DATA
    payload = payload_of(GZIP, DATA) + bytes(count)
    with pytest.raises(NotFramed):
        list(frame_sizes(GZIP, payload, 64))
    assert read_all(GZIP, payload) == DATA
    assert read_all(GZIP, bytes(count)) == b"", "a reader that goes on behind the frames"


@pytest.mark.parametrize(
    "tail", [GARBAGE, b"x", b"\0\0x", bytes(100_000) + b"\x1f\x8b", bytes(9) + gzip.compress(b"more", mtime=0)]
)
def test_nothing_else_may_follow_gzip_members(tail: bytes) -> None:
    with pytest.raises(DecodeError, match="member"):
        read_all(GZIP, gzip.compress(DATA) + tail)


def test_gzip_members_that_are_not_ours_are_not_split() -> None:
    ours = encode(GZIP, DATA)
    flagged, larger = bytearray(ours), bytearray(ours)
    flagged[3] |= 1
    struct.pack_into("<I", larger, 20, GZIP.chunk_size + 1)
    for payload in (gzip.compress(DATA), b"\x1f\x8b\x08", ours[:23], bytes(flagged), bytes(larger)):
        with pytest.raises(NotFramed):
            GZIP.splitter().frame_size(memoryview(payload), final=True)
    for size in range(1, 24):
        assert GZIP.splitter().frame_size(memoryview(ours)[:size], final=False) == 0
    with pytest.raises(NotFramed):
        GZIP.splitter().frame_size(memoryview(gzip.compress(DATA))[:9], final=False)


@pytest.mark.parametrize("size", [0, 41, GZIP.bound(GZIP.chunk_size) + 1, 2**32 - 1])
def test_gzip_frame_sizes_that_cannot_be(size: int) -> None:
    frame = bytearray(encode(GZIP, b""))
    assert len(frame) > 33
    struct.pack_into("<I", frame, 16, min(size, 33) if size < 42 else size)
    with pytest.raises(NotFramed):
        GZIP.splitter().frame_size(memoryview(frame), final=False)


def gzip_frame(data: bytes, *, behind: bytes = b"", chunk_size: int | None = None, trailer: bytes | None = None) -> bytes:
    """A frame of ours with something wrong in it."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = compressor.compress(data) + compressor.flush() + behind
    body += struct.pack("<II", zlib.crc32(data), len(data)) if trailer is None else trailer
    prefix = encode(GZIP, b"")[:16]
    return prefix + struct.pack("<II", 24 + len(body), len(data) if chunk_size is None else chunk_size) + body


def test_a_gzip_frame_ends_where_its_data_end() -> None:
    assert decode(GZIP, gzip_frame(DATA), len(DATA)) == DATA
    trailer = struct.pack("<II", zlib.crc32(DATA), len(DATA))
    for behind in (b"\0", trailer[:4], bytes(100)):
        with pytest.raises(DecodeError):
            decode(GZIP, gzip_frame(DATA, behind=behind), len(DATA))
    with pytest.raises(DecodeError):
        decode(GZIP, gzip_frame(DATA, trailer=trailer + bytes(8)), len(DATA))


@pytest.mark.parametrize("claimed", [0, 1, len(DATA) - 1, len(DATA) + 1, 2**32 - 1])
def test_a_gzip_frame_has_the_size_it_claims(claimed: int) -> None:
    for room in (len(DATA), 2 * len(DATA)):
        with pytest.raises(DecodeError):
            decode(GZIP, gzip_frame(DATA, chunk_size=claimed), room)


def test_every_bit_of_a_gzip_frames_header_counts() -> None:
    frame = bytearray(encode(GZIP, DATA))
    for bit in range(8 * 24):
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            decode(GZIP, frame, len(DATA))
        frame[bit // 8] ^= 1 << bit % 8


def test_an_empty_gzip_frame_does_not_trust_its_trailer() -> None:
    frame = gzip_frame(zeros(300 * MiB), chunk_size=0)
    assert peak_growth(lambda: refuses(GZIP, frame)) < 16 * MiB


# -- bzip2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [GARBAGE, b"x", b"BZhx", b"BZh0", b"bzh9", bytes(3000)])
def test_bzip2_ignores_other_bytes_at_the_end(tail: bytes) -> None:
    for payload in (bz2.compress(DATA), payload_of(BZIP2, DATA[:1000], DATA[1000:])):
        assert read_all(BZIP2, payload + tail) == DATA
        assert read_all(BZIP2, payload + tail, step=1) == DATA
        with pytest.raises(NotFramed):
            list(frame_sizes(BZIP2, payload + tail, 100))


@pytest.mark.parametrize("tail", [b"B", b"BZ", b"BZh", b"BZh9", b"BZh91AY"])
def test_bzip2_begins_no_stream_that_does_not_end(tail: bytes) -> None:
    with pytest.raises(TruncatedError):
        read_all(BZIP2, bz2.compress(DATA) + tail)


@pytest.mark.parametrize("start", [100, 2500, -3000])
def test_an_older_bzip2_payload_behind_the_last_stream_is_ignored(start: int) -> None:
    """A block device keeps what is not overwritten."""
    older = payload_of(BZIP2, *[noise(3000 + size) for size in range(5)])
    assert read_all(BZIP2, payload_of(BZIP2, DATA, text(100)) + older[start:]) == DATA + text(100)


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("step", [1, 65536])
def test_a_damaged_bzip2_start_loses_no_data_in_silence(which: int, step: int) -> None:
    """bzip2 itself takes what follows for garbage and ends well."""
    frames = [bytearray(encode(BZIP2, data)) for data in (DATA, text(1000), noise(2000))]
    frames[which][1] ^= 1
    payload = b"".join(frames)
    with pytest.raises(DecodeError, match="damaged"):
        read_all(BZIP2, payload, step=step)
    with pytest.raises((DecodeError, NotFramed)):
        decode_frames(BZIP2, payload)


def test_bzip2_streams_of_nothing() -> None:
    nothing = bz2.compress(b"")
    payload = nothing + bz2.compress(b"x") + nothing + nothing
    assert read_all(BZIP2, payload) == b"x"
    assert list(frame_sizes(BZIP2, payload, 3)) == [14, len(payload) - 42, 14, 14]


def test_a_bzip2_stream_larger_than_a_chunk_is_not_a_frame() -> None:
    """What ``bzip2 -c`` makes of a guest's empty memory is small, but not a chunk of ours."""
    for data in (zeros(BZIP2.chunk_size + 1), zeros(40 * MiB)):
        payload = bz2.compress(data)
        with pytest.raises(NotFramed):
            BZIP2.splitter().frame_size(memoryview(payload), final=True)
        assert read_all(BZIP2, payload, room=MiB) == data
    exactly = bz2.compress(zeros(BZIP2.chunk_size))
    assert BZIP2.splitter().frame_size(memoryview(exactly), final=True) == len(exactly)


def test_bzip2_data_may_hold_the_start_of_a_stream() -> None:
    """Only behind the end of a stream is it one. The bytes of a frame are made to hold it; they need not decode."""
    frame = bytearray(encode(BZIP2, noise(5000)))
    splitter = BZIP2.splitter()
    frame[1000:1010] = b"BZh91AY&SY"
    frame[2000:2010] = b"BZh9\x17rE8P\x90"
    assert splitter.frame_size(memoryview(frame), final=True) == len(frame)
    assert list(frame_sizes(BZIP2, bytes(frame) * 2, 50)) == [len(frame)] * 2


def test_a_bzip2_frame_that_explodes() -> None:
    frame = bz2.compress(zeros(200 * MiB))
    assert peak_growth(lambda: refuses(BZIP2, frame)) < 16 * MiB


@pytest.mark.parametrize("level", [1, 9])
def test_what_pbzip2_writes_is_split(level: int) -> None:
    """pbzip2 cuts at the block size, which is less than a chunk."""
    data = mixed(MiB)
    pieces = [data[start : start + level * 100_000] for start in range(0, len(data), level * 100_000)]
    frames = [bz2.compress(piece, level) for piece in pieces]
    assert list(frame_sizes(BZIP2, b"".join(frames), 1000)) == [len(frame) for frame in frames]


# -- zstd -------------------------------------------------------------------------------------------------------------


def zstd_variants() -> dict[str, bytes]:
    def compress(*, write_checksum: bool = True, write_content_size: bool = True) -> bytes:
        return zstandard.ZstdCompressor(write_checksum=write_checksum, write_content_size=write_content_size).compress(DATA)

    stream = zstandard.ZstdCompressor(level=1).compressobj()
    return {
        "plain": compress(),
        "no checksum": compress(write_checksum=False),
        "no content size": compress(write_content_size=False),
        "neither": compress(write_content_size=False, write_checksum=False),
        "stream": b"".join(
            stream.compress(DATA[start : start + 777]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            for start in range(0, len(DATA), 777)
        )
        + stream.flush(),
    }


@pytest.mark.parametrize("kind", zstd_variants())
@pytest.mark.parametrize("step", [1, 1000, MiB])
def test_zstd_frames_of_any_kind(kind: str, step: int) -> None:
    frame = zstd_variants()[kind]
    for payload, times in (
        (frame, 1),
        (frame * 3, 3),
        (skippable(b"") + frame + skippable(b"abc", 0) + skippable(bytes(5000), 15) + frame, 2),
        (frame + skippable(frame), 1),
        (payload_of(ZSTD, DATA) + frame, 2),
    ):
        for room in (1000, len(DATA), MiB):
            assert read_all(ZSTD, payload, step=step, room=room) == DATA * times
        with pytest.raises(NotFramed):
            list(frame_sizes(ZSTD, payload, 64))
    for size in (1, 4, 9, 100, len(frame) // 2, len(frame) - 1):
        with pytest.raises(TruncatedError):
            read_all(ZSTD, frame[:size], step=step)
    for size in (1, 4, 7, 8, 9, 307):
        with pytest.raises(TruncatedError):
            read_all(ZSTD, frame + skippable(bytes(300))[:size], step=step)


def test_zstd_skippable_frames_alone_are_an_empty_payload() -> None:
    assert read_all(ZSTD, skippable(b"only this")) == b""


def test_a_zstd_announcement_without_its_frame_is_a_cut() -> None:
    announcement = payload_of(ZSTD, DATA)[:12]
    with pytest.raises(TruncatedError):
        read_all(ZSTD, payload_of(ZSTD, DATA) + announcement)
    assert ZSTD.splitter().frame_size(memoryview(announcement), final=True) == len(payload_of(ZSTD, DATA))


@pytest.mark.parametrize("tail", [b"x", GARBAGE, bytes(4), bytes(100)])
def test_nothing_else_may_follow_zstd_frames(tail: bytes) -> None:
    payload = payload_of(ZSTD, DATA) + tail
    with pytest.raises(DecodeError):
        read_all(ZSTD, payload, step=1)
    with pytest.raises(DecodeError, match="neither a zstd frame nor the end" if len(tail) >= 4 else "zstd"):
        read_all(ZSTD, payload, step=MiB)


def stored_frame(window_log: int, data: bytes) -> bytes:
    """A zstd frame of one stored block that claims a window."""
    block = (len(data) << 3 | 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\0" + bytes([window_log - 10 << 3]) + block + data


def test_zstd_windows_as_large_as_the_tool_accepts() -> None:
    assert read_all(ZSTD, stored_frame(27, b"data")) == b"data"
    with pytest.raises(DecodeError):
        read_all(ZSTD, stored_frame(28, b"data"))


def test_zstd_repeated_bytes_and_reserved_blocks() -> None:
    head = b"\x28\xb5\x2f\xfd\0\0"
    assert read_all(ZSTD, head + (1000 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"r", step=1) == b"r" * 1000
    with pytest.raises(DecodeError):
        read_all(ZSTD, head + (1 << 3 | 3 << 1 | 1).to_bytes(3, "little") + b"r")


def zstd_frame(content: bytes, *, announced: int | None = None) -> bytes:
    return ANNOUNCEMENT.pack(0x184D2A50, 4, len(content) if announced is None else announced) + content


def test_zstd_frames_that_are_not_ours_are_not_split() -> None:
    plain = zstandard.ZstdCompressor(write_content_size=False).compress(DATA)
    large = zstandard.ZstdCompressor().compress(zeros(ZSTD.chunk_size + 1))
    fits = zstandard.ZstdCompressor().compress(zeros(ZSTD.chunk_size))
    too_long = ZSTD.bound(ZSTD.chunk_size) - 12 + 1
    for frame in (
        zstd_frame(plain),
        zstd_frame(large),
        zstd_frame(skippable(DATA)),
        zstd_frame(fits, announced=too_long),
        zstd_frame(b"\x29" + fits[1:]),
        *(zstd_frame(fits, announced=size) for size in range(9)),
        fits,
        skippable(b"1234", 1) + fits,
        skippable(b"12345", 0) + fits,
    ):
        with pytest.raises(NotFramed):
            ZSTD.splitter().frame_size(memoryview(frame), final=False)
    assert ZSTD.splitter().frame_size(memoryview(zstd_frame(fits, announced=too_long - 1)), final=False) == too_long + 11


@pytest.mark.parametrize("width", [0, 1, 2, 3])
def test_zstd_content_sizes_of_every_width(width: int) -> None:
    """RFC 8878, 3.1.1.1.4: 1, 2 (+256), 4, 8 bytes; with and without a window, with and without a dictionary's id."""
    for size in (0, 1, 255, 256, 257, 65535 + 256, ZSTD.chunk_size, ZSTD.chunk_size + 1):
        for single in (0, 1):
            if not single and not width:
                continue  # no size at all
            for dictionary, id_size in enumerate((0, 1, 2, 4)):
                stored = size - (256 if width == 1 else 0)
                if not 0 <= stored < 256 ** (1 << width):
                    continue
                descriptor = width << 6 | single << 5 | dictionary
                head = b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + b"\x58"[: 1 - single] + bytes(id_size)
                frame = zstd_frame(head + stored.to_bytes(1 << width, "little") + b"\x01\0\0" + bytes(20))
                try:
                    assert ZSTD.splitter().frame_size(memoryview(frame), final=False) == len(frame)
                    assert size <= ZSTD.chunk_size
                except NotFramed:
                    assert size > ZSTD.chunk_size


def test_a_zstd_announcement_covers_one_frame() -> None:
    empty, one = zstandard.ZstdCompressor().compress(b""), zstandard.ZstdCompressor().compress(b"x")
    for content in (one + b"\0", one + one, one + empty, empty + one, empty + b"\0", one + skippable(b"")):
        refuses(ZSTD, zstd_frame(content))


def test_a_zstd_frame_that_claims_to_be_empty() -> None:
    """The binding returns nothing for a content size of 0, whatever follows: one flipped bit makes that of 1 MiB."""
    frame = bytearray(encode(ZSTD, zeros(MiB)))
    size_at = frame.index(MiB.to_bytes(4, "little"))
    frame[size_at + 2] = 0
    with pytest.raises(DecodeError):
        decode(ZSTD, frame, MiB)
    for content in (b"\x28\xb5\x2f\xfd\x20\0\x0b\0\0x", b"\x28\xb5\x2f\xfd\x20\0"):
        with pytest.raises(DecodeError):
            decode(ZSTD, zstd_frame(content), MiB)


def test_a_zstd_frame_that_claims_the_world() -> None:
    head = b"\x28\xb5\x2f\xfd\xe0" + (2**63).to_bytes(8, "little")
    frame = zstd_frame(head + b"\x01\0\0")
    assert peak_growth(lambda: refuses(ZSTD, frame)) < 4 * MiB
    with pytest.raises(NotFramed):
        ZSTD.splitter().frame_size(memoryview(frame), final=True)


# -- all --------------------------------------------------------------------------------------------------------------


def zstd_stream(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()  # without a content size the window stays small
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(("codec", "compress"), [(GZIP, gzip.compress), (BZIP2, bz2.compress), (ZSTD, zstd_stream)])
def test_reading_a_bomb_takes_no_more_than_was_asked_for(codec: Codec, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(zeros(200 * MiB))

    def read_some() -> None:
        reader = codec.stream_reader(lambda size: bomb)  # all of it at once, and again
        view = memoryview(bytearray(MiB))
        for _ in range(20):
            assert reader.readinto(view) == MiB

    assert peak_growth(read_some) < 16 * MiB


@pytest.mark.parametrize(("tool", "codec"), [("pzstd", ZSTD), ("pigz", GZIP), ("lbzip2", BZIP2)])
def test_other_tools_decode_ours(tool: str, codec: Codec) -> None:
    require_tools(tool)
    chunks = [mixed(MiB), noise(MiB), b"x"]
    done = subprocess.run([tool, "-dc"], input=payload_of(codec, *chunks), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"".join(chunks)), done.stderr


@pytest.mark.parametrize(("command", "codec"), [("pzstd -c -p 2", ZSTD), ("pigz -c", GZIP), ("lbzip2 -c", BZIP2)])
def test_we_decode_what_other_tools_write(command: str, codec: Codec, tmp_path: Path) -> None:
    require_tools(command.split()[0])
    data = mixed(3 * MiB) + noise(6 * MiB)
    (tmp_path / "data").write_bytes(data)
    payload = subprocess.run(
        [*command.split(), str(tmp_path / "data")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=60
    ).stdout
    assert read_all(codec, payload, room=MiB) == data
    with pytest.raises(NotFramed):
        list(frame_sizes(codec, payload, codec.probe_size))
