"""A copy of the tree in which mutations are made, and tests run that do not know of it.

The interpreter and its libraries are ours; the package, its C module and the tests are the copy's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ..kit.cli import ROOT, family_of
from ..unit.native import WARNINGS
from .mutation import Mutation

MARK: Final = "STREAMSAVE_TEST_MUTATION"
"""An environment variable of everything that a run starts."""
RUN_S: Final = 300.0
"""For the tests of one mutation."""
GREEN, RED = 0, 1
"""Of pytest's exit statuses; all others are no verdict on the code: nothing was collected, imported or run."""
LEFT_OUT: Final = (".git", ".venv", ".cache", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "*.egg-info", "*.o")


@dataclass(frozen=True, slots=True)
class Run:
    """How a run of tests ended."""

    status: int
    """pytest's; -1: it came to no end."""
    first: str
    """The first test that failed, and how; empty: none did."""
    output: str


class Copy:
    """A context manager; the copy goes with it."""

    def __init__(self) -> None:
        self._stamp = 1_000_000_000
        self.root = Path(tempfile.mkdtemp(prefix="streamsave-mutations-"))
        try:
            self.root.chmod(0o755)  # some tests run as somebody else
            shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True, symlinks=True)
            self._check_imports()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Inside, the copy has the mutation in it."""
        path = self.root / mutation.path
        before = path.read_text()
        mutated = mutation.applied_to(before)
        try:
            self._write(path, mutated)
            yield
        finally:
            self._write(path, before)

    def test(self, node_ids: Sequence[str], *, stop_at_first: bool = True, limit_s: float = RUN_S) -> Run:
        """Run these tests."""
        options = ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=short", *(["-x"] if stop_at_first else [])]
        mark = uuid.uuid4().hex
        try:
            done = self._python("-m", "pytest", *options, *node_ids, mark=mark, timeout_s=limit_s)
        except subprocess.TimeoutExpired as error:
            return Run(-1, "", str(error))
        finally:
            for pid in family_of(MARK, mark):  # a mutant may lose its children
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        summary = [line for kind in ("FAILED ", "ERROR ") for line in done.stdout.splitlines() if line.startswith(kind)]
        return Run(done.returncode, summary[0] if summary else "", done.stdout)

    def _python(self, *arguments: str, mark: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(self.root / "src"), MARK: mark}
        env.pop("PYTEST_ADDOPTS", None)
        env.pop("PYTEST_CURRENT_TEST", None)
        with tempfile.TemporaryFile("w+", errors="replace") as output:  # a pipe would end with the last child that was lost
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=self.root, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                timeout=timeout_s, check=False,
            )  # fmt: skip
            output.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, output.read())

    def _check_imports(self) -> None:
        """It is the copy that is tested."""
        done = self._python("-c", "import streamsave._native as n; print(n.__file__, n.lib)")
        if not done.stdout.startswith(str(self.root)):
            raise RuntimeError(f"the copy's tests would test another streamsave: {done.stdout}")

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self._stamp += 10
        os.utime(path, (self._stamp, self._stamp))  # Python knows sources by size and second of their last change
        if path.parent.name == "native":
            self._build()

    def _build(self) -> None:
        """The C module anew; quickly, so hardly optimised."""
        sources = sorted(str(path) for path in (self.root / "native").glob("*.c"))
        emitted = self._python("-c", "from native.build_ffi import ffibuilder; ffibuilder.emit_c_code('_ffi.c')")
        if emitted.returncode:
            raise RuntimeError(f"the C module's source cannot be made: {emitted.stdout}")
        subprocess.run(["gcc", "-fsyntax-only", *WARNINGS, "-std=c11", "-Inative", *sources], cwd=self.root, check=True)
        (module,) = (self.root / "src/streamsave/_native").glob("_ffi.*so")
        options = ["-shared", "-fPIC", "-O1", "-std=c11", "-w", f"-I{sysconfig.get_path('include')}", "-Inative"]
        subprocess.run(["gcc", *options, "_ffi.c", *sources, "-o", f"{module}.new"], cwd=self.root, check=True)
        os.replace(f"{module}.new", module)
