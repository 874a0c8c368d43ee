"""Builds the drivers of native/ under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..kit.missing import require_tools

NATIVE = Path(__file__).parents[2] / "native"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g", "-std=c11")


def build(program: Path, *sources: Path, options: Sequence[str] = ()) -> Path:
    """``program``, compiled from ``sources`` with the compiler's ``options``; both sanitizers are certainly in it.

    ``test_native.py`` plants bugs, and sees that they are found.
    """
    require_tools("gcc")
    command = ["gcc", *WARNINGS, *SANITIZERS, *options, f"-I{NATIVE}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    compiled = program.read_bytes()
    assert b"__asan_init" in compiled, "no address sanitizer"
    assert b"__ubsan_handle" in compiled, "no undefined-behaviour sanitizer"
    return program
