"""How a migration ended, by what QEMU says: only ``completed`` is success."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from streamsave.errors import IncomingError, MigrationError, MonitorLostError, StreamsaveError
from streamsave.qemu.migration import wait_incoming, wait_outgoing

WAITS = [(wait_outgoing, MigrationError), (wait_incoming, IncomingError)]


def saying(*answers: dict[str, Any]) -> Any:
    """A monitor that answers ``query-migrate`` so, one after the other."""
    left = iter(answers)
    return SimpleNamespace(address="here", execute=lambda *_, **__: next(left), wait_event=lambda *_, **__: None)


@pytest.mark.parametrize("wait", [wait for wait, _ in WAITS])
def test_completed(wait: Callable[..., None]) -> None:
    wait(saying({}, {"status": "setup"}, {"status": "active"}, {"status": "device"}, {"status": "completed"}), 30)


@pytest.mark.parametrize("end", ["failed", "cancelled", "something new"])
@pytest.mark.parametrize(("wait", "kind"), WAITS)
def test_every_other_end_is_a_failure(wait: Callable[..., None], kind: type[StreamsaveError], end: str) -> None:
    """QEMU 9.1 and later live on when a stream does not load, if they are told to."""
    with pytest.raises(kind, match=f"here did not .*: {end}: no such section"):
        wait(saying({"status": "active"}, {"status": end, "error-desc": "no such section"}), 30)


@pytest.mark.parametrize(("wait", "kind"), WAITS)
def test_time_runs_out(wait: Callable[..., None], kind: type[StreamsaveError]) -> None:
    with pytest.raises(kind, match=r"not done after 0 s \(status active\)"):
        wait(saying({"status": "active"}), 0)


def test_a_qemu_that_ends_over_a_stream() -> None:
    def lost(*_: object, **__: object) -> None:
        raise MonitorLostError("the connection broke")

    with pytest.raises(IncomingError, match="ended while it loaded the stream"):
        wait_incoming(SimpleNamespace(address="here", execute=lost), 30)  # type: ignore[arg-type]
