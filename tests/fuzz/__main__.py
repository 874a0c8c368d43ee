"""``python -m tests.fuzz TARGET [OPTION OF LIBFUZZER...]``: fuzz one target with atheris, until something breaks.

``-max_total_time=60`` ends it after a minute; a file as argument runs that one input, say one that broke something.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["streamsave", "tests.fuzz.targets", "tests.unit.lzo_reference"]):
    from .targets import TARGETS, seeds


def main() -> None:
    """Fuzz; does not return."""
    name, options = sys.argv[1], sys.argv[2:]
    if any(not option.startswith("-") for option in options):
        corpus = []
    else:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        for number, seed in enumerate(seeds(name)):
            (folder / f"seed-{number}").write_bytes(seed)
        corpus = [str(folder)]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={tempfile.gettempdir()}/{name}-", *options, *corpus], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
