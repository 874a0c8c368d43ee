"""What to do where something that a test needs is not there: say so and skip; in CI (``CI=true``) fail."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """The test cannot run here, because of ``reason``."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI skips nothing)", pytrace=False)
    pytest.skip(reason)


def require_root(what: str) -> None:
    """The test needs root, for ``what``."""
    if os.geteuid() != 0:
        missing(f"{what} takes root")


def require_tools(*names: str) -> None:
    """The test needs these programs."""
    absent = [name for name in names if shutil.which(name) is None]
    if absent:
        missing(f"not installed: {', '.join(absent)}; scripts/bootstrap test installs them")
