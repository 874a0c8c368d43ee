"""Text from outside, made fit for a terminal: what it would obey is shown instead of sent."""

from __future__ import annotations

import codecs


def escape(text: str, *, keep: str = "") -> str:
    r"""``text`` with everything that is not printable as ``\x1b`` or ``\u202e``, but for the characters in ``keep``.

    That goes for controls, invisible and direction-changing characters, and bytes that were no UTF-8 (``\udc80`` and up).
    """
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


class PrintableBytes:
    """Makes pieces of a stream of bytes printable, one after the other; characters may go over several pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def escape(self, data: bytes) -> bytes:
        """``data`` without what a terminal obeys, but for line ends and tabs."""
        return escape(self._decoder.decode(data), keep="\n\t").encode()


def _escaped(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
