from __future__ import annotations

import pytest

from streamsave.errors import CorruptImageError, UsageError
from streamsave.format.header import HEADER_SIZE, MAX_DATA_SIZE, parse_header
from streamsave.format.metadata import Metadata, encode_metadata, parse_metadata

from . import golden


@pytest.mark.parametrize("word", golden.FORMATS)
def test_golden_metadata(word: str) -> None:
    data = golden.image(word)
    header = parse_header(data)
    metadata = parse_metadata(data[HEADER_SIZE : header.payload_offset], header.cookie_offset)
    assert metadata.xml == (golden.GOLDEN / "tiny.xml").read_text()
    assert metadata.cookie == (golden.GOLDEN / "tiny.cookie.xml").read_text()
    mine, cookie_offset = encode_metadata(metadata)
    texts = header.data_size - 65536
    assert cookie_offset == header.cookie_offset
    assert mine[:texts] == data[HEADER_SIZE:][:texts]


@pytest.mark.parametrize("cookie", [None, "", "<cookie/>"])
@pytest.mark.parametrize("size", [0, 1, 3999, 4000, 4001, 100_000])
def test_room_to_edit_and_an_aligned_payload(size: int, cookie: str | None) -> None:
    data, cookie_offset = encode_metadata(Metadata("x" * size, cookie))
    texts = size + 1 + (0 if cookie is None else len(cookie) + 1)
    assert data[texts:] == bytes(len(data) - texts)
    assert 65536 <= len(data) - texts < 65536 + 4096
    assert (HEADER_SIZE + len(data)) % 4096 == 0
    assert cookie_offset == (0 if cookie is None else size + 1)
    assert parse_metadata(data, cookie_offset) == Metadata("x" * size, cookie)


@pytest.mark.parametrize(
    "metadata", [Metadata("a\0b"), Metadata("a", "\0"), Metadata("\ud800"), Metadata("x" * MAX_DATA_SIZE)]
)
def test_texts_that_no_reader_would_find_again_are_refused(metadata: Metadata) -> None:
    with pytest.raises(UsageError, match=r"NUL|UTF-8|more than"):
        encode_metadata(metadata)


@pytest.mark.parametrize(
    ("data", "cookie_offset", "message", "offset"),
    [
        (b"<domain/>", 0, "failed to read domain XML", 92),
        (b"<domain/>\0<cookie/>\0", 3, "failed to read domain XML", 92),
        (b"<domain/>\0<cookie/>", 10, "failed to read cookie", 102),
    ],
)
def test_texts_without_an_end(data: bytes, cookie_offset: int, message: str, offset: int) -> None:
    with pytest.raises(CorruptImageError, match=message) as caught:
        parse_metadata(data, cookie_offset)
    assert caught.value.offset == offset


def test_bytes_that_are_no_utf8_survive() -> None:
    metadata = parse_metadata(b"<name>\xff\xc3</name>\0", 0)
    assert encode_metadata(metadata)[0].startswith(b"<name>\xff\xc3</name>\0")
