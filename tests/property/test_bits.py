"""The search for numbers and the copying of bits agree with a reference on strings of zeros and ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsave._native.bits import BitFinder, copy_bits

from . import bits

MAGICS = (0x314159265359, 0x177245385090)
NUMBERS = st.lists(st.one_of(st.sampled_from(MAGICS), st.integers(0, 2**48 - 1)), min_size=1, max_size=4)


@st.composite
def haystacks(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Bits with some of the numbers, and things that begin like them, at any place."""
    numbers = draw(NUMBERS)
    parts = []
    for _ in range(draw(st.integers(0, 6))):
        parts.append("".join(draw(st.lists(st.sampled_from("01"), max_size=70))))
        number = f"{draw(st.sampled_from(numbers)):048b}"
        parts.append(draw(st.sampled_from([number, number[:47], number[1:], number[:40] + "1" * 8])))
    return bits.to_bytes("".join(parts) + draw(st.text("01", max_size=20))), numbers


@given(haystacks(), st.data())
def test_the_search_finds_the_first(haystack: tuple[bytes, list[int]], data: st.DataObject) -> None:
    content, numbers = haystack
    finder = BitFinder(numbers)
    for start in (0, data.draw(st.integers(0, 8 * len(content) + 9))):
        assert finder.find(content, start) == bits.find(content, start, numbers)


@given(st.binary(max_size=60), st.binary(min_size=1, max_size=60), st.data())
def test_bits_arrive_and_their_neighbours_stay(target: bytes, source: bytes, data: st.DataObject) -> None:
    to = data.draw(st.integers(0, 8 * len(target)))
    start = data.draw(st.integers(0, 8 * len(source)))
    length = data.draw(st.integers(0, min(8 * len(target) - to, 8 * len(source) - start)))
    buffer = bytearray(target)
    copy_bits(buffer, to, source, start, length)
    assert buffer == bits.copied(target, to, source, start, length)


@pytest.mark.parametrize(("to", "start", "length"), [(0, 0, 17), (9, 0, 8), (0, 10, 7), (-1, 0, 1), (0, -1, 1), (0, 0, -1)])
def test_bits_that_are_not_there(to: int, start: int, length: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        copy_bits(bytearray(2), to, bytes(2), start, length)
