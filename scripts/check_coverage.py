"""How much of saving and restoring the tests reach: lines and branches, of processes that they start too.

Runs the tests (or those that it is given, as for pytest), shows a table, and fails where a group is under 95 %. The guardian
starts its interpreter without site packages (-I -S), so what only it runs is not counted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = "src/streamsave"
DATA: Final = ROOT / ".cache" / "coverage"
LEAST: Final = 95.0
TESTS: Final = (
    "tests/unit",
    "tests/contract",
    "tests/faults",
    "tests/system",
    "-m",
    "not slow and not soak and not interop",
)
GROUPS: Final = {
    "save": ("operations/save.py", "operations/inflow.py", "operations/commit.py", "operations/image_writer.py"),
    "restore": ("operations/restore.py", "operations/outflow.py"),
    "pipeline": ("pipeline/*.py",),
    "endpoints": ("endpoints/*.py",),
}


def main(arguments: list[str]) -> int:
    """Run, combine, show; the exit status."""
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    status = coverage("run", "-m", "pytest", "-q", *(arguments or TESTS))
    coverage("combine", "--quiet")
    coverage("json", "--quiet", "--ignore-errors", "-o", str(DATA / "report.json"))
    files: dict[str, Any] = json.loads((DATA / "report.json").read_text())["files"]
    good = [show(group, patterns, files) for group, patterns in GROUPS.items()]
    if status:
        print("some tests failed while they were measured, which slows them down: make test is what judges them")
    return 0 if all(good) else 1


def coverage(*arguments: str) -> int:
    """The tool, with its data where they are in nobody's way."""
    env = {**os.environ, "COVERAGE_FILE": str(DATA / "data")}
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=ROOT, env=env, check=False).returncode


def show(group: str, patterns: tuple[str, ...], files: dict[str, Any]) -> bool:
    """The files of one group, what is missed in each, and whether the group is good enough."""
    paths = sorted(path for pattern in patterns for path in (ROOT / PACKAGE).glob(pattern) if path.stat().st_size)
    reached = wanted = 0
    lines = []
    for path in paths:
        entry = files[str(path.relative_to(ROOT))]
        summary = entry["summary"]
        here = summary["covered_lines"] + summary["covered_branches"]
        total = summary["num_statements"] + summary["num_branches"]
        missing = [*map(str, entry["missing_lines"]), *(f"{line}->{to}" for line, to in entry["missing_branches"])]
        reached, wanted = reached + here, wanted + total
        lines.append(f"  {path.relative_to(ROOT / PACKAGE)!s:32} {percent(here, total):6.1f} %  {' '.join(missing)}")
    share = percent(reached, wanted)
    print(f"{group:34} {share:6.1f} %  {reached} of {wanted}{'' if share >= LEAST else f'   UNDER {LEAST:g} %'}")
    print("\n".join(lines))
    return share >= LEAST


def percent(part: int, whole: int) -> float:
    """All of nothing is 100."""
    return 100 * part / whole if whole else 100.0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
