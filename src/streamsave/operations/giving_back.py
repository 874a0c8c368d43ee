"""A guest is given back although its monitor fails us: on another connection, or where we cannot at all by somebody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import CommandError, GuestError, MonitorConnectError, MonitorLostError
from ..qemu.monitor import Monitor
from ..qemu.recovery import Commander

ANSWER_S = 10.0
"""How long QEMU may take for each answer; then that is left to whoever has more time."""


def surely(
    act: Callable[[Commander], None], qmp: Monitor, address: str | Path | None, hand_over: Callable[[], None]
) -> None:
    """``act`` at the monitor; again on a new connection to ``address`` if that one broke, for QEMU may live on without it.

    Where we cannot, or are interrupted, ``hand_over`` leaves it to the guardian, whose copy of the connection may be all
    there is. Nothing that ``qmp.interrupt()`` does cuts this short.

    Raises:
        CommandError, GuestError: QEMU's answer, and the guardian would get the same.
        MonitorError: QEMU could not be asked; it was handed over.

    """
    try:
        try:
            with qmp.uninterrupted():
                act(_Impatient(qmp))
        except MonitorLostError as lost:
            if address is None:
                raise
            try:
                monitor = Monitor(address, greeting_s=ANSWER_S)
            except MonitorConnectError:
                raise lost from None
            with monitor:
                act(_Impatient(monitor))
    except (CommandError, GuestError):
        raise
    except BaseException:
        hand_over()
        raise


class _Impatient:
    """The monitor, which waits ``ANSWER_S`` seconds for an answer where no other time is asked for."""

    def __init__(self, qmp: Monitor) -> None:
        self._qmp = qmp

    def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float | None = None) -> Any:
        """See ``Commander``."""
        return self._qmp.execute(command, arguments, timeout_s=ANSWER_S if timeout_s is None else timeout_s)
