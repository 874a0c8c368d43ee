"""What every codec must do, one function per promise: each takes a codec and fails if the promise does not hold.

``test_codec.py`` runs them over every registered codec, so a codec of another package is checked by installing that package
and running ``pytest tests/contract``. Some promises are only for codecs that say so of themselves.
"""

from __future__ import annotations

import gc
import mmap
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate, pairwise
from random import Random
from typing import Final, TypeAlias

import pytest

from streamsave.codecs.base import Codec, DecodeError, Encoder, NotFramed, TruncatedError
from streamsave.errors import UsageError
from streamsave.format.frames import FrameTable
from streamsave.format.header import unused_field
from streamsave.types import Buffer
from streamsave.units import KiB, MiB

from ..kit.tools import pipe_through
from .samples import CONTENTS, mixed, noise, text, zeros

Check: TypeAlias = Callable[[Codec], None]
SENTINEL: Final = b"not yours"
_CHECKS: Final[list[tuple[Check, Callable[[Codec], bool]]]] = []


def checks_for(codec: Codec) -> list[Check]:
    """The promises that ``codec`` makes."""
    return [function for function, applies in _CHECKS if applies(codec)]


def check(function: Check) -> Check:
    """A promise of every codec."""
    return check_of(lambda _: True)(function)


def check_of(applies: Callable[[Codec], bool]) -> Callable[[Check], Check]:
    """A promise of the codecs to which it ``applies``."""

    def add(function: Check) -> Check:
        _CHECKS.append((function, applies))
        return function

    return add


def shows_damage(codec: Codec) -> bool:
    """Whether it carries something by which damage, and an end, can be seen."""
    return codec.detects_damage


def has_tool(codec: Codec) -> bool:
    """Whether there is a stock tool for its format."""
    return bool(codec.tool)


# -- the tools of the checks ------------------------------------------------------------------------------------------


def encode(codec: Codec, data: Buffer, level: int | None = None, encoder: Encoder | None = None) -> bytes:
    """Into as little room as there may be, with a sentinel behind it."""
    encoder = encoder or codec.encoder(codec.default_level if level is None else level)
    bound = codec.bound(len(data))
    memory = room_for(codec, data, len(SENTINEL))
    memory[bound:] = SENTINEL
    frame = b"".join(encoder.encode(memoryview(data), memory[:bound]))
    assert bytes(memory[bound:]) == SENTINEL, "the encoder wrote beyond its room"
    return frame


def room_for(codec: Codec, data: Buffer, more: int = 0) -> memoryview:
    """Room for the frame of ``data``, and ``more``."""
    return memoryview(bytearray(codec.bound(len(data)) + more))


def decode(codec: Codec, frame: Buffer, room: int) -> bytes:
    return bytes(codec.decoder().decode(memoryview(frame), memoryview(bytearray(room))))


def payload_of(codec: Codec, *chunks: bytes) -> bytes:
    encoder = codec.encoder(codec.default_level)
    return b"".join([codec.prologue, *(encode(codec, chunk, encoder=encoder) for chunk in chunks), codec.epilogue])


def frame_sizes(codec: Codec, payload: bytes, step: int) -> Iterator[int]:
    """Split ``payload`` as a pipeline does: ``step`` more bytes at a time, never more than the largest frame."""
    splitter = codec.splitter()
    limit = codec.bound(codec.chunk_size)
    start = codec.prologue_size(memoryview(payload)[: codec.probe_size])
    view = memoryview(payload)[start : len(payload) - len(codec.epilogue)]
    while view:
        have = size = least = 0
        while size <= 0:
            assert have < min(len(view), limit), "the splitter wants more than there can be"
            have = min(have + step, len(view), limit)
            least = max(least, -size)
            size = splitter.frame_size(view[:have], final=have == len(view))
        assert 0 < size <= limit
        assert have >= min(least, len(view)), "it said that it needs more to tell"
        yield size
        view = view[size:]


def pieces(payload: bytes, step: int) -> Callable[[int], Buffer]:
    """A ``ReadBytes`` that gives ``step`` bytes at most, in memory that is overwritten afterwards."""
    position = 0
    last = bytearray()

    def read(size: int) -> Buffer:
        nonlocal position, last
        last[:] = bytes(len(last))
        last = bytearray(payload[position : position + min(size, step)])
        position += len(last)
        return memoryview(last)

    return read


