"""One job of streamsave in a process of its own, so that what the kernel counts of it is counted of nothing else.

The process imports what it needs and says that it is ready; then the job is timed. What it is and what came of it go through
its standard input and output as a line of JSON each.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from .jobs import JOBS
from .meters import peak_memory

READY: Final = "ready"


class WorkerError(Exception):
    """The job failed; what it said is on our standard error."""


@dataclass(frozen=True)
class Done:
    """What a job took; the children that it waited for (the guardian) are in it."""

    wall_s: float
    cpu_s: float
    faults: int
    peak: int
    """The most memory it had, in bytes."""
    result: Any
    """What the job gave."""


class Worker:
    """A process for one job, ready to begin."""

    def __init__(self, job: str, **arguments: object) -> None:
        command = [sys.executable, "-m", "bench.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._say({"job": job, "arguments": arguments})
        if self._hear() != READY:
            raise WorkerError(f"the job {job} did not get ready")

    def run(self) -> Done:
        """Do it."""
        with self._process:
            self._say({})
            answer = self._hear()
        if self._process.returncode or not isinstance(answer, dict):
            raise WorkerError(f"the job failed with status {self._process.returncode}")
        return Done(**answer)

    def _say(self, what: Mapping[str, object]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> object:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else None


def timed(job: Callable[[], object]) -> Done:
    """Run ``job`` in this process."""
    before = _used()
    began = time.perf_counter()
    result = job()
    wall_s = time.perf_counter() - began
    cpu_s, faults = (now - then for now, then in zip(_used(), before, strict=True))
    return Done(wall_s, cpu_s, int(faults), peak_memory(os.getpid()), result)


def _used() -> tuple[float, int]:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return cpu_s, sum(usage.ru_minflt + usage.ru_majflt for usage in usages)


def main() -> int:
    """In the worker's process."""
    request = json.loads(sys.stdin.readline())
    job = JOBS[request["job"]](**request["arguments"])
    print(json.dumps(READY), flush=True)
    if not sys.stdin.readline():
        return 1  # whoever asked has gone
    done = timed(job)
    print(json.dumps(asdict(done)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
