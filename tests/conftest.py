"""Fixtures for all tests. What they give is documented in ``tests/kit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from streamsave.demo.machine import QEMU

from .kit.leaks import Belongings, leaks_since
from .kit.linux import KitError, linux_guest, mixed_blob
from .kit.missing import missing, require_tools
from .kit.qemu import Guest, RunningQemu, demo_guest

HERE = Path(__file__).resolve().parent
WATCHED = {"system", "faults", "interop"}
"""The folders whose tests must leave nothing behind."""


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the folders ``WATCHED``, once a test and its fixtures ended: no thread, descriptor or child more than before."""
    if request.path.relative_to(HERE).parts[0] not in WATCHED:
        yield
        return
    before = Belongings.now()
    yield
    leaks = leaks_since(before)
    if leaks:
        pytest.fail("left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(scope="session")
def qemu() -> str:
    """The name of a QEMU that is installed."""
    require_tools(QEMU)
    return QEMU


class Launch(Protocol):
    """Starts a QEMU that ends with the test: the arguments are those of ``RunningQemu``."""

    def __call__(
        self,
        guest: Guest | None = None,
        *extra: str,
        incoming: bool = False,
        paused: bool = False,
        machine: str = "pc",
        after: RunningQemu | None = None,
    ) -> RunningQemu: ...


@pytest.fixture
def launch(qemu: str) -> Iterator[Launch]:
    """``launch(guest, ...)``: a RunningQemu, not yet booted; without a guest the demo guest."""
    with ExitStack() as stack:

        def start(
            guest: Guest | None = None,
            *extra: str,
            incoming: bool = False,
            paused: bool = False,
            machine: str = "pc",
            after: RunningQemu | None = None,
        ) -> RunningQemu:
            running = RunningQemu(
                guest or demo_guest(), *extra, incoming=incoming, paused=paused, machine=machine, after=after
            )
            return stack.enter_context(running)

        yield start


@pytest.fixture
def demo(launch: Launch) -> RunningQemu:
    """The demo guest, booted and ticking."""
    return launch(demo_guest()).boot()


@pytest.fixture(scope="session")
def linux(qemu: str) -> Guest:
    """The Linux guest: 512 MiB with a blob of 150 MiB that it hashes for every tick. Start it with ``launch``."""
    try:
        return linux_guest(mixed_blob())
    except KitError as error:
        missing(str(error))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A path for an image."""
    return tmp_path / "guest.save"
