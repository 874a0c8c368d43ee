"""snappy's framing format as others write and read it: python-snappy, and a reader here that is as slow as it is simple."""

from __future__ import annotations

import io
import random
import struct

import pytest
import snappy

from streamsave.codecs.base import DecodeError, NotFramed, TruncatedError
from streamsave.codecs.registry import find_codec
from streamsave.units import KiB, MiB

from .checks import decode, encode, frame_sizes, payload_of, read_all
from .hostile import peak_growth, refuses
from .samples import mixed, noise, text, zeros

SNAPPY = find_codec("snappy")
IDENTIFIER = b"\xff\x06\0\0sNaPpY"
DATA = mixed(200 * KiB)


def chunk(kind: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body) << 8 | kind) + body


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def stored(data: bytes) -> bytes:
    return chunk(1, masked(data) + data)


def reference(payload: bytes) -> bytes:
    """What ``payload`` decodes to, by the words of ``framing_format.txt`` and ``format_description.txt``."""
    out, position = b"", 0
    assert payload[:10] == IDENTIFIER
    while position < len(payload):
        kind, size = payload[position], int.from_bytes(payload[position + 1 : position + 4], "little")
        body, position = payload[position + 4 : position + 4 + size], position + 4 + size
        assert len(body) == size
        if kind in (0, 1):
            data = block(body[4:]) if kind == 0 else body[4:]
            assert len(data) <= 65536
            assert masked(data) == body[:4]
            out += data
        else:
            assert kind >= 0x80
            assert kind != 0xFF or body == b"sNaPpY"
    return out


def block(data: bytes) -> bytes:
    size = shift = at = 0
    while True:
        size |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            break
    out = bytearray()
    while at < len(data):
        tag, at = data[at], at + 1
        length = (tag >> 2) + 1
        if tag & 3 == 0:
            if length > 60:
                width = length - 60
                length, at = int.from_bytes(data[at : at + width], "little") + 1, at + width
            out += data[at : at + length]
            at += length
            continue
        width = (0, 1, 2, 4)[tag & 3]
        offset, at = int.from_bytes(data[at : at + width], "little"), at + width
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | offset
        assert 0 < offset <= len(out)
        for _ in range(length):
            out.append(out[-offset])
    assert len(out) == size
    return bytes(out)


def test_the_checksum_of_the_reference_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_others_decode_ours() -> None:
    chunks = [DATA, b"", b"x", noise(70_000), zeros(65_536)]
    payload = payload_of(SNAPPY, *chunks)
    assert reference(payload) == b"".join(chunks)
    assert snappy.StreamDecompressor().decompress(payload) == b"".join(chunks)


def test_others_skip_our_carrier() -> None:
    for size in (1, 300_000):
        payload = payload_of(SNAPPY, text(500)) + SNAPPY.carry(noise(size), None)  # type: ignore[arg-type]
        assert reference(payload) == text(500)
        assert snappy.StreamDecompressor().decompress(payload) == text(500)


def test_a_carrier_of_more_than_one_chunk() -> None:
    data = noise(5 * MiB)
    carrier = SNAPPY.carry(data, None)  # type: ignore[arg-type]
    assert SNAPPY.uncarry(carrier) == data
    assert read_all(SNAPPY, payload_of(SNAPPY, b"x") + carrier, step=MiB) == b"x"
    for damaged in (carrier[:-1], carrier[1:], carrier + b"\xfd", carrier[:3]):
        with pytest.raises(DecodeError):
            SNAPPY.uncarry(damaged)


@pytest.mark.parametrize("step", [1, 1000, MiB])
def test_what_others_write(step: int) -> None:
    compressor = snappy.StreamCompressor()
    stream = compressor.add_chunk(DATA) + compressor.add_chunk(noise(100_000)) + compressor.flush()
    data = DATA + noise(100_000)
    assert read_all(SNAPPY, stream, step=step) == data
    assert read_all(SNAPPY, stream * 2, step=step) == data * 2
    assert read_all(SNAPPY, payload_of(SNAPPY, text(100)) + stream, step=step) == text(100) + data
    with pytest.raises(NotFramed):
        list(frame_sizes(SNAPPY, stream, 100))


