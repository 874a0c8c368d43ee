"""A QMP client of forty lines, so that tests do not ask the code under test what QEMU thinks."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class QmpError(Exception):
    """QEMU refused a command."""


class Qmp:
    """A connection to the monitor at ``path``, which serves one client at a time. A context manager."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._file = self._socket.makefile("r", encoding="utf-8")
        self.events: list[dict[str, Any]] = []
        """What came between the answers so far."""
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
            self.greeting = json.loads(self._file.readline())
            self.execute("qmp_capabilities")
        except BaseException:  # QEMU may end at any moment
            self.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """The answer to ``command``; ``_`` in the names of arguments stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode())
        return self._answer(command)

    def give(self, fd: int, name: str) -> None:
        """Pass the descriptor ``fd`` to QEMU, for use as ``fd:NAME``."""
        request = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode()
        socket.send_fds(self._socket, [request], [fd])
        self._answer("getfd")

    def _answer(self, command: str) -> Any:
        while line := self._file.readline():
            message = json.loads(line)
            if "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self.events.append(message)
        raise QmpError(f"{command}: the connection was closed")

    def status(self) -> str:
        """The run state: ``running``, ``paused``, ``postmigrate`` and so on."""
        return str(self.execute("query-status")["status"])

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
