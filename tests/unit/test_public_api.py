"""The names of the package: there, callable, and never hidden by a module of the same name."""

from __future__ import annotations

import subprocess
import sys

import pytest

import streamsave


def test_every_public_name_is_there() -> None:
    assert set(streamsave.__all__) <= set(dir(streamsave))
    for name in streamsave.__all__:
        assert getattr(streamsave, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        streamsave.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "first", ["streamsave.demo.demo", "streamsave.operations.save", "streamsave.cli.save", "streamsave"]
)
def test_functions_stay_functions_whatever_is_imported_first(first: str) -> None:
    program = (
        f"import {first}, streamsave\n"
        "streamsave.SaveOptions()\n"
        "names = ('save', 'restore', 'save_stream', 'restore_stream', 'read_info', 'convert', 'edit', 'find_codec')\n"
        "print(all(callable(getattr(streamsave, name)) for name in names))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "True\n"


def test_importing_the_package_imports_next_to_nothing() -> None:
    program = "import sys, streamsave; print([name for name in sys.modules if name.startswith('streamsave')])"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "['streamsave']\n"
    )