def read_all(codec: Codec, payload: bytes, *, step: int = 64 * KiB, room: int = 64 * KiB) -> bytes:
    """Decode ``payload`` sequentially, ``room`` bytes at a time."""
    reader = codec.stream_reader(pieces(payload, step))
    out = []
    size = room
    while size == room:
        view = memoryview(bytearray(room))
        size = reader.readinto(view)
        assert 0 <= size <= room
        out.append(bytes(view[:size]))
    assert reader.readinto(memoryview(bytearray(room))) == 0, "bytes after the end"
    return b"".join(out)


def some_levels(codec: Codec) -> list[int]:
    return sorted({codec.levels[0], codec.default_level, codec.levels[-1]}) if codec.levels else [codec.default_level]


# -- what it says of itself -------------------------------------------------------------------------------------------


@check
def describes_itself(codec: Codec) -> None:
    assert codec.name.isidentifier()
    assert codec.name == codec.name.lower()
    assert unused_field(own_name=codec.name), "an image can carry the name"
    assert codec.number is None or 0 <= codec.number < 2**32
    assert codec.summary
    assert "\n" not in codec.summary
    assert codec.chunk_size >= MiB
    assert codec.chunk_size % MiB == 0
    assert 0 < codec.probe_size <= codec.bound(codec.chunk_size)
    if codec.levels:
        assert codec.default_level in codec.levels
        assert codec.tool_level in codec.levels


@check
def accepts_its_levels_only(codec: Codec) -> None:
    assert codec.check_level(None) == codec.default_level
    for level in codec.levels:
        assert codec.check_level(level) == level
    for level in (codec.levels.start - 1, codec.levels.stop, 10**6):
        with pytest.raises(UsageError, match=codec.name) as caught:
            codec.check_level(level)
        if codec.levels:
            assert f"{codec.levels[0]} to {codec.levels[-1]}" in str(caught.value)


# -- there and back ---------------------------------------------------------------------------------------------------


@check
def round_trips_every_size(codec: Codec) -> None:
    encoder = codec.encoder(codec.default_level)
    decoder = codec.decoder()
    room = memoryview(bytearray(codec.chunk_size + 1))
    small = [0, 1, 2, 4 * KiB - 1, 4 * KiB, 4 * KiB + 1]
    for name, make in CONTENTS.items():
        for size in (*small, *(codec.chunk_size + extra for extra in (-1, 0, 1) if name == "mixed" or extra == 0)):
            data = make(size)
            frame = encode(codec, data, encoder=encoder)
            chunk = decoder.decode(memoryview(frame), room)
            assert chunk == data, (name, size)
            assert decoder.decode(memoryview(frame), room[:size]) == data, "exactly enough room must do"


@check
def round_trips_at_every_level(codec: Codec) -> None:
    data = mixed(100 * KiB)
    for level in codec.levels:
        assert decode(codec, encode(codec, data, level), len(data)) == data, level


@check
def takes_every_kind_of_buffer(codec: Codec) -> None:
    data = mixed(20 * KiB)
    frame = encode(codec, data)
    encoder, decoder = codec.encoder(codec.default_level), codec.decoder()
    with mmap.mmap(-1, 128 * KiB) as memory, memoryview(memory) as whole:
        with whole[3 : 3 + len(data)] as view:
            view[:] = data
            assert encode(codec, view, encoder=encoder) == frame
            assert encode(codec, view.toreadonly(), encoder=encoder) == frame
        for buffer in (data, bytearray(data), memoryview(b"x" + data)[1:]):
            assert encode(codec, buffer, encoder=encoder) == frame
        with whole[5 : 5 + len(frame)] as view, whole[64 * KiB : 64 * KiB + len(data)] as room:
            view[:] = frame
            assert decoder.decode(view, room) == data
            assert decoder.decode(view.toreadonly(), room) == data
        gc.collect()  # or the mapping does not close


