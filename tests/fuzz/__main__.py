"""``python -m tests.fuzz TARGET [OPTION OF LIBFUZZER...]``: fuzz one target with atheris, until something breaks.

``-max_total_time=60`` ends it after a minute; a file as argument runs that one input, say one that broke something.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streamsave", "tests.fuzz.targets", "tests.unit.lzo_reference"]):
    from .targets import TARGETS, seeds


def main() -> int:
    """Fuzz; the exit status is libFuzzer's. What breaks something stays in the folder for temporary files."""
    name, options = sys.argv[1], sys.argv[2:]
    if any(not option.startswith("-") for option in options):
        fuzz(name, options)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        for number, seed in enumerate(seeds(name)):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends the child, which is waited for
        child = os.fork()  # libFuzzer ends its process, and the folder has to go then
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            fuzz(name, [*options, folder])
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fuzz(name: str, options: list[str]) -> None:
    """In this process, which ends."""
    atheris.Setup([sys.argv[0], f"-artifact_prefix={tempfile.gettempdir()}/{name}-", *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
