"""Sequential decoding of a payload that is members back to back, each with its own start and end, as gzip's.

The decoders of single members are the libraries' (those that have the interface of ``bz2.BZ2Decompressor``). What may stand
between and behind members differs from tool to tool: that is the one question a subclass answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from ..types import Buffer
from ..units import KiB
from .base import ReadBytes, TruncatedError, damage

_PIECE_SIZE = 64 * KiB


class MemberDecoder(Protocol):
    """Decodes one member; the interface of ``bz2.BZ2Decompressor``."""

    @property
    def eof(self) -> bool:
        """The member ended, and its checksums hold."""

    @property
    def needs_input(self) -> bool:
        """There is no output without more input."""

    @property
    def unused_data(self) -> bytes:
        """What was fed beyond the end of the member."""

    def decompress(self, data: Buffer, max_length: int, /) -> bytes:
        """The next ``max_length`` bytes at most; what is left of ``data`` is kept inside."""


class MemberReader(ABC):
    """A ``StreamReader`` over members. ``errors`` are what the library raises for damaged input."""

    def __init__(
        self, read: ReadBytes, new_decoder: Callable[[], MemberDecoder], errors: tuple[type[Exception], ...]
    ) -> None:
        self._read = read
        self._new_decoder = new_decoder
        self._errors = errors
        self._member: MemberDecoder | None = None
        self._ahead = b""
        self._started = False
        """Whether there was a member."""

    @abstractmethod
    def _next_starts(self) -> bool:
        """Whether another member starts here; otherwise the payload ends. Looks with ``_peek``.

        Raises:
            DecodeError: neither is the case.

        """

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``, see ``StreamReader``. Never decodes more than fits, whatever the payload holds."""
        filled = 0
        while filled < len(view):
            if self._member is None:
                if not self._next_starts():
                    break
                self._member = self._new_decoder()
                self._started = True
            data = self._decode(self._member, len(view) - filled)
            view[filled : filled + len(data)] = data
            filled += len(data)
            if self._member.eof:
                self._ahead = self._member.unused_data
                self._member = None
        return filled

    def _decode(self, member: MemberDecoder, size: int) -> bytes:
        piece: Buffer = b""
        if member.needs_input:
            piece = self._take()
            if not piece:
                raise TruncatedError("the compressed data end in the middle")
        try:
            return member.decompress(piece, size)
        except self._errors as error:
            raise damage(error, "the compressed stream") from error

    def _peek(self, size: int) -> bytes:
        """The next ``size`` bytes at least, without taking them; fewer only at the end of the payload."""
        while len(self._ahead) < size and (more := self._read(_PIECE_SIZE)):
            self._ahead += bytes(more)
        return self._ahead

    def _take(self) -> Buffer:
        """The next bytes, as many as there are; empty only at the end of the payload."""
        ahead, self._ahead = self._ahead, b""
        return ahead or self._read(_PIECE_SIZE)
