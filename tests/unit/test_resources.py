"""Threads that the system refuses, also so late that the interpreter does not tell."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from streamsave.errors import ResourceError
from streamsave.resources import Thread


def test_it_runs_when_start_returns() -> None:
    may_end, began = threading.Event(), threading.Event()
    thread = Thread(lambda: may_end.wait(20), "example", "an example")
    thread.start()
    assert thread.is_alive()
    assert thread.name == "streamsave-example"
    may_end.set()
    thread.join()
    again = Thread(began.set, "example", "an example")
    again.start()
    again.join()
    assert began.is_set()


def die(thread: threading.Thread) -> None:
    raise MemoryError


def die_later(thread: Any) -> None:
    """As if the dictionary of running threads could not grow."""
    thread._set_ident()
    thread._started.set()
    raise MemoryError


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("place", "fate"), [("_bootstrap", die), ("_bootstrap_inner", die), ("_bootstrap_inner", die_later)]
)
def test_no_memory_to_begin(place: str, fate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    monkeypatch.setattr(threading.Thread, place, fate)
    ran, before = threading.Event(), threading.enumerate()
    with pytest.raises(ResourceError, match=r"cannot start a thread for an example \(there is no memory for it\): raise"):
        Thread(ran.set, "example", "an example").start()
    assert told == [MemoryError], "the thread was made, and died"
    assert not ran.is_set()
    assert threading.enumerate() == before
