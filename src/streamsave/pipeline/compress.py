"""Stream to payload: reader (chunks) --> encoders (frames) --> writer (in order).

A chunk is read straight into its slot, where the codec makes its frame too if the library can; the frame is written straight
from there. The slot goes back to the pool when its frame is written. What is needed to find the frames again, and to know
that they are right, is kept: the size of each frame and the leaves of each chunk, 20 bytes per MiB of stream. The level is a
number, or changes on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from ..codecs.base import Codec, Encoder
from ..errors import CodecError
from ..format.digest import leaves_of
from ..format.frames import FrameTable
from ..format.levels import LevelUse
from ..types import Buffer, DurableSink, Source
from .adaptive import AutoLevel
from .bufpool import BufferPool, slot_count
from .gate import Gate
from .stages import Pipeline


class Compression(Pipeline):
    """Compresses ``source`` into ``sink`` as one payload of ``codec``.

    ``observe`` sees every chunk, in order, in the reader's thread, before it is compressed. ``trailer`` is called in the
    writer's thread when all frames are written, ``frames`` and ``leaves`` are complete; what it returns follows the payload.
    """

    sink: DurableSink

    def __init__(
        self,
        source: Source,
        sink: DurableSink,
        codec: Codec,
        *,
        level: int | AutoLevel,
        threads: int,
        observe: Callable[[memoryview], None],
        trailer: Callable[[], Buffer] = bytes,
        gate: Gate | None = None,
    ) -> None:
        # A slot is a chunk followed by the room for its frame.
        self._chunk_size = codec.chunk_size
        slot_size = self._chunk_size + codec.bound(self._chunk_size)
        super().__init__(source, sink, BufferPool(slot_count(threads), slot_size), threads, gate)
        self._codec = codec
        self._level = level
        self._observe = observe
        self._trailer = trailer
        self.frames = FrameTable(codec.chunk_size, payload_start=len(codec.prologue))
        """The frames that are written."""
        self.leaves = bytearray()
        """The leaves of the chunks whose frames are written."""

    @property
    def levels(self) -> tuple[LevelUse, ...]:
        """What was compressed at which level, once all is; nothing where the codec has none."""
        if isinstance(self._level, AutoLevel):
            return self._level.uses()
        whole = LevelUse(self._level, len(self.frames), self.stats.bytes_in, sum(self.frames.sizes))
        return (whole,) if self._codec.levels else ()

    def _read(self) -> None:
        stats, chunk_size = self.stats, self._chunk_size
        size = chunk_size
        while size == chunk_size:
            slot = self._take_free()
            began = perf_counter()
            size = self.source.readinto(slot.view[:chunk_size])
            stats.read_s += perf_counter() - began
            if size:
                slot.number, slot.offset, slot.size = stats.frame_count, stats.bytes_in, size
                self._observe(slot.view[:size])
                stats.frame_count += 1
                stats.bytes_in += size
                self._publish(slot)
        self._end_input()

    def _code(self) -> None:
        encoder = self._encoder()
        while slot := self._take_work():
            chunk, room = slot.view[: slot.size], slot.view[self._chunk_size :]
            slot.leaves = leaves_of(chunk)
            try:
                slot.parts = encoder.encode(chunk, room)
            except Exception as error:
                raise CodecError(
                    f"{self._codec.name} failed to compress chunk {slot.number} (stream offset {slot.offset}):"
                    f" {str(error) or type(error).__name__}"
                ) from error
            self._deliver(slot)

    def _encoder(self) -> Encoder:
        if isinstance(self._level, AutoLevel):
            return self._level.encoder(lambda: len(self._work), self.stats)
        return self._codec.encoder(self._level)

    def _write(self) -> None:
        self._put([self._codec.prologue])
        while slots := self._take_output():
            parts: list[Buffer] = []
            for slot in slots:
                frame = slot.parts or ()
                parts += frame
                self.frames.sizes.append(sum(len(part) for part in frame))
                self.leaves += slot.leaves
            self._put(parts)
            self._recycle(slots)
        self._put([self._codec.epilogue])
        self.frames.stream_size = self.stats.bytes_in
        self.sink.write([self._trailer()])
        began = perf_counter()
        self.sink.flush()  # here, not in the commit: a disk takes its time, and in this thread it does not keep the guest
        self.stats.write_s += perf_counter() - began
