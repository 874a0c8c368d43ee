"""Fixtures of the interop tests: a stack, and a guest in it that is booted once and used by one test after the other.

``INTEROP_SUITES`` names the stacks, separated by commas; without it there is one, with the newest libvirt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..kit.linux import KitError
from ..kit.missing import missing, require_root, require_tools
from .stack import LabError, LinuxDomain, Stack
from .table import Record, Results

SUITES = os.environ.get("INTEROP_SUITES", "trixie").split(",")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are interop tests."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("interop")


@pytest.fixture(scope="session", params=SUITES)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Running daemons, with QEMU as root; ended with the session."""
    require_tools("debootstrap", "nsenter", "unshare")
    require_root("the lab")
    stack = Stack(request.param)
    try:
        stack.up()
    except LabError as error:
        missing(str(error))
    yield stack
    stack.down()


@pytest.fixture(scope="session")
def record() -> Iterator[Record]:
    """Collects outcomes for the table; with ``INTEROP_RECORD=1`` they are kept."""
    results = Results()
    yield results.add
    if os.environ.get("INTEROP_RECORD") == "1":
        results.write()


@pytest.fixture(scope="session")
def session_guest(stack: Stack) -> Iterator[LinuxDomain]:
    try:
        with stack.guest("interop") as guest:
            yield guest
    except KitError as error:
        missing(str(error))


@pytest.fixture
def guest(stack: Stack, session_guest: LinuxDomain) -> LinuxDomain:
    """A guest that runs and counts."""
    stack.up()  # some tests give it another configuration
    if not session_guest.state.startswith("running"):
        session_guest.boot()
    session_guest.tidy()
    return session_guest


@pytest.fixture
def image(guest: LinuxDomain) -> Path:
    """A path for an image, at the same place for the daemon."""
    return guest.folder / "guest.save"