@pytest.mark.parametrize("step", [1, 1000, MiB])
def test_chunks_of_any_kind(step: int) -> None:
    parts = [
        IDENTIFIER,
        stored(b"one "),
        chunk(0xFE, bytes(200_000)),  # padding
        *(chunk(kind, noise(kind)) for kind in range(0x80, 0xFE)),
        IDENTIFIER,
        IDENTIFIER,
        chunk(0xFD, b"0123456789"),  # the size of ours, but not ours
        stored(b""),
        stored(b"two"),
    ]
    payload = b"".join(parts)
    assert reference(payload) == b"one two"
    assert read_all(SNAPPY, payload, step=step) == b"one two"
    assert read_all(SNAPPY, payload, step=step, room=1) == b"one two"


@pytest.mark.parametrize("kind", [0x02, 0x40, 0x7F])
def test_kinds_that_must_not_be_skipped(kind: int) -> None:
    with pytest.raises(DecodeError, match=f"kind {kind:02x}"):
        read_all(SNAPPY, IDENTIFIER + stored(b"x") + chunk(kind, b"abc"))


@pytest.mark.parametrize("start", [stored(b"x"), chunk(0xFE, b""), b"\xff\x06\0\0sNaPpy" + stored(b"x"), chunk(0xFF, b"")])
def test_a_stream_starts_with_its_identifier(start: bytes) -> None:
    with pytest.raises(DecodeError):
        read_all(SNAPPY, start)


@pytest.mark.parametrize("tail", [IDENTIFIER, b"\x00", b"\xfe\x05\0\0abc", chunk(0, b"")[:4], chunk(1, b"ab")])
def test_a_payload_that_ends_inside_a_stream(tail: bytes) -> None:
    for payload in (IDENTIFIER + stored(b"x"), payload_of(SNAPPY, DATA)):
        with pytest.raises(DecodeError):
            read_all(SNAPPY, payload + tail, step=3)


def test_a_cut_between_two_chunks_of_one_of_our_frames_shows() -> None:
    """To other readers it is a shorter stream."""
    frame = encode(SNAPPY, noise(3 * 65_536))
    cut = frame[: len(frame) - 65_536 - 8]
    assert snappy.StreamDecompressor().decompress(cut) == noise(3 * 65_536)[:-65_536]
    with pytest.raises(TruncatedError):
        read_all(SNAPPY, cut)
    with pytest.raises(DecodeError):
        read_all(SNAPPY, cut + frame)


def test_chunks_that_claim_more_than_64_kib() -> None:
    large = IDENTIFIER + stored(zeros(65_536)) + chunk(1, masked(zeros(65_537)) + zeros(65_537))
    bomb = IDENTIFIER + chunk(0, masked(b"") + b"\xff\xff\xff\xff\x0f" + noise(100))  # 4 GiB from 100 bytes
    vast = IDENTIFIER + chunk(0, zeros(1 << 20))
    for payload in (large, bomb, vast):
        with pytest.raises(DecodeError):
            read_all(SNAPPY, payload)
    assert peak_growth(lambda: refuses(SNAPPY, bomb)) < 4 * MiB
    asked: list[int] = []
    rest = io.BytesIO(vast)

    def read(size: int) -> bytes:
        asked.append(size)
        return rest.read(size)

    with pytest.raises(DecodeError):
        SNAPPY.stream_reader(read).readinto(memoryview(bytearray(10)))
    assert max(asked) < 100, "it is refused by its head"


def test_a_frame_holds_what_it_claims() -> None:
    frame = bytearray(encode(SNAPPY, DATA))
    for claimed in (0, 1, len(DATA) - 1, len(DATA) + 1, 2**32 - 1):
        struct.pack_into("<I", frame, 20, claimed)
        for room in (len(DATA), 2 * len(DATA)):
            with pytest.raises(DecodeError):
                decode(SNAPPY, frame, room)


def test_every_bit_of_a_frames_header_counts() -> None:
    frame = bytearray(encode(SNAPPY, DATA))
    for bit in range(8 * 24):
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            decode(SNAPPY, frame, len(DATA))
        frame[bit // 8] ^= 1 << bit % 8


def test_the_largest_data_chunk_is_read() -> None:
    """Blocks may be larger than what they hold: a compressor is free to be poor."""
    rng = random.Random(5)
    data = rng.randbytes(65_536)
    poor = (
        b"\x80\x80\x04" + b"".join(b"\xf0\x3b" + data[at : at + 60] for at in range(0, 65_520, 60)) + b"\x3c" + data[65_520:]
    )
    assert block(poor) == data
    assert read_all(SNAPPY, IDENTIFIER + chunk(0, masked(data) + poor)) == data
