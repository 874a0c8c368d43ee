"""The command line, on a file system that has no files without names: arguments as of ``streamsave``, as a module."""

from __future__ import annotations

import pytest

from streamsave.cli.main import main

from ..kit.unfinished import without_nameless_files

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        without_nameless_files(patch)
        raise SystemExit(main())
