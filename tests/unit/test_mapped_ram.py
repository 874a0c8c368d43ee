"""A mapped-ram file becomes the plain stream of the same guest, byte for byte, or it is refused."""

from __future__ import annotations

import pytest

from streamsave.errors import CorruptImageError, ImageError, TruncatedImageError, UnsupportedImageError
from streamsave.format.mapped_ram import plain_stream
from streamsave.format.scanner import StreamScanner
from streamsave.units import MiB

from ..kit.sparse import sparse_guest

START = 5000


def plain(data: bytes, start: int = START) -> bytes:
    return b"".join(plain_stream(lambda size, offset: data[offset : offset + size], start, len(data)))


@pytest.mark.parametrize("start", [0, 1, START, 2 * MiB])
@pytest.mark.parametrize("flushes", [0, 2])
def test_it_is_the_stream_that_the_guest_would_have_had(start: int, flushes: int) -> None:
    guest = sparse_guest(flushes=flushes)
    stream = plain(guest.file(start), start)
    assert stream == guest.stream()
    scanner = StreamScanner()
    scanner.feed(stream)
    found = scanner.map()
    assert found.well_formed_end
    assert found.pages_in_order
    assert found.page_count == sum(map(len, guest.pages.values()))
    assert found.page_count + found.zero_page_count == sum(guest.sizes.values()) // 4096


def test_a_guest_of_zeros() -> None:
    guest = sparse_guest(pages={})
    assert plain(guest.file(START)) == guest.stream()


@pytest.mark.parametrize("capabilities", [("x-ignore-shared",), ("mapped-ram", "x-ignore-shared")])
def test_what_else_was_switched_on_is_not_guessed_at(capabilities: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedImageError, match="has the capability x-ignore-shared at offset"):
        plain(sparse_guest(capabilities=capabilities).file(START))


def test_every_cut_is_seen() -> None:
    """Up to the state of the devices, whose end the scanner judges."""
    guest = sparse_guest()
    data = guest.file(START)
    devices = len(data) - len(guest.device) - 60
    for size in [*range(START, START + 300, 7), *range(MiB, devices, 54321), devices]:
        cut = data[:size]
        try:
            stream = plain(cut)
        except TruncatedImageError:
            continue
        assert size >= devices
        assert len(stream) < len(guest.stream())


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (0, (2).to_bytes(4, "big"), UnsupportedImageError),  # the version
        (4, (4095).to_bytes(8, "big"), CorruptImageError),  # the page size
        (4, bytes(8), CorruptImageError),
        (12, bytes(8), CorruptImageError),  # where the bitmap is
        (12, b"\xff" * 8, CorruptImageError),
        (20, bytes(8), CorruptImageError),  # where the pages are
        (20, (MiB + 1).to_bytes(8, "big"), CorruptImageError),
        (20, (1 << 50).to_bytes(8, "big"), TruncatedImageError),
        (-8, (1 << 50).to_bytes(8, "big"), CorruptImageError),  # the block's size
        (-8, bytes(8), CorruptImageError),
        (-8, (4097).to_bytes(8, "big"), CorruptImageError),
    ],
)
@pytest.mark.parametrize("block", ["pc.ram", "rom"])
def test_a_header_that_cannot_be(at: int, value: bytes, error: type[ImageError], block: str) -> None:
    guest = sparse_guest()
    data = bytearray(guest.file(START))
    place = guest.blocks_at[block] + at
    data[place : place + len(value)] = value
    with pytest.raises(error):
        plain(bytes(data))


def test_whatever_is_flipped_ends() -> None:
    """An image error, or a stream: of the pages nobody can say what they were."""
    guest = sparse_guest()
    data = guest.file(START)
    places = [*range(START, START + 200), *(at + offset for at in guest.blocks_at.values() for offset in range(-20, 40))]
    refused = 0
    for place in places:
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            try:
                assert len(plain(bytes(damaged))) < 8 * MiB
            except ImageError:
                refused += 1
    assert refused > 300
