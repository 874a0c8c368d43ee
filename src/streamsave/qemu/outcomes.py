"""What a call's outcome is set to, by whoever is the first: the answer, the connection's end, an interrupt."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def settle(outcome: Future[Any], *, result: object = None, error: BaseException | None = None) -> None:
    """The first to settle an outcome counts."""
    try:
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
    except InvalidStateError:
        pass


def pass_on(task: asyncio.Task[Any], outcome: Future[Any]) -> None:
    """Settle ``outcome`` as ``task`` ended; a cancelled task has nobody who waits, or the connection's end to settle it."""
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        settle(outcome, error=error)
    else:
        settle(outcome, result=task.result())
