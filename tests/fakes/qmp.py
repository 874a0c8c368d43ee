"""A QMP server that does what its script says, to one client: for what a real QEMU does not do on request.

::

    def script(talk: Talk) -> None:
        talk.greet()
        talk.answer("query-status", {"status": "running", "running": True})

    with FakeQmp(script) as address:
        Monitor(address)

The connection is closed when the script returns; a script that has to wait calls ``talk.hold()``.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}


class Talk:
    """The server's side of one connection."""

    def __init__(self, connection: socket.socket, released: threading.Event) -> None:
        self._connection = connection
        self._released = released
        self._received = ""
        self.seen: list[dict[str, Any]] = []
        """Every command that arrived."""

    def raw(self, data: bytes) -> None:
        """Send just that."""
        self._connection.sendall(data)

    def send(self, message: object) -> None:
        """One JSON line."""
        self.raw(json.dumps(message).encode() + b"\r\n")

    def greet(self) -> None:
        """The greeting, and the negotiation after it."""
        self.send(GREETING)
        self.answer("qmp_capabilities", {})

    def read(self) -> dict[str, Any]:
        """The next command; EOFError when the client hung up."""
        while True:
            try:
                message, end = json.JSONDecoder().raw_decode(self._received.lstrip())
            except ValueError:  # not all of it yet: clients need not end a command with a newline
                data = self._connection.recv(4096)
                if not data:
                    raise EOFError from None
                self._received += data.decode()
            else:
                self._received = self._received.lstrip()[end:]
                self.seen.append(message)
                return dict(message)

    def reply(self, message: dict[str, Any], reply: dict[str, object]) -> None:
        """Send ``reply`` as the one to ``message``."""
        self.send(reply | {"id": message["id"]} if "id" in message else reply)

    def answer(self, command: str, value: object) -> None:
        """Read one command, which must be this one, and return ``value``."""
        message = self.read()
        assert message["execute"] == command, message
        self.reply(message, {"return": value})

    def refuse(self, command: str, description: str, error_class: str = "GenericError") -> None:
        """Read one command, which must be this one, and refuse it."""
        message = self.read()
        assert message["execute"] == command, message
        self.reply(message, {"error": {"class": error_class, "desc": description}})

    def event(self, name: str, **data: object) -> None:
        """Send an event."""
        self.send({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}})

    def hold(self) -> None:
        """Do nothing more until the client hung up, or the server is closed."""
        self._connection.settimeout(0.05)
        while not self._released.is_set():
            try:
                if not self._connection.recv(4096):
                    return
            except TimeoutError:
                pass


class FakeQmp:
    """Listens in a directory of its own. The ``with`` gives the path, and raises what the script raised (EOFError aside)."""

    def __init__(self, script: Callable[[Talk], None], *, backlog: int = 1) -> None:
        self._script = script
        self._released = threading.Event()
        self._error: BaseException | None = None
        self._home = Path(tempfile.mkdtemp(prefix="ss-"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._home / "qmp"))
        self._listener.listen(backlog)
        self._thread = threading.Thread(target=self._serve, name="fake-qmp")

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # closed before anybody came
        with connection:
            connection.settimeout(10)
            try:
                self._script(Talk(connection, self._released))
            except (EOFError, ConnectionError):
                pass
            except BaseException as error:
                self._error = error

    def __enter__(self) -> str:
        self._thread.start()
        return str(self._home / "qmp")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)
        shutil.rmtree(self._home)
        if error is None and self._error is not None:
            raise self._error
