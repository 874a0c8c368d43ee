"""Save images without a QEMU: a stream made up here, saved and restored through descriptors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from struct import pack
from typing import Any

from streamsave.codecs.registry import find_codec
from streamsave.format.header import POINTER_SIZE, Header, encode_header, unused_field
from streamsave.format.metadata import Metadata, encode_metadata
from streamsave.operations.inflow import save_stream
from streamsave.operations.outflow import restore_stream
from streamsave.operations.reports import RestoreReport, SaveReport
from streamsave.options import CompressOptions
from streamsave.units import KiB, MiB

from ..property.streams import StreamBuilder

METADATA = Metadata("<domain><name>made up</name></domain>", "<cookie/>")


@cache
def made_up_stream(page_count: int = 900) -> bytes:
    """A guest's stream of 4 KiB per page: noise, text and repeated pages in turn, and zero pages between them."""
    random, builder = Random(page_count), StreamBuilder()
    builder.configuration("pc-made-up").ram_start({"pc.ram": 2 * page_count * 4 * KiB, "rom": 64 * KiB})
    records = []
    for number in range(page_count):
        kinds = (random.randbytes(4096), b"a page of text, number %08d. " % number * 124, b"same" * 1024)
        contents = (kinds[number % 3] + bytes(4096))[:4096]
        block = "pc.ram" if number == 0 else None
        records.append(builder.page(contents, block=block, offset=number * 8192))
        records.append(builder.zero_page(offset=number * 8192 + 4096))
    records.append(builder.zero_page(block="rom"))
    builder.ram_part(*records, last=True)
    return bytes(builder.device(3, "cpu", random.randbytes(9000)).end(b'{"page_size": 4096}').data)


def long_stream(ram_size: int, piece_size: int = 16 * MiB) -> Iterator[bytes]:
    """A guest's stream in pieces, a page record for each page of ``ram_size`` bytes; what is in them repeats."""
    builder = StreamBuilder().configuration("pc-made-up").ram_start({"pc.ram": ram_size})
    pages = [Random(number).randbytes(64) * 64 for number in range(61)]
    for start in range(0, ram_size, piece_size):
        first = builder.page(pages[0], block="pc.ram", offset=start)
        others = (
            pack(">Q", offset | 0x28) + pages[offset // 4096 % 61]
            for offset in range(start + 4096, start + piece_size, 4096)
        )
        builder.ram_part(first, *others, last=start + piece_size >= ram_size)
        yield bytes(builder.data)
        builder.data.clear()
    yield bytes(builder.device(3, "cpu", b"registers").end(b"{}").data)


def head_of(codec: str, metadata: Metadata = METADATA, pointer: bytes = bytes(POINTER_SIZE)) -> bytes:
    """Header and metadata of a complete image: as libvirt writes them, or where it has no such format as we do."""
    data, cookie_offset = encode_metadata(metadata)
    number = find_codec(codec).number
    own = number is None
    header = Header(
        complete=True,
        data_size=len(data),
        was_running=True,
        format=number or 0,
        cookie_offset=cookie_offset,
        own=own,
        unused=unused_field(own_name=codec if own else "", pointer=pointer),
    )
    return encode_header(header) + data


def save_pieces(pieces: Iterable[bytes], path: Path, **options: Any) -> SaveReport:
    """The stream that ``pieces`` are of as an image at ``path``, without all of it in memory or on disk."""
    reader, writer = os.pipe()

    def feed() -> None:
        with open(writer, "wb") as pipe:
            pipe.writelines(pieces)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        return save_stream(reader, path, METADATA, CompressOptions(**options), was_running=True)
    finally:
        os.close(reader)
        feeder.join()


def save_bytes(stream: bytes, path: Path, *, was_running: bool = True, **options: Any) -> SaveReport:
    """``stream`` as an image at ``path``; ``options`` are those of ``CompressOptions``."""
    fd = os.memfd_create("stream")
    try:
        os.write(fd, stream)
        os.lseek(fd, 0, os.SEEK_SET)
        return save_stream(fd, path, METADATA, CompressOptions(**options), was_running=was_running)
    finally:
        os.close(fd)


def restored(path: Path, **options: Any) -> tuple[bytes, RestoreReport]:
    """The stream of the image at ``path``, and what restoring it reported."""
    fd = os.memfd_create("stream")
    try:
        report = restore_stream(path, fd, **options)
        return os.pread(fd, 1 << 30, 0), report
    finally:
        os.close(fd)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Damage one bit of the file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
