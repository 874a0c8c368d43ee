"""What a codec is: buffer -> frame -> buffer.

A **chunk** is a piece of the migration stream, a **frame** one chunk compressed on its own, and a codec promises that
``prologue + frames + epilogue`` is a file that its stock tool decodes to the chunks, one after the other.
Behind it may stand a **carrier**: bytes of our own in a shape that the stock tool skips with exit status 0.
A codec knows no files, threads or images. Encoders and decoders belong to the thread that made them and are never shared.
They write into the room that the caller gives, where the library can: no memory is made, moved or freed while all other
threads wait for the interpreter. What they return is never changed by the next call.

Every codec obeys ``tests/contract/test_codec.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Protocol

from ..errors import UsageError
from ..format.frames import FrameTable
from ..resources import is_lack_of_memory
from ..types import Buffer
from ..units import MiB


class Encoder(Protocol):
    """Compresses chunks, one after the other, in one thread."""

    def encode(self, chunk: memoryview, room: memoryview) -> Sequence[Buffer]:
        """The frame of ``chunk`` as parts to be written one after the other; ``bound(len(chunk))`` bytes at most.

        A part is new memory, or a view of ``chunk`` or ``room``, which has ``bound(len(chunk))`` bytes or more. The caller
        keeps both until the frame is written.
        """


class Decoder(Protocol):
    """Decompresses whole frames, one after the other, in one thread."""

    def decode(self, frame: memoryview, room: memoryview) -> Buffer:
        """The chunk of ``frame``, complete and checked, in new memory or as a view of ``frame`` or of ``room``.

        Raises:
            OversizedError: the chunk is, or may be, larger than ``room``.
            DecodeError: the frame is damaged, cut or followed by other bytes.

        """


class DecodeError(ValueError):
    """Compressed bytes do not decode. The pipeline turns it into a ``CorruptImageError`` that names frame and offset."""


class TruncatedError(DecodeError):
    """The compressed bytes end before the compressed stream does."""


class OversizedError(DecodeError):
    """A frame decodes to more than there is room for."""


def damage(error: Exception, what: str) -> DecodeError:
    """What a library's ``error`` tells of the bytes that it was given, which are ``what``.

    Raises:
        MemoryError: it tells that memory ran out, and nothing of them.

    """
    if is_lack_of_memory(error):
        raise MemoryError(str(error)) from error
    return DecodeError(f"{what} is damaged: {error}")


class NotFramed(Exception):
    """What follows cannot be split into frames that fit the slots: only a sequential ``StreamReader`` decodes it."""


class Splitter(Protocol):
    """Finds where frames end without decoding them. One per payload; it may remember how far it looked."""

    def frame_size(self, view: memoryview, *, final: bool) -> int:
        """The size of the frame at the start of ``view``; 0: more bytes are needed to tell (never when ``final``).

        Where it is known how many bytes that takes at the least, they are the result, negated. The size may exceed
        ``len(view)``: then the frame goes on behind it. ``view`` is never empty, and starts at the same byte until a size
        was returned. ``final``: the payload ends with ``view``.

        Raises:
            NotFramed: no frame that we could find here, or one too large for a slot.

        """


class StreamReader(Protocol):
    """Decodes a payload of any shape that the stock tool accepts, from its start to its end, in one thread."""

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` with decoded bytes; short only at the well-formed end, 0 after it.

        Raises:
            DecodeError: damaged; ``TruncatedError``: the payload ends inside the compressed stream.

        """


class Reframer(Protocol):
    """Makes frames of a payload that another program wrote, as far as that goes without decoding it.

    Where that program left no sizes, frames are a guess. Two threads share one: the reader asks for frames, which workers
    decode in any order, and the writer settles them in order, which is where a wrong guess shows and is put right.
    """

    frame_bound: int
    """The largest frame, in bytes."""
    chunk_bound: int
    """The room that a frame is decoded into, in bytes."""

    @property
    def rest(self) -> bytes:
        """What was read and is in no frame, once ``NotFramed`` was raised."""

    def next_frame(self, room: memoryview) -> int:
        """Write the next frame, which the codec's ``Decoder`` takes, to ``room``; its size, 0 at the end of the payload.

        Raises:
            NotFramed: what follows, beginning with ``rest``, is for a ``StreamReader``.
            DecodeError: damaged.

        """

    def settle(self, frame: memoryview, chunk: Buffer | DecodeError) -> Iterable[Buffer]:
        """The next bytes of the stream, given the next frame and what became of it; may be lazy, may be nothing.

        What it gives is borrowed until the next is asked for.

        Raises:
            DecodeError: damaged.

        """

    def finish(self) -> Iterable[Buffer]:
        """The last bytes of the stream, if any are left when all frames are settled.

        Raises:
            TruncatedError: the payload ended too early.
            DecodeError: damaged.

        """


ReadBytes = Callable[[int], Buffer]
"""``read(n)``: up to ``n`` compressed bytes, empty only at the end of the payload; borrowed until the next call."""


