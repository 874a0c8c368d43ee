"""Carries a scenario out, for whoever watches: ``python -m tests.faults.powerloss.operate NAME FOLDER IMAGE``."""

import sys
from pathlib import Path

from streamsave.codecs.registry import codecs

from .scenarios import scenario_named

if __name__ == "__main__":
    name, folder, image = sys.argv[1:]
    scenario_named(name, *codecs()).act(Path(folder), Path(image))
