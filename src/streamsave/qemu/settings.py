"""The migration capabilities and parameters of a QEMU: out of our way during an operation, and back afterwards.

Whoever owns this QEMU may have set them for migrations of their own. Most of them change what is in the stream, how many
streams there are, or when the stream ends; none may while we read or write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from .recovery import Command

CAPABILITIES: Final[Mapping[str, bool]] = {
    # not the plain stream that every QEMU loads, and virsh restores
    "multifd": False,  # several sockets, with packets
    "mapped-ram": False,  # fixed offsets in a seekable file
    "compress": False,  # until 9.0: pages compressed on their own
    "xbzrle": False,  # pages as differences
    "x-ignore-shared": False,  # leaves out RAM that is mapped shared
    "dirty-bitmaps": False,
    "block": False,  # until 9.0: sends the disks too
    "zero-blocks": False,
    "validate-uuid": False,  # only a guest with the same UUID would load it
    "x-colo": False,
    "rdma-pin-all": False,
    # another course: waits for answers that we never give, or for the guest
    "return-path": False,
    "switchover-ack": False,
    "postcopy-ram": False,
    "postcopy-preempt": False,
    "postcopy-blocktime": False,
    "pause-before-switchover": False,
    "release-ram": False,  # would free the guest's memory while it is sent: no way back
    "background-snapshot": False,  # would let the guest run meanwhile
    "zero-copy-send": False,  # needs multifd
    "auto-converge": False,
    "dirty-limit": False,
    # and this we want
    "events": True,  # MIGRATION events
}
"""Capability to wanted state. QEMU checks them together, so that those which need each other go off in one command."""

PARAMETERS: Final[Mapping[str, object]] = {
    "max-bandwidth": 0,  # 128 MiB/s by default, for a stopped guest too; 0 is unlimited
    "tls-creds": "",  # TLS on our socket would be a handshake that nobody answers
    "mode": "normal",  # from 8.2: the others keep RAM out of the stream
    "direct-io": False,
}


class _Commander(Protocol):
    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any: ...


class MigrationSettings:
    """What has to change at one QEMU, found out at construction; nothing is changed before ``neutralise()``.

    Settings that this QEMU does not know, and those that are as wanted, are never written.
    """

    def __init__(self, monitor: _Commander, parameters: Mapping[str, object] = MappingProxyType({})) -> None:
        """``parameters``: what is wanted besides ``PARAMETERS``."""
        self._monitor = monitor
        wanted = {**PARAMETERS, **parameters}
        states = {each["capability"]: each["state"] for each in monitor.execute("query-migrate-capabilities")}
        values = monitor.execute("query-migrate-parameters")
        self._do = _commands(_difference(states, CAPABILITIES, new=True), _difference(values, wanted, new=True))
        self._undo = _commands(_difference(states, CAPABILITIES, new=False), _difference(values, wanted, new=False))

    def neutralise(self) -> None:
        """Set what has to be set.

        Raises:
            CommandError: QEMU refused, which it does while a migration is under way. ``restore()`` is still right.
        """
        for command, arguments in self._do:
            self._monitor.execute(command, arguments)

    def restore(self) -> None:
        """Put back what ``neutralise()`` changed. May be repeated.

        Raises:
            CommandError: QEMU refused, which it does while a migration is under way.
        """
        for command, arguments in self._undo:
            self._monitor.execute(command, arguments)

    def undo_commands(self) -> list[Command]:
        """What ``restore()`` sends, for others to send."""
        return list(self._undo)


def _difference(have: Mapping[str, object], wanted: Mapping[str, object], *, new: bool) -> dict[str, object]:
    """The entries of ``wanted`` that ``have`` has with another value: with the new values, or with the old ones."""
    return {name: value if new else have[name] for name, value in wanted.items() if name in have and have[name] != value}


def _commands(capabilities: Mapping[str, object], parameters: Mapping[str, object]) -> list[Command]:
    """At most two commands that set all of it."""
    commands: list[Command] = []
    if capabilities:
        states = [{"capability": name, "state": state} for name, state in capabilities.items()]
        commands.append(("migrate-set-capabilities", {"capabilities": states}))
    if parameters:
        commands.append(("migrate-set-parameters", parameters))
    return commands
