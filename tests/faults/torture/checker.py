"""Looks at what a trial left, with eyes of its own: fresh connections, the files, the processes, what the guest prints.

It knows which fault there was, and nothing of what the code under test did about it. The promises are those of
``docs/security.md`` and ``docs/exit-codes.md``. Here is what every end has in common; ``check_save`` and ``check_restore``
have the rest.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from ...kit.cli import ROOT, Result
from .world import patience, settled

if TYPE_CHECKING:
    from .scene import Scene

MAGICS: Final = (b"LibvirtQemudSave", b"StreamsaveImage1")
PARTIAL_MAGICS: Final = (b"LibvirtQemudPart", b"StreamsavePart_1")
INTERNAL_ERROR: Final = 70
TICKS_S: Final = 10.0


@cache
def documented() -> frozenset[int]:
    """The exit statuses of the documentation."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), re.MULTILINE)
    return frozenset(map(int, rows))


def check_end(scene: Scene, result: Result) -> None:
    """The exit status, the error, and what is left of processes, threads and descriptors."""
    status, ending = result.status, scene.ending
    by_signal = 128 - status if status < 0 else status
    known = status in documented() or by_signal - 128 in (1, 2, 6, 9, 15)
    scene.expect(known, f"the status {status} is not documented")
    scene.expect(status != INTERNAL_ERROR, "an internal error")
    where = scene.here or "nowhere"
    scene.expect(status in ending.statuses, f"ended with {status}, not {sorted(ending.statuses)}, struck at: {where}")
    scene.expect("Traceback" not in result.err, "a traceback")
    if status > 0 and status in ending.statuses and ending.says:
        errors = [line for line in result.err.splitlines() if line.startswith("streamsave: error: ")]
        scene.expect(len(errors) == 1, f"not one error but {len(errors)}")
        text = "\n".join(errors)
        scene.expect(bool(re.search(ending.says, text)), f"the error does not tell of {ending.says!r}")
    if status >= 0:
        scene.expect(scene.left is not None, "the process did not get to its end")
        for each in scene.left or ():
            scene.expect(False, f"left in the process: {each}")
    gone = settled(lambda: not scene.run.family(), patience(3.0))
    scene.expect(gone is not None, f"processes are left: {scene.run.family()}")
