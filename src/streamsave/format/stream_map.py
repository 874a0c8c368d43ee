"""A stream's map as bytes, for the index: what a scanner found, so that nobody has to walk the stream to know it.

::

    u64 size | i64 RAM offset, RAM end, device offset, description offset (-1: none) | u64 pages, zero pages |
    u32 page size | u32 flags (1: the pages come in order) | u16 number of RAM blocks |
    machine | per block: name, u64 size                                               (a name: u8 length, UTF-8)
"""

from __future__ import annotations

import struct
from typing import Final

from .migration import RamBlock, StreamMap

_HEAD: Final = struct.Struct("<QqqqqQQIIH")
_SIZE: Final = struct.Struct("<Q")
_IN_ORDER: Final = 1


def encode_stream_map(stream: StreamMap) -> bytes:
    """The bytes of the map of a whole stream."""
    head = _HEAD.pack(
        stream.size,
        stream.ram_offset,
        stream.ram_end,
        stream.device_offset,
        stream.description_offset,
        stream.page_count,
        stream.zero_page_count,
        stream.page_size,
        _IN_ORDER if stream.pages_in_order else 0,
        len(stream.ram_blocks),
    )
    blocks = b"".join(_name(block.name) + _SIZE.pack(block.size) for block in stream.ram_blocks)
    return head + _name(stream.machine) + blocks


def decode_stream_map(data: bytes) -> StreamMap:
    """The map in ``data``.

    Raises:
        ValueError: there is none, or not all of it.

    """
    if len(data) < _HEAD.size:
        raise ValueError(f"a stream map of {len(data)} bytes")
    size, ram, ram_end, device, description, pages, zero_pages, page_size, flags, block_count = _HEAD.unpack_from(data)
    machine, position = _take_name(data, _HEAD.size)
    blocks = []
    for _ in range(block_count):
        name, position = _take_name(data, position)
        if position + _SIZE.size > len(data):
            raise ValueError("a stream map that breaks off")
        blocks.append(RamBlock(name, _SIZE.unpack_from(data, position)[0]))
        position += _SIZE.size
    return StreamMap(
        size=size,
        machine=machine,
        page_size=page_size,
        ram_blocks=tuple(blocks),
        ram_offset=ram,
        ram_end=ram_end,
        device_offset=device,
        page_count=pages,
        zero_page_count=zero_pages,
        pages_in_order=bool(flags & _IN_ORDER),
        description_offset=description,
        well_formed_end=True,
        problem="",
    )


def _name(text: str) -> bytes:
    data = text.encode()[:255]
    return bytes([len(data)]) + data


def _take_name(data: bytes, position: int) -> tuple[str, int]:
    end = position + 1 + (data[position] if position < len(data) else 0)
    if end > len(data):
        raise ValueError("a stream map that breaks off")
    return data[position + 1 : end].decode(errors="replace"), end
