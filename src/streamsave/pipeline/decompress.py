"""Payload to stream: reader (frames) --> decoders (chunks) --> writer (in order).

The reader finds the frames without decoding them. Where an index tells the places of all, and any part of the source can
be had, it only hands these out, and each worker reads its own frames: no copy more, as many reads at a time as workers.
Of what another program wrote the codec's reframer makes frames for the same decoders, and has a say in the writer too. Where
that does not go either, the reader becomes the sequential decoder itself and fills the slots with decoded bytes, of what
one thread more reads meanwhile. Order, bounds and endings stay the same.
Where the image has an index, that is the word on where the frames are and what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from time import perf_counter

from ..codecs.base import Codec, DecodeError, NotFramed, OversizedError, Reframer, StreamReader, TruncatedError
from ..errors import CodecError, CorruptImageError, ImageError, SourceError, StreamsaveError, TruncatedImageError
from ..format.frames import FrameTable
from ..format.index import Index
from ..types import Buffer, RandomSource, Sink, Source
from .bufpool import BufferPool, Slot, slot_count
from .gate import Gate, GateClosed
from .payload import Payload
from .read_ahead import ReadAhead
from .stages import Pipeline


class Decompression(Pipeline):
    """Decompresses ``source``, a payload of ``codec``, into ``sink``.

    ``observe`` sees every chunk, in order, in the writer's thread, before it is written. ``index`` is the payload's, where
    there is one: a frame that disagrees with it is an error. ``path`` and ``payload_offset`` are for error messages only.
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        codec: Codec,
        *,
        threads: int,
        observe: Callable[[memoryview], None],
        path: Path,
        payload_offset: int,
        index: Index | None = None,
        gate: Gate | None = None,
    ) -> None:
        # A slot is a frame followed by the room for its chunk.
        chunk_size = index.frames.chunk_size if index else codec.chunk_size
        self._frame_room = codec.bound(chunk_size)
        super().__init__(source, sink, BufferPool(slot_count(threads), self._frame_room + chunk_size), threads, gate)
        self._codec = codec
        self._observe = observe
        self._path = path
        self._payload_offset = payload_offset
        self._payload = Payload(source, self.stats)
        self._index = index
        self._random = source if index and isinstance(source, RandomSource) else None
        """What each worker reads its own frames from, where it is known where they are."""
        self._splitter = codec.splitter()
        self._reframer: Reframer | None = None
        """Makes and settles the frames, since they are not ours."""
        self._oversized = False
        """A frame was larger than a chunk of ours."""
        self._foreign = False
        """Frames are no longer ours, or there are none."""

    # -- the reader ---------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_with(self._indexed(self._index.frames) if self._index else self._split())
        except NotFramed:
            self._read_foreign()
        self._end_input()

    def _read_with(self, next_frame: Callable[[memoryview], int]) -> None:
        """Publish frame after frame. ``next_frame`` writes one to where it is told and returns its size, 0 at the end."""
        while True:
            slot = self._take_free()
            slot.number, slot.offset = self.stats.frame_count, self._payload.position
            try:
                slot.size = next_frame(slot.view[: self._frame_room])
            except NotFramed:
                self._recycle([slot])
                raise
            except DecodeError as error:
                return self._publish_error(slot, error)
            if not slot.size:
                return None
            self.stats.frame_count += 1
            self._publish(slot)

    def _indexed(self, frames: FrameTable) -> Callable[[memoryview], int]:
        """The next frame by the index. What stands before and behind the frames is the codec's."""
        sizes = iter(frames.sizes)
        take = self._payload.leave if self._random else self._payload.readinto

        def next_frame(view: memoryview) -> int:
            size = next(sizes, None)
            if size is None:
                take(memoryview(bytearray(len(self._codec.epilogue))))
                return 0
            if not 0 < size <= len(view):
                raise DecodeError(f"in the index it has {size} bytes, and no frame has")
            if take(view[:size]) < size:
                raise TruncatedError("the file ends inside it")
            return size

        take(memoryview(bytearray(frames.payload_start)))
        return next_frame

    def _split(self) -> Callable[[memoryview], int]:
        """The next frame by the splitter. Of a prologue behind which there are no frames nothing is lost."""
        payload, codec = self._payload, self._codec

        def next_frame(view: memoryview) -> int:
            have = size = 0
            try:
                while True:
                    if payload.ended and view[:have] == codec.epilogue:
                        return 0
                    if have and size <= 0:
                        size = self._splitter.frame_size(view[:have], final=payload.ended)
                    if size > len(view) or self._oversized:
                        raise NotFramed
                    if 0 < size <= have:
                        payload.unread(view[size:have])
                        return size
                    if payload.ended:
                        raise TruncatedError("the file ends inside it")
                    wanted = size if size > 0 else min(max(have + codec.probe_size, -size), len(view))
                    if wanted == have:
                        raise NotFramed
                    have += payload.readinto(view[have:wanted])
            except NotFramed:
                payload.unread(view[:have])
                raise

        if codec.prologue:
            head = memoryview(bytearray(codec.probe_size))
            head = head[: payload.readinto(head)]
            payload.unread(head)
            payload.readinto(head[: codec.prologue_size(head)])
        return next_frame

    def _read_foreign(self) -> None:
        """What the splitter does not know."""
        self._foreign = True
        if reframer := self._codec.reframer(self._payload.read):
            self._resize_slots(reframer.frame_bound + reframer.chunk_bound)
            self._frame_room = reframer.frame_bound
            self._reframer = reframer
            try:
                return self._read_with(reframer.next_frame)
            except NotFramed:
                self._payload.unread(reframer.rest)
        return self._read_sequentially()

    def _read_sequentially(self) -> None:
        """Decode what is left of the payload in this thread; another one reads it."""
        self.stats.parallel = False
        ahead = ReadAhead(self._payload, self._gate)
        self._start("read-ahead", ahead.run)
        try:
            self._decode(self._codec.stream_reader(ahead.read), ahead)
        finally:
            ahead.stop()

    def _decode(self, reader: StreamReader, ahead: ReadAhead) -> None:
        """All that ``reader`` makes of what ``ahead`` reads."""
        size = chunk_size = self._codec.chunk_size
        while size == chunk_size:
            slot = self._take_free()
            slot.offset = ahead.position
            room = slot.view[self._frame_room :][:chunk_size]
            try:
                size = reader.readinto(room)
            except DecodeError as error:
                return self._publish_error(slot, error)
            except (GateClosed, SourceError):
                raise
            except Exception as error:
                raise self._failed(error, slot) from error
            slot.parts = [room[:size]]
            self._publish(slot, coded=True)
        return None

    def _publish_error(self, slot: Slot, error: DecodeError) -> None:
        """The writer raises it, when all that is before it in the stream is written."""
        slot.parts = _failing(error)
        self._publish(slot, coded=True)

    # -- the others ---------------------------------------------------------------------------------------------------

    def _code(self) -> None:
        decoder = self._codec.decoder()
        while slot := self._take_work():
            frame, room = slot.view[: slot.size], slot.view[self._frame_room :]
            chunk: Buffer | DecodeError
            try:
                if self._random:
                    self._fetch(slot, frame, self._random)
                chunk = decoder.decode(frame, room)
                if self._index and (objection := self._index.objection(slot.number, memoryview(chunk))):
                    raise DecodeError(objection)
            except DecodeError as error:
                chunk = error
            except StreamsaveError:
                raise  # the payload cannot be read
            except Exception as error:
                raise self._failed(error, slot) from error
            slot.parts = self._reframer.settle(frame, chunk) if self._reframer else self._settle(frame, chunk)
            self._deliver(slot)

    def _fetch(self, slot: Slot, frame: memoryview, source: RandomSource) -> None:
        """Read the frame, of which the reader only said where it is."""
        began = perf_counter()
        got = source.readinto_at(frame, slot.offset)
        slot.read_s = perf_counter() - began
        if got < len(frame):
            raise TruncatedError("the file ends inside it")

    def _settle(self, frame: memoryview, chunk: Buffer | DecodeError) -> Iterable[Buffer]:
        """As a ``Reframer`` does, for frames that the splitter found: lazily, so in the writer's thread."""
        if isinstance(chunk, OversizedError) and not self._index:
            self._oversized = True
            yield from self._pieces_of(frame)
        elif isinstance(chunk, DecodeError):
            raise chunk
        else:
            yield chunk

    def _pieces_of(self, frame: memoryview) -> Iterable[Buffer]:
        """The chunk of a frame that is too large for a slot."""
        with BytesIO(frame) as file:
            reader = self._codec.stream_reader(file.read)
            piece = memoryview(bytearray(self._codec.chunk_size))
            while size := reader.readinto(piece):
                yield piece[:size]

    def _write(self) -> None:
        slot = None
        try:
            while slots := self._take_output():
                for slot in slots:
                    if self._random:
                        self.stats.read_s += slot.read_s
                    self._put_each(slot.parts or ())
                self._recycle(slots)
            self._put_each(self._reframer.finish() if self._reframer else ())
        except DecodeError as error:
            raise self._damaged(error, slot) from error

    def _put_each(self, parts: Iterable[Buffer]) -> None:
        for part in parts:
            self._observe(memoryview(part))
            self._put([part])

    def _failed(self, error: Exception, slot: Slot) -> CodecError:
        """A codec may say of a frame that it is damaged; anything else is its own trouble."""
        where = f"at offset {self._payload_offset + slot.offset}"
        return CodecError(f"{self._path}: {self._codec.name} failed to decompress the payload {where}: {error!r}")

    def _damaged(self, error: DecodeError, slot: Slot | None) -> ImageError:
        kind, what = damage_of(error)
        offset = self._payload_offset + (slot.offset if slot else self._payload.position)
        frame = slot.number if slot and not self._foreign else -1
        where = f"near offset {offset}" if frame < 0 else f"in frame {frame} at offset {offset}"
        message = f"{self._path}: the {self._codec.name} payload {what} {where}: {error}"
        return kind(message, path=self._path, offset=offset, frame=frame, good_size=self.stats.bytes_out)


def damage_of(error: DecodeError) -> tuple[type[ImageError], str]:
    """What ``error`` says of the image: the class of error, and a verb for the payload."""
    if isinstance(error, TruncatedError):
        return TruncatedImageError, "ends too early"
    return CorruptImageError, "is damaged"


def _failing(error: DecodeError) -> Iterable[Buffer]:
    yield from ()
    raise error
