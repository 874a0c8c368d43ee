"""The sanitizers that the C units run under: they are there, they end a program that errs, and no unit runs without them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from .native import NATIVE, build

HERE = Path(__file__).parent
BUGS = {
    "a read behind the end": ("char *p = calloc((size_t)argc, 8); return p[8 * argc];", "heap-buffer-overflow"),
    "a write behind the end": ("char a[8]; volatile int i = argc + 7; a[i] = 1; return a[0];", "index 8 out of bounds"),
    "a use after free": ("char *p = malloc(8); free(p); return p[argc];", "heap-use-after-free"),
    "a sum that overflows": ("volatile int most = 0x7fffffff; return most + argc;", "signed integer overflow"),
    "a shift too far": ("return 1 << (31 + argc);", "shift exponent 32 is too large"),
    "memory that is lost": ("argv[0] = calloc((size_t)argc, 8); argv[0] = 0; return 0;", "detected memory leaks"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    """In the environment that all drivers run in: nothing in it may switch a sanitizer off."""
    body, report = BUGS[bug]
    source = tmp_path / "planted.c"
    source.write_text(f"#include <stdlib.h>\nint main(int argc, char **argv) {{ (void)argv; {body} }}\n")
    done = subprocess.run(
        [build(tmp_path / "planted", source, options=["-Wno-error", "-Wno-conversion"])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert report in done.stderr


def test_what_does_not_err_is_let_be(tmp_path: Path) -> None:
    source = tmp_path / "right.c"
    source.write_text("int main(int argc, char **argv) { return argv[0][argc - 1] == 0; }\n")
    done = subprocess.run([build(tmp_path / "right", source)], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_unit_has_a_driver() -> None:
    built = " ".join(path.read_text() for path in HERE.glob("test_native_*.py"))
    patterns = re.findall(r'"([\w*]+\.c)"', built)
    units = {path.name for path in NATIVE.glob("*.c")}
    assert {path.name for pattern in patterns for path in NATIVE.glob(pattern)} == units
    assert len(units) > 5
