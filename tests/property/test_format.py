"""Header, metadata and descriptive XML: what is written is read again; anything else is parsed or an ImageError."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal, TypeVar

from hypothesis import given
from hypothesis import strategies as st

from streamsave.errors import CorruptImageError, ImageError, NotAnImageError
from streamsave.format.description import (
    GuestDescription,
    SavedCommand,
    encode_description,
    parse_description,
    parse_saved_command,
)
from streamsave.format.header import (
    HEADER_SIZE,
    MAGIC_COMPLETE,
    MAGIC_PARTIAL,
    MAX_DATA_SIZE,
    OWN_MAGIC_COMPLETE,
    Header,
    encode_header,
    parse_header,
)
from streamsave.format.metadata import Metadata, encode_metadata, parse_metadata

T = TypeVar("T")


def attempt(parse: Callable[[], T]) -> T | ImageError:
    """The result or the error: the only two ways to end."""
    try:
        return parse()
    except ImageError as error:
        return error


words = st.integers(0, (1 << 32) - 1)
byte_orders: st.SearchStrategy[Literal["little", "big"]] = st.sampled_from(["little", "big"])
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    data_size = draw(st.integers(1, MAX_DATA_SIZE))
    return Header(
        complete=draw(st.booleans()),
        data_size=data_size,
        was_running=draw(st.booleans()),
        format=draw(words),
        cookie_offset=draw(st.integers(0, data_size - 1)),
        version=draw(st.integers(1, 2)),
        unused=draw(st.binary(min_size=56, max_size=56)),
        byte_order=draw(byte_orders),
        own=draw(st.booleans()),
    )


@given(headers(), st.binary(max_size=10))
def test_headers_are_read_again(header: Header, payload: bytes) -> None:
    data = encode_header(header)
    assert len(data) == HEADER_SIZE
    assert parse_header(memoryview(data + payload)) == header


@given(
    st.sampled_from([b"", MAGIC_COMPLETE, MAGIC_PARTIAL, OWN_MAGIC_COMPLETE]),
    st.lists(words | st.integers(0, 9), min_size=5, max_size=5),
    byte_orders,
    st.binary(max_size=80),
)
def test_anything_is_a_header_or_an_error_with_its_place(
    magic: bytes, numbers: list[int], byte_order: Literal["little", "big"], rest: bytes
) -> None:
    data = magic + b"".join(number.to_bytes(4, byte_order) for number in numbers) + rest
    header = attempt(lambda: parse_header(data))
    if isinstance(header, ImageError):
        assert 0 <= header.offset <= len(data)
        assert isinstance(header, NotAnImageError) == (not magic)
    else:
        assert header.version <= 2
        assert HEADER_SIZE < header.payload_offset <= HEADER_SIZE + MAX_DATA_SIZE
        numbers_read = [header.version, header.data_size, None, header.format, header.cookie_offset]
        assert numbers_read in (
            [*numbers[:2], None, *numbers[3:]],
            [*map(_swap, numbers[:2]), None, *map(_swap, numbers[3:])],
        )


def _swap(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "little"), "big")


@given(texts, st.none() | texts)
def test_metadata_is_read_again(xml: str, cookie: str | None) -> None:
    metadata = Metadata(xml, cookie)
    data, cookie_offset = encode_metadata(metadata)
    assert parse_metadata(data, cookie_offset) == metadata
    assert (HEADER_SIZE + len(data)) % 4096 == 0
    assert data.endswith(bytes(64 * 1024))


@given(st.binary(min_size=1, max_size=40), st.data())
def test_any_metadata_is_read_or_an_error_with_its_place(data: bytes, draw: st.DataObject) -> None:
    cookie_offset = draw.draw(st.integers(0, len(data) - 1))
    metadata = attempt(lambda: parse_metadata(memoryview(data), cookie_offset))
    if isinstance(metadata, ImageError):
        assert isinstance(metadata, CorruptImageError)
        assert metadata.offset in (HEADER_SIZE, HEADER_SIZE + cookie_offset)
    else:
        assert data.startswith(metadata.xml.encode("utf-8", "surrogateescape") + b"\0")
        assert (metadata.cookie is None) == (cookie_offset == 0)


def _argument(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


arguments = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"")).map(_argument) | texts
"""Whatever a Linux command line may hold."""
commands = st.builds(SavedCommand, st.lists(arguments, min_size=1, max_size=4).map(tuple), arguments)
plain = st.text(st.characters(min_codepoint=32, max_codepoint=0xFFF))


@st.composite
def descriptions(draw: st.DrawFn) -> GuestDescription:
    return GuestDescription(
        name=draw(plain),
        uuid=draw(plain),
        memory_size=draw(st.integers(0, 1 << 40)) * 1024,
        vcpu_count=draw(st.integers(0, 4096)),
        machine=draw(plain),
        arch=draw(plain),
        accelerator=draw(plain),
        command=draw(st.none() | commands),
    )


@given(descriptions())
def test_descriptions_are_read_again(guest: GuestDescription) -> None:
    xml = encode_description(guest)
    assert parse_description(xml) == guest
    assert parse_saved_command(xml) == guest.command
    metadata, _ = encode_metadata(Metadata(xml))
    assert parse_metadata(metadata, 0).xml == xml


@given(st.lists(st.text(), min_size=5, max_size=5))
def test_descriptions_are_well_formed_whatever_they_say(strings: list[str]) -> None:
    name, uuid, machine, arch, accelerator = strings
    found = parse_description(encode_description(GuestDescription(name, uuid, 0, 1, machine, arch, accelerator)))
    assert found is not None
    assert len(found.name) == len(name)


@given(st.text(max_size=200) | descriptions().map(encode_description), st.data())
def test_any_xml_is_read_or_an_error(xml: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(xml)))
    damaged = xml[:at] + data.draw(st.text(max_size=6)) + xml[at + data.draw(st.integers(0, 30)) :]
    guest = parse_description(damaged)
    command = attempt(lambda: parse_saved_command(damaged))
    assert guest is None or guest.command == command
    assert not isinstance(command, ImageError) or isinstance(command, CorruptImageError)


def test_the_host_writes_its_own_byte_order() -> None:
    assert encode_header(Header(True, 1, False, 5))[16:20] == (2).to_bytes(4, sys.byteorder)
