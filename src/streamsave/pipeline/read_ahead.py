"""A payload that one thread reads while another decodes what was read before.

A few buffers go round between the two: nothing is copied, and no more is read ahead than they hold.
"""

from __future__ import annotations

from collections import deque

from ..errors import SourceError
from ..types import Buffer
from ..units import KiB
from .gate import Gate
from .payload import Payload

PIECE_SIZE = 256 * KiB
PIECE_COUNT = 4
"""One that is read, one that is decoded, and two between them."""


class ReadAhead:
    """What is left of ``payload``. One thread is in ``run()``, another calls the rest."""

    def __init__(self, payload: Payload, gate: Gate) -> None:
        self.position = payload.position
        """How many bytes are in front of the next one that ``read`` gives."""
        self._payload = payload
        self._gate = gate
        self._emptied = gate.condition()
        self._filled = gate.condition()
        self._empty = deque(memoryview(bytearray(PIECE_SIZE)) for _ in range(PIECE_COUNT))
        self._full: deque[memoryview] = deque()
        """In order; what is short is the last."""
        self._ended = False
        """Nothing more becomes full, or nobody wants it."""
        self._error: SourceError | None = None
        """Why there is no more."""
        self._buffer: memoryview | None = None
        """Whose bytes are given out."""
        self._left = memoryview(b"")
        """Those that were not yet."""

    def run(self) -> None:
        """Read, until the payload ends or cannot be read, which is told where it is missed, or ``stop()``.

        Raises:
            GateClosed: the pipeline ended.

        """
        size = PIECE_SIZE
        while size == PIECE_SIZE:
            with self._gate.lock:
                self._gate.wait(self._emptied, lambda: self._empty or self._ended)
                if self._ended:
                    return
                buffer = self._empty.popleft()
            try:
                size = self._payload.readinto(buffer)
            except SourceError as error:
                self._error = error  # perhaps behind the last byte that the codec asks for
                self.stop()
                return
            with self._gate.lock:
                self._full.append(buffer[:size])
                self._ended = self._ended or size < PIECE_SIZE
                self._filled.notify()

    def read(self, size: int) -> Buffer:
        """See ``codecs.base.ReadBytes``; also raises ``GateClosed``, and ``SourceError`` behind what could be read."""
        if not self._left:
            self._left = self._next()
        piece, self._left = self._left[:size], self._left[size:]
        self.position += len(piece)
        return piece

    def stop(self) -> None:
        """Nothing more is wanted, or to be had."""
        with self._gate.lock:
            self._ended = True
            self._emptied.notify()
            self._filled.notify()

    def _next(self) -> memoryview:
        """The next buffer that is full, for the one that was given out; empty at the end."""
        with self._gate.lock:
            if self._buffer is not None:
                self._empty.append(self._buffer)
                self._buffer = None
                self._emptied.notify()
            self._gate.wait(self._filled, lambda: self._full or self._ended)
            if self._full:
                self._buffer = piece = self._full.popleft()
                return piece
        if self._error is not None:
            raise self._error
        return memoryview(b"")
