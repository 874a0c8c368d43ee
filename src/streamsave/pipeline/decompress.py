"""Payload to stream: reader (frames) --> decoders (chunks) --> writer (in order).

The reader finds the frames without decoding them. Where it cannot (an image that another program wrote in one piece), it
becomes the sequential decoder itself and fills the slots with decoded bytes; order, bounds and endings stay the same.
Where the image has an index, that is the word on where the frames are and what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from ..codecs.base import Codec, DecodeError, NotFramed, TruncatedError
from ..errors import CorruptImageError, ImageError, TruncatedImageError
from ..format.digest import leaves_of
from ..format.frames import FrameTable
from ..format.index import Index
from ..types import Buffer, Sink, Source
from .bufpool import BufferPool, Slot, slot_count
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
    ) -> None:
        # A slot is a frame followed by the room for its chunk.
        chunk_size = index.frames.chunk_size if index else codec.chunk_size
        self._frame_room = codec.bound(chunk_size)
        super().__init__(source, sink, BufferPool(slot_count(threads), self._frame_room + chunk_size), threads)
        self._codec = codec
        self._observe = observe
        self._path = path
        self._payload_offset = payload_offset
        self._splitter = codec.splitter()
        self._ahead = b""
        """What was read beyond the last frame."""
        self._source_ended = False
        self._index = index

    def _read(self) -> None:
        try:
            if self._index:
                self._read_indexed(self._index.frames)
            else:
                self._read_frames()
        except NotFramed:
            self.stats.parallel = False
            self._read_sequentially()
        self._end_input()

    def _read_indexed(self, frames: FrameTable) -> None:
        """Straight into the slots, a frame at a time. What stands before, between and behind the frames is the codec's."""
        stats, offset = self.stats, frames.payload_start
        self._fill(memoryview(bytearray(offset)))
        for size in frames.sizes:
            slot = self._take_free()
            slot.number, slot.offset, slot.size = stats.frame_count, offset, size
            if size > self._frame_room:
                raise self._damaged(DecodeError(f"{size} bytes are too many for a frame"), self._where(slot))
            if self._fill(slot.view[:size]) < size:
                raise self._truncated(slot)
            offset += size
            stats.frame_count += 1
            self._publish(slot)

    def _read_frames(self) -> None:
        stats, offset = self.stats, self._skip_prologue()
        while True:
            slot = self._take_free()
            slot.number, slot.offset = stats.frame_count, offset
            slot.size = self._read_frame(slot)
            if not slot.size:
                return
            offset += slot.size
            stats.frame_count += 1
            self._publish(slot)

    def _skip_prologue(self) -> int:
        """Its size. Of a prologue behind which there are no frames nothing is lost."""
        if not self._codec.prologue:
            return 0
        head = memoryview(bytearray(self._codec.probe_size))
        self._ahead = bytes(head[: self._fill(head)])
        size = self._codec.prologue_size(memoryview(self._ahead))
        self._ahead = self._ahead[size:]
        return size

    def _read_frame(self, slot: Slot) -> int:
        """One whole frame into ``slot``; its size, 0 at the end of the payload. What lies ahead of it is kept."""
        view = slot.view[: self._frame_room]
        have = len(self._ahead)
        view[:have] = self._ahead
        size = 0
        while True:
            if self._source_ended and view[:have] == self._codec.epilogue:
                return 0
            if have and not size:
                try:
                    size = self._splitter.frame_size(view[:have], final=self._source_ended)
                    if size > len(view):
                        raise NotFramed
                except NotFramed:
                    self._ahead = bytes(view[:have])
                    raise
            if size and size <= have:
                self._ahead = bytes(view[size:have])
                return size
            if self._source_ended:
                raise self._truncated(slot)
            wanted = size or min(have + self._codec.probe_size, len(view))
            if wanted == have:
                self._ahead = bytes(view)
                raise NotFramed
            have += self._fill(view[have:wanted])

    def _fill(self, view: memoryview) -> int:
        """From the source into ``view``; short at the end of the payload."""
        began = perf_counter()
        got = self.source.readinto(view)
        self.stats.read_s += perf_counter() - began
        self.stats.bytes_in += got
        self._source_ended = got < len(view)
        return got

    def _read_sequentially(self) -> None:
        """Decode what is left of the payload in this thread."""
        reader = self._codec.stream_reader(self._read_bytes)
        produced = 0
        size = self._codec.chunk_size
        while size == self._codec.chunk_size:
            slot = self._take_free()
            room = slot.view[self._frame_room :]
            try:
                size = reader.readinto(room)
            except DecodeError as error:
                consumed = self._payload_offset + self.stats.bytes_in
                raise self._damaged(error, f"near offset {consumed}, {produced} bytes of the stream are good") from error
            produced += size
            slot.parts = [room[:size]]
            self._publish(slot, coded=True)

    def _read_bytes(self, size: int) -> Buffer:
        """Compressed bytes for the sequential decoder: what was read ahead, then the source."""
        if self._ahead:
            ahead, self._ahead = self._ahead[:size], self._ahead[size:]
            return ahead
        data = memoryview(bytearray(size))
        return data[: self._fill(data)]

    def _code(self) -> None:
        decoder = self._codec.decoder()
        while slot := self._take_work():
            room = slot.view[self._frame_room :]
            try:
                chunk = decoder.decode(slot.view[: slot.size], room)
                if self._index:
                    _check_chunk(memoryview(chunk), self._index, slot.number)
            except DecodeError as error:
                raise self._damaged(error, self._where(slot)) from error
            slot.parts = [chunk]
            self._deliver(slot)

    def _write(self) -> None:
        while slots := self._take_output():
            parts = [part for slot in slots for part in slot.parts or ()]
            for part in parts:
                self._observe(memoryview(part))
            self._put(parts)
            self._recycle(slots)

    def _where(self, slot: Slot) -> str:
        return f"in frame {slot.number} at offset {self._payload_offset + slot.offset}"

    def _damaged(self, error: DecodeError, where: str) -> ImageError:
        kind, what = (
            (TruncatedImageError, "ends too early")
            if isinstance(error, TruncatedError)
            else (CorruptImageError, "is damaged")
        )
        return kind(f"{self._path}: the {self._codec.name} payload {what} {where}: {error}", path=self._path)

    def _truncated(self, slot: Slot) -> TruncatedImageError:
        offset = self._payload_offset + slot.offset
        return TruncatedImageError(
            f"{self._path}: the file ends inside frame {slot.number}, which starts at offset {offset}",
            path=self._path,
            offset=offset,
        )


def _check_chunk(chunk: memoryview, index: Index, number: int) -> None:
    """``chunk`` is the one that was saved in frame ``number``; or DecodeError."""
    if len(chunk) != index.frames.chunk_size_of(number):
        raise DecodeError(f"a chunk of {len(chunk)} bytes instead of the {index.frames.chunk_size_of(number)} in the index")
    if leaves_of(chunk) != index.leaves_of_frame(number):
        raise DecodeError("it decodes to other bytes than were saved: its digest is not the one in the index")
