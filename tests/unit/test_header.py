from __future__ import annotations

import struct
import sys
from dataclasses import replace

import pytest

from streamsave.errors import CorruptImageError, ImageError, NotAnImageError, TruncatedImageError, UnsupportedImageError
from streamsave.format.header import HEADER_SIZE, MAX_DATA_SIZE, Header, encode_header, parse_header, unused_field
from streamsave.format.save_format import SaveFormat, oldest_libvirt

from . import golden

ALIEN = "big" if sys.byteorder == "little" else "little"


def packed(
    magic: bytes = b"LibvirtQemudSave",
    version: int = 2,
    data_size: int = 100,
    was_running: int = 1,
    number: int = 1,
    cookie_offset: int = 0,
    *,
    order: str = sys.byteorder,
) -> bytes:
    """Libvirt's struct, by hand."""
    return struct.pack(
        f"{'<' if order == 'little' else '>'}16s5I56x", magic, version, data_size, was_running, number, cookie_offset
    )


@pytest.mark.parametrize(("word", "number"), golden.FORMATS.items())
def test_golden_headers(word: str, number: int) -> None:
    data = golden.image(word)
    header = parse_header(data)
    assert header == Header(
        complete=True, data_size=67056, was_running=True, format=number, cookie_offset=1284, byte_order="little"
    )
    assert header.payload_offset == golden.PAYLOAD_OFFSET
    assert SaveFormat(header.payload_format).word == word
    assert encode_header(header) == data[:HEADER_SIZE]


def test_partial_and_complete_differ_in_the_magic_only() -> None:
    complete = parse_header(packed())
    partial = parse_header(packed(b"LibvirtQemudPart"))
    assert complete.complete
    assert not partial.complete
    assert partial == replace(complete, complete=False)
    assert encode_header(partial)[16:] == encode_header(complete)[16:]


@pytest.mark.parametrize(("stored", "read"), [(0, False), (1, True), (7, True), (0xFFFFFFFF, True)])
def test_was_running_is_read_as_a_truth_value(stored: int, read: bool) -> None:
    header = parse_header(packed(was_running=stored))
    assert header.was_running is read
    assert encode_header(header)[24:28] == int(read).to_bytes(4, sys.byteorder)


def test_the_other_byte_order() -> None:
    header = parse_header(packed(data_size=0x1234, number=5, cookie_offset=7, order=ALIEN))
    assert header == Header(True, 0x1234, True, 5, 7, byte_order=header.byte_order)
    assert header.byte_order == ALIEN
    assert encode_header(header) == packed(data_size=0x1234, number=5, cookie_offset=7, order=ALIEN)


@pytest.mark.parametrize(("version", "payload_format"), [(0, 0), (1, 0), (2, 5)])
def test_old_versions_are_never_decompressed(version: int, payload_format: int) -> None:
    header = parse_header(packed(version=version, number=5))
    assert (header.version, header.format, header.payload_format) == (version, 5, payload_format)


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_later_version_is_refused(order: str) -> None:
    with pytest.raises(UnsupportedImageError, match="image version is not supported") as caught:
        parse_header(packed(version=3, order=order))
    assert caught.value.offset == 16
    if order == sys.byteorder:
        assert "(3 > 2)" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "kind", "message", "offset"),
    [
        (b"", NotAnImageError, "image magic is incorrect", 0),
        (b"x" * 200, NotAnImageError, "image magic is incorrect", 0),
        (b"LibvirtQemudSavf" + bytes(76), NotAnImageError, "image magic is incorrect", 0),
        (b"Libvirt", TruncatedImageError, "ends after 7 of 92 bytes", 7),
        (packed()[:91], TruncatedImageError, "failed to read qemu header.*91 of 92", 91),
        (packed(data_size=0), CorruptImageError, "invalid header data length: 0", 20),
        (packed(data_size=MAX_DATA_SIZE + 1), CorruptImageError, "invalid header data length", 20),
        (packed(data_size=0xFFFFFFFF), CorruptImageError, "invalid header data length", 20),
        (packed(cookie_offset=100), CorruptImageError, "cookie", 32),
        (packed(cookie_offset=0xFFFFFFFF), CorruptImageError, "cookie", 32),
    ],
)
def test_what_cannot_be_is_refused(data: bytes, kind: type[ImageError], message: str, offset: int) -> None:
    with pytest.raises(kind, match=message) as caught:
        parse_header(data)
    assert type(caught.value) is kind
    assert caught.value.offset == offset


def test_the_limits_are_accepted() -> None:
    assert parse_header(packed(data_size=MAX_DATA_SIZE, cookie_offset=MAX_DATA_SIZE - 1)).data_size == MAX_DATA_SIZE
    assert parse_header(packed(data_size=1)).payload_offset == 93


def test_unused_bytes_are_kept() -> None:
    data = packed()[:36] + bytes(range(56))
    assert parse_header(data).unused == bytes(range(56))
    assert encode_header(parse_header(data)) == data


@pytest.mark.parametrize(
    "header", [Header(True, 1, True, 0, unused=b"short"), Header(True, 1 << 32, True, 0), Header(True, 1, True, -1)]
)
def test_headers_that_do_not_fit_are_not_written(header: Header) -> None:
    with pytest.raises(ValueError, match=r"bytes|bits"):
        encode_header(header)


def test_our_own_magic_and_name() -> None:
    header = Header(True, 10, False, 0, own=True, unused=unused_field(own_name="lz4"))
    data = encode_header(header)
    assert data.startswith(b"StreamsaveImage1")
    assert parse_header(data) == header
    assert parse_header(data).codec_name == "lz4"
    assert encode_header(replace(header, complete=False)).startswith(b"StreamsavePart_1")
    assert parse_header(packed()).codec_name == ""
    with pytest.raises(ValueError, match="longer than 24"):
        unused_field(own_name="x" * 25)


def test_formats_as_libvirt_numbers_and_names_them() -> None:
    assert [each.word for each in SaveFormat] == ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"]
    assert [int(each) for each in SaveFormat] == list(range(7))
    assert (oldest_libvirt(SaveFormat.ZSTD), oldest_libvirt(SaveFormat.SPARSE)) == ("10.4", "11.2")
    assert {oldest_libvirt(number) for number in range(5)} == {"0.7.2"}
    assert oldest_libvirt(7) == ""
