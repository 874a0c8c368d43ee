"""A QMP connection inside an event loop: the client of qemu.qmp, with our errors and our own store of events.

The other half of ``monitor``, which runs the loop. Everything here runs in it. asyncio and qemu.qmp cost 70 to 100 ms to
import, so they are imported when the first conversation begins.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ..errors import CommandError, MonitorError, MonitorLostError

Event: TypeAlias = Mapping[str, Any]
"""A QMP event: ``event``, ``timestamp`` and, for most, ``data``."""

KEPT_EVENTS = 256
"""Events kept for ``next_event``; older ones that nobody waited for are dropped."""
HANG_UP_S = 1.0

logger = logging.getLogger("streamsave.qmp")


class Conversation:
    """What is said over one connection. Make it in the running loop.

    ``address`` is for messages; ``lost`` makes the error for a connection that broke in the middle of what it is given.
    """

    def __init__(self, address: str, lost: Callable[[str], MonitorLostError]) -> None:
        import asyncio

        from qemu.qmp import QMPClient

        self._address = address
        self._lost = lost
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._news = asyncio.Event()
        self._client = QMPClient("streamsave")
        self._client.logger.disabled = True  # it reports every broken connection on stderr; here that is an exception
        self._client.events.event_filter = self._keep
        asyncio.get_running_loop().set_exception_handler(_log_quietly)

    async def begin(self, sock: socket.socket) -> None:
        """Negotiate over ``sock``, which is the conversation's from now on. Raises what qemu.qmp does."""
        await self._client.connect(sock)

    async def ended(self) -> None:
        """Return when the connection breaks."""
        from qemu.qmp import Runstate

        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def hang_up(self) -> BaseException | None:
        """End it, whatever state it is in. Raises nothing; what the connection broke by, if it did and that is known."""
        import asyncio

        try:
            async with asyncio.timeout(HANG_UP_S):
                await self._client.disconnect()
        except (Exception, asyncio.CancelledError) as error:  # AssertionError: from a client that never got to connect
            return error
        return None

    async def execute(self, command: str, arguments: dict[str, object] | None) -> object:
        """What QEMU returns.

        Raises:
            CommandError: QEMU refused it.
            MonitorLostError: the connection broke.

        """
        from qemu.qmp import ExecuteError, QMPError

        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise CommandError(
                f"QEMU at {self._address} refused {command}: {error}",
                address=self._address,
                command=command,
                error_class=error.error_class,
                description=str(error),
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise self._lost(command) from error

    async def send_fd(self, fd: int, name: str) -> object:
        """Give QEMU a copy of ``fd`` under ``name``; one at a time.

        Raises:
            MonitorError: the connection cannot carry descriptors. Everything that ``execute`` raises.

        """
        from qemu.qmp import QMPError, StateError

        try:
            self._client.send_fd_scm(fd)
        except (StateError, ConnectionError) as error:  # QEMU ended just now
            raise self._lost("getfd") from error
        except (QMPError, OSError) as error:
            raise MonitorError(
                f"descriptor {fd} cannot be passed to QEMU at {self._address}: {error}; try the other transport, unix",
                address=self._address,
            ) from error
        return await self.execute("getfd", {"fdname": name})

    async def next_event(self, ready: Callable[[Event], bool]) -> Event:
        """Take the oldest event for which ``ready`` is true, arrived already or yet to come."""
        while True:
            for event in self._events:
                if ready(event):
                    self._events.remove(event)
                    return event
            await self._news.wait()

    def _keep(self, event: Mapping[str, object]) -> bool:
        """Called by the client with each event: keep it here and let the client forget it."""
        import asyncio

        self._events.append(dict(event))
        self._news.set()
        self._news = asyncio.Event()
        return False


def _log_quietly(_loop: object, context: Mapping[str, Any]) -> None:
    """What asyncio would print to stderr, with a traceback; what comes of it is an exception for those who wait."""
    logger.debug("%s: %r", context.get("message"), context.get("exception"))
