"""A connected stream socket as a source and as a sink: our end of the migration."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from ..errors import DestinationError, SourceError
from ..types import Buffer
from .gather import read_all, write_all


class _Socket:
    """Owns ``sock``. ``shutdown()`` is what wakes a call that is blocked in it: ``close()`` does not."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def abort(self) -> None:
        """Wake whoever is blocked in the socket, on both sides of it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more, or closed: nobody can be blocked in it

    def close(self) -> None:
        """Close the socket. May be called twice."""
        self._sock.close()


class SocketSource(_Socket):
    """Reads until the other side closes."""

    def readinto(self, view: memoryview) -> int:
        """See ``Source``. The kernel fills the whole view in one call as long as the other side goes on writing."""
        try:
            return read_all(lambda rest: self._sock.recv_into(rest, 0, socket.MSG_WAITALL), view)
        except OSError as error:
            raise SourceError(f"reading the migration socket failed: {error}") from error


class SocketSink(_Socket):
    """Writes; ``close()`` is the end of the stream for the other side."""

    def write(self, parts: Sequence[Buffer]) -> None:
        """See ``Sink``."""
        try:
            write_all(self._sock.sendmsg, parts)
        except OSError as error:
            raise DestinationError(f"writing the migration socket failed: {error}") from error
