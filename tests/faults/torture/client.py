"""The process that saves or restores: ``streamsave`` itself, brought to a halt at one instant, or with a fault inside of it.

``client.py ORDER ARGUMENTS...``: the campaign holds the other end of the order's socket. A line from here says which instant
it is, and nothing goes on here until an answer comes; the last line says what is left of the operation in this process.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass

from streamsave.cancel import Cancellation
from streamsave.cli.main import main as streamsave
from streamsave.qemu.process import QemuProcess

from ...kit.leaks import Belongings, leaks_since
from ..instants import arm_restore, arm_save, instant
from .inner import INNER

ANSWER_S = 60.0
HEARD_S = 5.0
"""How long a signal may take to be one: another thread hears it."""
GO, SIGNALLED = b"go", b"signalled"
"""The campaign's answers: all is done that is to be done here, the second after a signal."""


@dataclass(frozen=True)
class Order:
    """What the campaign wants of this process."""

    control_fd: int
    restores: bool
    inner: str
    """The fault inside; empty: none."""
    amount: float
    seed: str
    instant: str
    """Where to wait; empty: nowhere."""
    part: float

    def encode(self) -> str:
        return json.dumps(asdict(self))


class Control:
    """The campaign, from here."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(ANSWER_S)
        self._once = threading.Lock()
        self._cancelled = threading.Event()
        Cancellation.cancel = instant(Cancellation.cancel, self._cancelled.set)  # type: ignore[method-assign]

    def stop_here(self) -> None:
        """Let the campaign strike; the first time only, and others that come by meanwhile go on."""
        if self._once.acquire(blocking=False):
            self.say("here")
            if self._socket.recv(64) == SIGNALLED:
                self._cancelled.wait(HEARD_S)

    def say(self, *what: str) -> None:
        self._socket.sendall(json.dumps(what).encode() + b"\n")


def main(order: Order, arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGHUP):  # a campaign in the background ignores them, and what it starts would too
        signal.signal(number, signal.SIG_DFL if number == signal.SIGHUP else signal.default_int_handler)
    control = Control(order.control_fd)
    for_good = lambda _process, timeout_s=None: timeout_s is None  # noqa: E731
    say = lambda: control.say("in front")  # noqa: E731
    QemuProcess.wait = instant(QemuProcess.wait, say, before=True, when=for_good)  # type: ignore[method-assign]
    before = Belongings.now()
    limits = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)}
    if order.inner:
        INNER[order.inner](order.amount, order.seed)
    if order.instant:
        (arm_restore if order.restores else arm_save)(order.instant, control.stop_here, order.part)
    control.say("ready")
    status = streamsave(arguments)
    for kind, limit in limits.items():
        resource.setrlimit(kind, limit)
    control.say("left", *leaks_since(before))
    return status


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1])), sys.argv[2:]))
