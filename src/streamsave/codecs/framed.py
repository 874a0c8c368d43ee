"""What reframers share, and sequential reading by way of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..types import Buffer
from .base import DecodeError, Decoder, Reframer


class SureFrames:
    """The writer's half of a reframer whose frames are none of them a guess."""

    def settle(self, frame: memoryview, chunk: Buffer | DecodeError) -> Iterator[Buffer]:  # noqa: ARG002
        """See ``Reframer``: the chunk, or the error."""
        if isinstance(chunk, DecodeError):
            raise chunk
        yield chunk

    def finish(self) -> Iterable[Buffer]:
        """See ``Reframer``: nothing is left."""
        return ()


class FrameReader:
    """A ``StreamReader`` over the frames of a reframer that never raises ``NotFramed``.

    One thread does what the pipeline's reader, decoder and writer do.
    """

    def __init__(self, reframer: Reframer, decoder: Decoder) -> None:
        self._chunks = self._decode(reframer, decoder)
        self._chunk = memoryview(b"")
        """What is left of the last one."""

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``."""
        filled = 0
        while filled < len(view):
            if not self._chunk:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._chunk = memoryview(chunk)
            size = min(len(view) - filled, len(self._chunk))
            view[filled : filled + size] = self._chunk[:size]
            self._chunk = self._chunk[size:]
            filled += size
        return filled

    def _decode(self, reframer: Reframer, decoder: Decoder) -> Iterator[Buffer]:
        frame = memoryview(bytearray(reframer.frame_bound))
        room = memoryview(bytearray(reframer.chunk_bound))
        while size := reframer.next_frame(frame):
            chunk: Buffer | DecodeError
            try:
                chunk = decoder.decode(frame[:size], room)
            except DecodeError as error:
                chunk = error
            yield from reframer.settle(frame[:size], chunk)
        yield from reframer.finish()
