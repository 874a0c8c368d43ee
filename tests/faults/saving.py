"""Saves that fail on purpose, in our own process: what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from streamsave.errors import StreamsaveError
from streamsave.operations.save import save
from streamsave.options import SaveOptions

from ..kit.qemu import RunningQemu

GLOBALS: Final[dict[str, Any]] = save.__globals__
"""The module's names: as an attribute of the package ``save`` is the function."""
RAW: Final = SaveOptions(format="raw")
OLDER: Final = b"an older image"
IO_ERROR: Final = OSError(5, "Input/output error")
PAYLOAD, COMMIT, HEADER, FOLDER, TAKEN_BACK = range(2, 7)
"""The calls of fsync; the first one is of the folder, before anything is written."""

Fails: TypeAlias = Callable[..., StreamsaveError]
"""The fixture ``fails``."""


def state_of(guest: RunningQemu) -> list[object]:
    """What a save must leave as it was."""
    with guest.qmp() as qmp:
        settings = (qmp.execute(f"query-migrate-{each}") for each in ("capabilities", "parameters"))
        return [qmp.status(), *settings]


def goes_on(guest: RunningQemu, before: list[object]) -> None:
    """The guest is as it was ``before``, and runs."""
    assert state_of(guest) == before
    guest.wait_for_ticks(1, 10)


def failing(wrapped: Any, *calls: int, error: BaseException = IO_ERROR) -> Any:
    """``wrapped``, but its calls of these numbers, from 1, raise ``error`` instead."""
    count = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count in calls:
            raise error
        return wrapped(*arguments, **options)

    return call


def noting(wrapped: Any, calls: list[str], name: str) -> Any:
    """``wrapped``, which adds ``name`` to ``calls`` once it returned."""

    def call(*arguments: Any, **options: Any) -> Any:
        result = wrapped(*arguments, **options)
        calls.append(name)
        return result

    return call
