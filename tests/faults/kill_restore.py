"""A restore in a process that kills itself with SIGKILL at a chosen instant: ``IMAGE POINT COMMAND...``, as a module."""

from __future__ import annotations

import sys

from .instants import arm_restore, restoring
from .kill_client import die

if __name__ == "__main__":
    image, point, *command = sys.argv[1:]
    if point != "restored":
        arm_restore(point, die)
    restoring.restore(image, command=command)
    die()