class Codec(ABC):
    """One compression format. Instances are stateless and shared; subclasses set the class attributes."""

    name: ClassVar[str]
    """libvirt's word where it has one, else the stock tool's name: 24 ASCII characters at most, for images carry it."""
    number: ClassVar[int | None]
    """libvirt's format number, None for formats that libvirt does not have."""
    summary: ClassVar[str]
    """One line for ``formats`` and the documentation: what it is good for."""
    magic: ClassVar[bytes] = b""
    """What a payload of the stock tool starts with."""
    levels: ClassVar[range] = range(0)
    """The stock tool's levels; empty: there are none."""
    default_level: ClassVar[int] = 0
    tool_level: ClassVar[int] = 0
    """What the stock tool does without an option."""
    chunk_size: ClassVar[int] = 1 * MiB
    probe_size: ClassVar[int] = 64
    """How many bytes a splitter wants to see at a time: a frame's header, or a window to search."""
    detects_damage: ClassVar[bool] = True
    """Whether a frame carries what it takes to see that a bit of it was flipped."""
    tells_its_end: ClassVar[bool] = True
    """Whether a decoder sees where the payload ends, though something follows."""
    verbatim: ClassVar[bool] = False
    """Whether a payload is the stream itself, so that any place of it is where it is."""
    tool: ClassVar[tuple[str, ...]] = ()
    """The stock tool's name and options that compress standard input to standard output; empty: none."""
    tool_decode_options: ClassVar[tuple[str, ...]] = ("-dc",)
    """The stock tool's options that decompress standard input to standard output; libvirt's where it has the format."""
    needs_zeros: ClassVar[bool] = False
    """Whether, on a device that goes on behind a payload, only zeros may stand there: see ``cover``."""
    prologue: ClassVar[bytes] = b""
    epilogue: ClassVar[bytes] = b""

    @abstractmethod
    def encoder(self, level: int) -> Encoder:
        """A new encoder for the calling thread. ``level`` was accepted by ``check_level``."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """A new decoder for the calling thread."""

    @abstractmethod
    def splitter(self) -> Splitter:
        """A new splitter for one payload."""

    @abstractmethod
    def stream_reader(self, read: ReadBytes) -> StreamReader:
        """A new sequential decoder over what ``read`` gives: a payload from its start, or from behind one of its frames."""

    def prologue_size(self, view: memoryview) -> int:
        """How long the prologue is that ``view`` starts with: ``prologue``, or another that the stock tool may write.

        ``view`` has ``probe_size`` bytes, or is the whole payload.

        Raises:
            NotFramed: none behind which a splitter would find frames.

        """
        if view[: len(self.prologue)] != self.prologue:
            raise NotFramed
        return len(self.prologue)

    def reframer(self, read: ReadBytes) -> Reframer | None:  # noqa: ARG002
        """A new reframer over what ``read`` gives, as for ``stream_reader``; None: there is nothing that it could do."""
        return None

    def allowing(self, max_window: int) -> Codec:  # noqa: ARG002
        """The same codec, for payloads that refer back by up to ``max_window`` bytes, and take that memory to decode.

        Here: formats that have a bound of their own.
        """
        return self

    @abstractmethod
    def bound(self, size: int) -> int:
        """The largest frame, in bytes, that a chunk of ``size`` bytes becomes at any level, and the room to make it in."""

    def carry(self, data: bytes, frames: FrameTable) -> bytes:  # noqa: ARG002
        """A carrier of ``data``, any number of bytes, for a payload of ``frames``. Here: ``data`` as they are."""
        return data

    def uncarry(self, carrier: bytes) -> bytes:
        """What ``carry`` was given.

        Raises:
            DecodeError: this is no carrier, or not all of one.

        """
        return carrier

    def cover(self, size: int) -> Iterator[tuple[int, bytes]]:  # noqa: ARG002
        """What to write, at which offsets, so that the stock tool skips the ``size`` bytes behind a payload and its carrier.

        The bytes in between are any, but zeros for a codec that ``needs_zeros``. Here: nothing is needed.

        Raises:
            ValueError: ``size`` is too small for that, and not 0.

        """
        return iter(())

    def check_level(self, level: int | None) -> int:
        """``level``, or the default for None.

        Raises:
            UsageError: this codec has no such level; the message names those it has.

        """
        if level is None:
            return self.default_level
        if not self.levels:
            raise UsageError(f"format {self.name} has no levels, but level {level} was asked for: leave the level out")
        if level not in self.levels:
            raise UsageError(
                f"format {self.name} has levels {self.levels[0]} to {self.levels[-1]}, not {level}: choose one of these"
            )
        return level

    @property
    def tool_decode(self) -> tuple[str, ...]:
        """The stock tool's command that decompresses standard input to standard output."""
        return (*self.tool[:1], *self.tool_decode_options)

    def tool_command(self, level: int | None = None) -> tuple[str, ...]:
        """The stock tool's command that compresses standard input to standard output."""
        return self.tool if level is None else (*self.tool, f"-{level}")