@check
def keeps_no_export(codec: Codec) -> None:
    """A buffer that was lent can be resized as soon as the results are gone, after success and after failure."""
    encoder, decoder, splitter = codec.encoder(codec.default_level), codec.decoder(), codec.splitter()
    data = bytearray(mixed(10 * KiB))
    with memoryview(data) as chunk:
        whole = b"".join(encoder.encode(chunk, room_for(codec, chunk)))
    data.append(0)
    for damage in (0, 1):
        frame, room = bytearray(whole), bytearray(len(data))
        if damage and codec.detects_damage:
            frame[len(frame) // 2] ^= 0xFF
        try:
            with memoryview(frame) as view, memoryview(room) as space:
                splitter.frame_size(view, final=True)
                decoder.decode(view, space)
        except DecodeError:
            assert damage
        frame.append(0)
        room.append(0)


@check
def results_stay(codec: Codec) -> None:
    """What a call returned is not changed by the next one."""
    encoder, decoder = codec.encoder(codec.default_level), codec.decoder()
    first, second = text(30 * KiB), noise(30 * KiB)
    parts = encoder.encode(memoryview(first), room_for(codec, first))
    frame = b"".join(parts)
    other = b"".join(encoder.encode(memoryview(second), room_for(codec, second)))
    assert b"".join(parts) == frame
    chunk = decoder.decode(memoryview(frame), memoryview(bytearray(len(first))))
    decoder.decode(memoryview(other), memoryview(bytearray(len(second))))
    assert chunk == first


@check
def stays_within_its_bound(codec: Codec) -> None:
    for level in codec.levels or [codec.default_level]:
        encoder = codec.encoder(level)
        for size in (0, 1, 100, 4 * KiB, 64 * KiB, 128 * KiB + 1):
            assert len(encode(codec, noise(size), encoder=encoder)) <= codec.bound(size), (level, size)
    for level in some_levels(codec):
        assert len(encode(codec, noise(codec.chunk_size), level)) <= codec.bound(codec.chunk_size), level


# -- finding the frames -----------------------------------------------------------------------------------------------


@check
def finds_whole_frames(codec: Codec) -> None:
    """Full chunks and what is left of a stream, whatever they hold."""
    for make in (zeros, mixed, noise):
        whole = encode(codec, make(codec.chunk_size))
        frames = [whole, whole, encode(codec, make(1000))]
        payload = b"".join([codec.prologue, *frames, codec.epilogue])
        for step in (codec.probe_size, 300_000):
            assert list(frame_sizes(codec, payload, step)) == [len(frame) for frame in frames], make.__name__


@check
def finds_frames_byte_by_byte(codec: Codec) -> None:
    chunks = [text(2000), b"x", noise(3000), zeros(4096), mixed(5000)]
    payload = payload_of(codec, *chunks)
    decoder = codec.decoder()
    room = memoryview(bytearray(codec.chunk_size))
    position = len(codec.prologue)
    out = []
    for size in frame_sizes(codec, payload, 1):
        out.append(bytes(decoder.decode(memoryview(payload)[position : position + size], room)))
        position += size
    assert position == len(payload) - len(codec.epilogue)
    assert b"".join(out) == b"".join(chunks)


@check_of(shows_damage)
def splits_no_garbage(codec: Codec) -> None:
    for data in (b"\xff" * 64, noise(64), zeros(64), text(64)):
        with pytest.raises(NotFramed):
            codec.splitter().frame_size(memoryview(data), final=False)
    for data in (b"\0", b"\xff" * 20, noise(5000), zeros(5000), text(5000)):
        with pytest.raises(NotFramed):
            list(frame_sizes(codec, codec.prologue + data + codec.epilogue, 100))


@check
def believes_no_size(codec: Codec) -> None:
    """Whatever a frame's first bytes claim, the splitter wants no more than a slot, and the decoder keeps to its room."""
    frame = bytearray(encode(codec, text(5000)))
    random = Random(1)
    decoder = codec.decoder()
    limit = codec.bound(codec.chunk_size)
    for _ in range(2000):
        damaged = frame.copy()
        start = random.randrange(64)
        damaged[start : start + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x7f", random.randbytes(4)])
        try:
            assert 0 <= codec.splitter().frame_size(memoryview(damaged), final=False) <= limit
            assert 0 < codec.splitter().frame_size(memoryview(damaged), final=True) <= limit
        except NotFramed:
            pass
        try:
            assert len(decoder.decode(memoryview(damaged), memoryview(bytearray(5000)))) <= 5000
        except DecodeError:
            pass


# -- carriers ---------------------------------------------------------------------------------------------------------

CARRIED_SIZES: Final = (0, 1, 11, 12, 13, 1000, 65_531, 65_532, 300_000)


def frames_of(codec: Codec, *frames: bytes, stream_size: int) -> FrameTable:
    table = FrameTable(codec.chunk_size, payload_start=len(codec.prologue), stream_size=stream_size)
    table.sizes.extend(len(frame) for frame in frames)
    return table


@check
def carries_any_data(codec: Codec) -> None:
    table = frames_of(codec, encode(codec, b"x"), stream_size=1)
    for size in CARRIED_SIZES:
        for data in (noise(size), zeros(size), b"\xff" * size):
            assert codec.uncarry(codec.carry(data, table)) == data
    assert len(codec.carry(noise(300_000), table)) < 1_000_000


@check_of(shows_damage)
def carries_what_readers_skip(codec: Codec) -> None:
    """The sequential reader decodes a payload with a carrier behind it to the same stream."""
    chunk = text(5000)
    table = frames_of(codec, encode(codec, chunk), stream_size=len(chunk))
    for size in CARRIED_SIZES:
        payload = payload_of(codec, chunk) + codec.carry(noise(size), table)
        for step in (7, 64 * KiB):
            assert read_all(codec, payload, step=step) == chunk, (size, step)


@check_of(shows_damage)
def goes_on_at_a_carrier(codec: Codec) -> None:
    """Where a splitter has found all frames and stops at a carrier, the sequential reader takes over, and finds the end.

    Not where a carrier is the data as they are: there the last frame is the sequential reader's too.
    """
    table = frames_of(codec, encode(codec, b"x"), stream_size=1)
    for data in map(noise, CARRIED_SIZES[1:]):
        carrier = codec.carry(data, table)
        if carrier != data:
            assert read_all(codec, codec.epilogue + carrier) == b"", len(data)


@check_of(has_tool)
def carries_what_the_stock_tool_skips(codec: Codec) -> None:
    chunks = [mixed(codec.chunk_size), noise(3000)]
    frames = [encode(codec, chunk) for chunk in chunks]
    table = frames_of(codec, *frames, stream_size=codec.chunk_size + 3000)
    for size in CARRIED_SIZES:
        payload = b"".join([codec.prologue, *frames, codec.epilogue, codec.carry(noise(size), table)])
        assert pipe_through(codec.tool_decode, payload) == b"".join(chunks), size


COVERED_SIZES: Final = (0, 512, 4096, 3 * MiB)
"""And what it takes to the end of a sector, for a device has whole ones, and a payload starts at one."""


def covered(codec: Codec, size: int) -> bytes:
    """What stands behind a payload on a device of which ``size`` bytes are left: older data, and the codec's cover."""
    data = bytearray(zeros(size) if codec.needs_zeros else noise(size))
    for offset, piece in codec.cover(size):
        assert 0 <= offset <= size - len(piece)
        data[offset : offset + len(piece)] = piece
    return bytes(data)


@check
def covers_what_is_left_of_a_device(codec: Codec) -> None:
    """Whatever is behind a payload and its carrier, stock tool and sequential reader decode it to the same stream."""
    chunk = mixed(300_000)
    table = frames_of(codec, encode(codec, chunk), stream_size=len(chunk))
    payload = payload_of(codec, chunk) + codec.carry(noise(3000), table)
    for size in (more + -len(payload) % 512 for more in COVERED_SIZES):
        device = payload + covered(codec, size)
        if has_tool(codec):
            assert pipe_through(codec.tool_decode, device) == chunk, size
        if shows_damage(codec):
            assert read_all(codec, device, step=64 * KiB) == chunk, size


@check
def covers_all_of_a_device(codec: Codec) -> None:
    """Also one of terabytes, with few bytes, and whatever its size is: or says that there are too few."""
    whole = list(codec.cover(5 * 10**12 + 7))
    assert len(whole) < 500_000
    ends = [offset + len(piece) for offset, piece in whole]
    assert sorted(ends) == ends
    for size in (*range(30), *(2**30 + at for at in range(20)), *(2**24 + at for at in range(-2, 9))):
        try:
            pieces = list(codec.cover(size))
        except ValueError:
            assert 0 < size < 8
        else:
            assert all(offset >= 0 and offset + len(piece) <= size for offset, piece in pieces)


@check
def believes_no_carrier(codec: Codec) -> None:
    """Damage in a carrier is an error or shows in what comes out of it, which has checksums of its own."""
    table = frames_of(codec, encode(codec, b"x"), stream_size=1)
    whole = codec.carry(noise(3000), table)
    random = Random(3)
    for _ in range(300):
        damaged = bytearray(whole[: random.randrange(len(whole))] if random.random() < 0.5 else whole)
        if damaged:
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        for data in (bytes(damaged), whole[:10] + random.randbytes(32), b"\xff" * random.randrange(100)):
            try:
                assert len(codec.uncarry(data)) <= len(data)
            except DecodeError:
                pass


# -- damage -----------------------------------------------------------------------------------------------------------


@check
def refuses_a_chunk_larger_than_its_room(codec: Codec) -> None:
    for make in (zeros, text, noise):
        for size in (1, 200, 1000, 100 * KiB):
            frame = encode(codec, make(size))
            for room in {0, 1, size * 3 // 4, size - 1} - {size}:
                with pytest.raises(DecodeError):
                    decode(codec, frame, room)


@check_of(shows_damage)
def refuses_a_cut_or_extended_frame(codec: Codec) -> None:
    for data in (b"", b"x", text(3000), noise(300)):
        frame = encode(codec, data)
        for size in range(len(frame)):
            with pytest.raises(DecodeError):
                decode(codec, frame[:size], len(data) + 100)
        for extra in (b"\0", b"\0" * 8, frame, frame[-8:]):
            with pytest.raises(DecodeError):
                decode(codec, frame + extra, 2 * len(data) + 100)
    frame = encode(codec, mixed(codec.chunk_size))
    for size in (*range(0, len(frame), len(frame) // 20), len(frame) - 1):
        with pytest.raises(DecodeError):
            decode(codec, frame[:size], codec.chunk_size)


@check_of(shows_damage)
def detects_every_flipped_bit(codec: Codec) -> None:
    """A frame with a flipped bit is refused, or the bit means nothing and the chunk is the same."""
    random = Random(2)
    decoder = codec.decoder()
    for data in (b"", b"x", mixed(2000) + noise(100), mixed(300 * KiB), zeros(codec.chunk_size)):
        frame = bytearray(encode(codec, data))
        room = memoryview(bytearray(len(data) + 1000))
        refused = 0
        bits = list(range(8 * len(frame)))
        if len(frame) > 1500 or len(data) > MiB:  # both ends, and some between
            bits = [*bits[: 8 * 40], *random.sample(bits, 100), *bits[-8 * 12 :]]
        for bit in bits:
            frame[bit // 8] ^= 1 << bit % 8
            try:
                assert decoder.decode(memoryview(frame), room) == data, bit
            except DecodeError:
                refused += 1
            frame[bit // 8] ^= 1 << bit % 8
        assert refused > len(bits) // 2


# -- the sequential reader --------------------------------------------------------------------------------------------


@check
def reads_sequentially(codec: Codec) -> None:
    """The same bytes, however the input comes and however much is asked for at a time."""
    chunks = [mixed(3000), b"", text(70_000), b"x", noise(1000), zeros(200_000)]
    payload, data = payload_of(codec, *chunks), b"".join(chunks)
    for step in (1, 7, 4096, MiB):
        for room in (1009, 65536, len(data), len(data) + 1, MiB):
            assert read_all(codec, payload, step=step, room=room) == data, (step, room)
    tiny = [b"a", b"bcd" * 30]
    assert read_all(codec, payload_of(codec, *tiny), step=1, room=1) == b"".join(tiny)


@check
def reads_large_chunks_sequentially(codec: Codec) -> None:
    data = mixed(codec.chunk_size) + noise(codec.chunk_size)
    payload = payload_of(codec, data[: codec.chunk_size], data[codec.chunk_size :])
    assert read_all(codec, payload, room=codec.chunk_size) == data


@check_of(shows_damage)
def sees_every_cut(codec: Codec) -> None:
    """Cut anywhere, a payload ends with ``TruncatedError``; between frames it is a shorter payload."""
    chunks = [text(2000), noise(300), zeros(5000)]
    payload = payload_of(codec, *chunks)
    whole = {len(payload_of(codec, *chunks[:count])): b"".join(chunks[:count]) for count in range(1, len(chunks) + 1)}
    seen = set()
    for size in range(len(payload) + 1):
        for step in (size or 1, 5):
            try:
                assert read_all(codec, payload[:size], step=step) == whole.get(size, "an error"), size
                seen.add(size)
            except TruncatedError:
                assert size not in whole or codec.epilogue, size
    assert len(payload) in seen


@check_of(shows_damage)
def sees_damage_sequentially(codec: Codec) -> None:
    """A flipped bit ends sequential reading with an error, or means nothing: never in other data, never in a hang."""
    chunks = [text(500), noise(100), zeros(5000)]
    payload, data = bytearray(payload_of(codec, *chunks)), b"".join(chunks)
    refused = 0
    for bit in range(8 * len(payload)):
        payload[bit // 8] ^= 1 << bit % 8
        for room in (len(data), MiB):
            try:
                assert read_all(codec, bytes(payload), room=room) == data, bit
            except DecodeError:
                refused += 1
        payload[bit // 8] ^= 1 << bit % 8
    assert refused > 8 * len(payload)


@check_of(shows_damage)
def reads_no_garbage(codec: Codec) -> None:
    for data in (b"\xff", b"\xff" * 64, noise(5000), text(5000)):
        with pytest.raises(DecodeError):
            read_all(codec, data)


@check
def passes_read_errors_on(codec: Codec) -> None:
    def read(size: int) -> Buffer:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        codec.stream_reader(read).readinto(memoryview(bytearray(100)))


# -- threads ----------------------------------------------------------------------------------------------------------


@check
def works_in_eight_threads(codec: Codec) -> None:
    chunks = [mixed(50_000 + number) + noise(number * 100) for number in range(8)]
    frames = [encode(codec, chunk) for chunk in chunks]
    start = threading.Barrier(8, timeout=30)

    def work(number: int) -> int:
        start.wait()
        encoder, decoder = codec.encoder(codec.default_level), codec.decoder()
        room = memoryview(bytearray(60_000))
        right = 0
        for turn in range(8):
            which = (number + turn) % 8
            frame = encode(codec, chunks[which], encoder=encoder)
            right += frame == frames[which] and decoder.decode(memoryview(frame), room) == chunks[which]
        return right

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [8] * 8


@check
def releases_the_gil(codec: Codec) -> None:
    data = memoryview(text(codec.chunk_size // 2) + noise(codec.chunk_size // 2))
    for level in codec.levels or [codec.default_level]:
        encode_it = partial(codec.encoder(level).encode, data, room_for(codec, data))
        assert lets_others_run(encode_it), f"level {level} keeps the GIL"
    frame = memoryview(encode(codec, data))
    decoder = codec.decoder()
    room = memoryview(bytearray(len(data)))
    assert lets_others_run(lambda: decoder.decode(frame, room)), "decoding keeps the GIL"


def lets_others_run(call: Callable[[], object], limit_s: float = 10) -> bool:
    """Whether another thread runs Python code while ``call`` runs; also true of calls too short (200 us) to matter.

    Nobody is made to give the GIL up here, so the other thread counts only if ``call`` lets go of it.
    """
    count = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0.0002)

    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        thread.start()
        before = count
        end = time.monotonic() + limit_s
        shortest = 1.0
        while time.monotonic() < end and shortest > 0.0002:
            began = time.perf_counter()
            call()
            shortest = min(shortest, time.perf_counter() - began)
            if count > before + 1:
                return True
        return shortest <= 0.0002
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


# -- the stock tool ---------------------------------------------------------------------------------------------------


@check_of(has_tool)
def the_stock_tool_decodes_ours(codec: Codec) -> None:
    chunks = [mixed(codec.chunk_size), b"", noise(3000), b"x", zeros(codec.chunk_size)]
    assert pipe_through(codec.tool_decode, payload_of(codec, *chunks)) == b"".join(chunks)
    for level in codec.levels:
        data = mixed(200 * KiB)
        frame = encode(codec, data, level)
        assert pipe_through(codec.tool_decode, codec.prologue + frame + frame + codec.epilogue) == data + data, level


@check
def frames_of_several_levels_make_one_payload(codec: Codec) -> None:
    """A level may change between two frames."""
    levels = some_levels(codec) * 2
    frames = [encode(codec, mixed(codec.chunk_size), level) for level in levels]
    payload = b"".join([codec.prologue, *frames, codec.epilogue])
    assert read_all(codec, payload, room=codec.chunk_size) == mixed(codec.chunk_size) * len(levels)
    if has_tool(codec):
        assert pipe_through(codec.tool_decode, payload) == mixed(codec.chunk_size) * len(levels)


@check_of(has_tool)
def decodes_the_stock_tools(codec: Codec) -> None:
    """What the tool writes at any level: by sequential reading, and, should the splitter take it, frame by frame."""
    data = mixed(codec.chunk_size + 200 * KiB)
    assert pipe_through(codec.tool, data)[: len(codec.magic)] == codec.magic != b""
    for level in codec.levels:
        command = codec.tool_command(level)
        payload = pipe_through(command, data)
        assert read_all(codec, payload, room=codec.chunk_size) == data, level
        try:
            sizes = list(frame_sizes(codec, payload, codec.probe_size))
        except NotFramed:
            continue
        ends = list(accumulate(sizes, initial=codec.prologue_size(memoryview(payload)[: codec.probe_size])))
        chunks = [decode(codec, payload[start:end], codec.chunk_size) for start, end in pairwise(ends)]
        assert b"".join(chunks) == data, level
