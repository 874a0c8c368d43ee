"""What is fuzzed: each target takes any bytes, and parses, or raises what its docstring says, never anything else.

``python -m tests.fuzz TARGET`` runs one, ``make fuzz`` all of them for a minute each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Final
from zlib import crc32

from streamsave._native import lzo
from streamsave._native.scan import StreamScanner
from streamsave.codecs.base import DecodeError
from streamsave.codecs.lzop import CODEC as LZOP
from streamsave.errors import ImageError
from streamsave.format import metadata as metadata_
from streamsave.format.header import HEADER_SIZE, encode_header, parse_header
from streamsave.format.index import DamagedIndexError, encode_index, parse_index, parse_pointer
from streamsave.format.mapped_ram import plain_stream
from streamsave.format.scanner import StreamScanner as ReferenceScanner
from streamsave.units import KiB

from ..unit import lzo_reference

DATA: Final = Path(__file__).parents[1] / "data"
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {}


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    TARGETS[function.__name__] = function
    return function


@target
def header(data: bytes) -> None:
    """A header, or ImageError; what was parsed is written as it was read, but for a flag that is not 0 or 1."""
    try:
        parsed = parse_header(data)
    except ImageError:
        return
    written = encode_header(parsed)
    assert written[:24] + written[28:] == data[:24] + data[28:HEADER_SIZE]
    try:
        parse_pointer(parsed.pointer)
    except DamagedIndexError:
        pass


@target
def metadata(data: bytes) -> None:
    """Metadata, or ImageError; both texts are in the data, each with the NUL that ends it."""
    offset = int.from_bytes(data[:2], "little")
    try:
        parsed = metadata_.parse_metadata(data[2:], offset)
    except ImageError:
        return
    texts = [text.encode("utf-8", "surrogateescape") for text in (parsed.xml, parsed.cookie) if text is not None]
    assert all(text + b"\0" in data[2:] for text in texts)
    assert len(metadata_.digest_of(parsed)) == 16


@target
def index(data: bytes) -> None:
    """An index, or DamagedIndexError, or ImageError; what was parsed is written and read again.

    Records are taken from the data and get the checksums that they need, or nothing would come past those.
    """
    records, at = b"", 0
    while at + 4 <= len(data):
        kind, size = struct.unpack_from("<HH", data, at)
        body = data[at + 4 : at + 4 + size]
        record = struct.pack("<HHQ", kind & 0x7F, kind >> 15, len(body)) + body
        records += record + struct.pack("<I", crc32(record))
        at += 4 + len(body)
    end = struct.pack("<HHQQ8s", 0x7FFF, 0, 16, len(records) + 32, b"SSINDEX1")
    for candidate in (data, records + end + struct.pack("<I", crc32(end))):
        try:
            parsed = parse_index(candidate)
        except (DamagedIndexError, ImageError):
            continue
        again = parse_index(encode_index(parsed))
        assert (again.root, again.leaves, again.stream_map) == (parsed.root, parsed.leaves, parsed.stream_map)
        assert again.frames.sizes == parsed.frames.sizes


@target
def lzo1x(data: bytes) -> None:
    """LZO1X: the decompressor in C and the reference agree, at any size that is claimed."""
    size = int.from_bytes(data[:2], "little")
    room = memoryview(bytearray(size))
    good = lzo.decompress(data[2:], room)
    try:
        expected = lzo_reference.decompress(data[2:], size)
    except lzo_reference.Damaged:
        assert not good
    else:
        assert good
        assert room == expected


@target
def lzop(data: bytes) -> None:
    """The lzop container: a stream, or DecodeError, never more than is asked for; so does a frame of ours."""
    for payload in (data, LZOP.prologue + data):
        try:
            with BytesIO(payload) as file:
                assert LZOP.stream_reader(file.read).readinto(memoryview(bytearray(64 * KiB))) <= 64 * KiB
        except DecodeError:
            pass
    try:
        assert len(LZOP.decoder().decode(memoryview(data), memoryview(bytearray(64 * KiB)))) <= 64 * KiB
    except DecodeError:
        pass


@target
def scanner(data: bytes) -> None:
    """The scanner of migration streams: C and reference agree on everything, however the data are cut."""
    step = data[0] + 1 if data else 1
    native, reference = StreamScanner(), ReferenceScanner()
    reference.log, logged = [], 0
    for at in range(1, len(data), step):
        logged += len(native.feed_logging(data[at : at + step]))
        reference.feed(data[at : at + step])
        assert native.first_record == reference.first_record
    assert native.map() == reference.map()
    assert logged == len(reference.log)


@target
def mapped_ram(data: bytes) -> None:
    """A mapped-ram file: a plain stream that is not much larger, or ImageError. The data repeat for ever."""
    end = 256 * KiB
    if not data:
        return

    def read_at(size: int, offset: int) -> bytes:
        first = offset % len(data)
        return (data * (size // len(data) + 2))[first : first + size]

    try:
        assert sum(map(len, plain_stream(read_at, 0, end))) < 2 * end
    except ImageError:
        pass


@target
def planted(data: bytes) -> None:
    """A bug that has to be found, so that finding none elsewhere means something."""
    if data[:2] == b"SS" and len(data) > 3 and data[3] == data[2] ^ 1:
        raise ZeroDivisionError


def seeds(name: str) -> list[bytes]:
    """Where the fuzzer begins: what the target is made for."""
    from ..kit.images import made_up_stream
    from ..kit.sparse import SparseGuest
    from ..unit.test_index import index_of

    images = [path.read_bytes() for path in sorted((DATA / "golden").glob("*.save"))]
    if name == "header":
        return [image[:HEADER_SIZE] for image in images]
    if name == "metadata":
        return [image[32:34] + image[HEADER_SIZE : HEADER_SIZE + 2000] for image in images]
    if name == "index":
        whole, records = encode_index(index_of()), b""
        at = 0
        while at < len(whole):
            kind, _, size = struct.unpack_from("<HHQ", whole, at)
            records += struct.pack("<HH", kind & 0x7F, size) + whole[at + 12 : at + 12 + size]
            at += 16 + size
        return [whole, records]
    frames = [path.read_bytes() for path in sorted((DATA / "frames").glob("lzop-*.frame"))]
    if name == "lzop":
        return [*frames, *(image[67148:] for image in images if image[28] == 4)]
    if name == "lzo1x":
        room = memoryview(bytearray(lzo.bound(5000)))
        text = b"a save image must restore in ten years. " * 100 + bytes(1000)
        size = lzo.LzoCompressor(fast=False).compress(text, room)
        return [len(text).to_bytes(2, "little") + bytes(room[:size])]
    if name == "mapped_ram":
        small = SparseGuest({"a": 8 * KiB, "b": 4 * KiB}, {"a": {1: bytes(range(256)) * 16}})
        return [small.file(0)[:size] for size in (100, 200, 300, 4000)]
    return [b"\xff" + made_up_stream(1), b"\x07" + made_up_stream(2)[:5000], images[0][67148:70000]]
