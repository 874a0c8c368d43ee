"""The command line as a user meets it: a process of its own, its exit status, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MARK: Final = "STREAMSAVE_TEST_RUN"
"""An environment variable that everything inherits which a run starts, wherever it goes."""
END_S: Final = 40.0
ROOT: Final = Path(__file__).parents[2]
"""Where ``tests`` is a package."""


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error, which has to be one line, perhaps with notes indented below it, and no traceback."""
        assert "Traceback" not in self.err, self.err
        first, *notes = self.err.splitlines() or [""]
        assert first.startswith("streamsave: error: "), self.err
        assert all(note.startswith("    ") for note in notes), self.err
        return first.removeprefix("streamsave: error: ")

    @property
    def event(self) -> dict[str, Any]:
        """The last event of a run with ``--json``."""
        last: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return last


@dataclass
class Run:
    """``streamsave ARGUMENTS...`` in a process group of its own, or with ``script`` or ``module`` that program."""

    arguments: Sequence[str | Path]
    prefix: Sequence[str] = ()
    script: Path | None = None
    module: str = ""
    pass_fds: Sequence[int] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of our own environment."""
    cwd: Path | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        program = ["-m", self.module or "streamsave.cli"] if self.script is None else [str(self.script)]
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, *program, *map(str, self.arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",  # what a damaged stream makes QEMU say
            process_group=0,
            pass_fds=self.pass_fds,
            env={**os.environ, **self.env, MARK: self.mark},
            cwd=self.cwd or (ROOT if self.module else None),
        )

    def first_line(self) -> str:
        """Wait for the first line of standard output: with ``save --json`` the stream flows then."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def finish(self, timeout_s: float = END_S) -> Result:
        """Wait for the end."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            for pid in self.family():
                os.kill(pid, signal.SIGKILL)
            out, err = self.process.communicate(timeout=10)
            raise AssertionError(f"no end within {timeout_s:g} s; it said:\n{out}\n{err}") from None
        return Result(self.process.returncode, out, err)

    def kill(self) -> None:
        """``kill -9``, and reaped."""
        self.process.kill()
        self.process.communicate(timeout=10)

    def family(self) -> list[int]:
        """The processes that are left of this run and of what it started, its guardian too."""
        return family_of(MARK, self.mark)


def family_of(variable: str, value: str) -> list[int]:
    """The processes that have ``variable`` in their environment, with ``value``."""
    wanted = f"{variable}={value}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # it ended meanwhile, or is somebody else's
    return found


def streamsave(
    *arguments: str | Path, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, timeout_s: float = END_S
) -> Result:
    """Run it to its end."""
    return Run(arguments, prefix, env=env or {}).finish(timeout_s)
