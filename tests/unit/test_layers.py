"""Imports only point down: read from the sources of the package, and from made-up ones that break each rule."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "streamsave"
ROOT = Path(__file__).parents[2] / "src" / PACKAGE

LAYERS: tuple[set[str], ...] = (
    {"units", "errors", "types", "cancel", "choices", "printable", "resources"},
    {"format"},
    {"_native"},
    {"codecs"},
    {"pipeline", "endpoints", "qemu"},
    {"options", "config"},
    {"guardian"},
    {"operations"},
    {"libvirt"},
    {"bench"},
    {PACKAGE},  # __init__.py, the public API
    {"demo"},
    {"cli"},
)
"""From the bottom to the top: the packages and modules right below ``streamsave``."""

APART = {"pipeline", "endpoints", "qemu"}
"""Those of one layer that never import each other: only what stands above them brings them together."""

IMPURE = {"asyncio", "io", "mmap", "multiprocessing", "os", "pathlib", "select", "selectors", "shutil", "signal"}
IMPURE |= {"socket", "subprocess", "tempfile", "threading", "time"}
"""What ``format/`` has no use for: it turns bytes into values."""

COMPILED = f"{PACKAGE}._native._ffi"
FFI_HOME = f"{PACKAGE}._native"
"""Hands out ``ffi`` and ``lib``, and only its own modules take them."""
FFI = (FFI_HOME, COMPILED)
GUARDIAN = tuple(
    f"{PACKAGE}.{name}"
    for name in (
        "guardian",
        "guardian.child",
        "guardian.plan",
        "qemu.recovery",
        "endpoints",
        "endpoints.exchange",
        "endpoints.libc",
    )
)
"""What runs in the guardian's process: it starts quickly and stays small, so nothing but this and the lowest layer."""


@dataclass(frozen=True)
class Import:
    """``importer`` (a module's full name) imports ``imported`` in its line ``line``."""

    importer: str
    imported: str
    line: int
    at_once: bool
    """When the importer is imported; not later, in a function, nor for type checkers only."""

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def modules_in(root: Path) -> dict[str, Path]:
    """The full names of all modules of the package at ``root``."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_in(root: Path) -> Iterator[Import]:
    """Every import statement in the package, wherever it stands: in functions and for type checkers too."""
    modules = modules_in(root)
    for importer, path in modules.items():
        tree = ast.parse(path.read_text("utf-8"), str(path))
        for node in ast.walk(tree):
            at_once = node in tree.body
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(importer, alias.name, node.lineno, at_once)
            elif isinstance(node, ast.ImportFrom):
                home = _absolute(node, importer, is_package=path.name == "__init__.py")
                for alias in node.names:
                    whole = f"{home}.{alias.name}"
                    yield Import(importer, whole if whole in modules or whole == COMPILED else home, node.lineno, at_once)


def _absolute(node: ast.ImportFrom, importer: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = importer.split(".") if is_package else importer.split(".")[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def part_of(module: str) -> str:
    """The name in ``LAYERS`` that ``module`` belongs to."""
    return module.split(".")[1] if "." in module else PACKAGE


def layer_of(module: str) -> int:
    """The layer's number, or -1: it has none."""
    return next((number for number, layer in enumerate(LAYERS) if part_of(module) in layer), -1)


def violations(root: Path) -> list[str]:
    """What is wrong with the imports of the package at ``root``, one line each."""
    found = [f"{name} is in no layer: give it one" for name in modules_in(root) if layer_of(name) < 0]
    for each in imports_in(root):
        ours = each.imported.split(".")[0] == PACKAGE
        found += [f"{each}: {reason}" for reason in (_points_up(each) if ours else _outside(each)) if reason]
    return found + _cycles(root)


def _points_up(each: Import) -> Iterator[str]:
    importer, imported = layer_of(each.importer), layer_of(each.imported)
    if imported > importer:
        yield "that is up"
    elif imported == importer and part_of(each.imported) in APART and part_of(each.imported) != part_of(each.importer):
        yield "that is sideways"
    if each.imported in FFI and part_of(each.importer) != part_of(FFI_HOME):
        yield f"only {FFI_HOME} touches it"
    if each.importer in GUARDIAN and each.imported not in GUARDIAN and imported > 0:
        yield "the guardian's process would carry it"


def _outside(each: Import) -> Iterator[str]:
    top = each.imported.split(".")[0]
    if part_of(each.importer) == "format" and top in IMPURE:
        yield "format/ is pure"
    if each.importer in GUARDIAN and top not in sys.stdlib_module_names:
        yield "the guardian's process would carry it"


def _cycles(root: Path) -> list[str]:
    """Modules that import each other, though only in one layer."""
    graph: dict[str, set[str]] = {}
    for each in imports_in(root):
        if each.at_once and each.imported.startswith(f"{PACKAGE}."):
            graph.setdefault(each.importer, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"a circle of imports: {' <- '.join(error.args[1])}"]
    return []


def test_imports_only_point_down() -> None:
    assert violations(ROOT) == []


def test_the_look_sees_the_package() -> None:
    imports = set(imports_in(ROOT))
    assert len(modules_in(ROOT)) > 20
    assert any(each.importer == "streamsave.options" and each.imported == "streamsave.codecs.base" for each in imports)
    assert {part_of(name) for name in modules_in(ROOT)} <= set().union(*LAYERS)


@pytest.mark.parametrize(
    ("module", "statement", "complaint"),
    [
        ("errors", "from .codecs import base", "streamsave.errors, line 1, imports streamsave.codecs.base: that is up"),
        ("errors", "from . import operations", "imports streamsave.operations: that is up"),
        ("format/header", "import streamsave.options", "imports streamsave.options: that is up"),
        (
            "format/header",
            "def late():\n    from ..codecs import base",
            "line 2, imports streamsave.codecs.base: that is up",
        ),
        ("pipeline/stages", "from ..qemu.monitor import Monitor", "imports streamsave.qemu.monitor: that is sideways"),
        ("qemu/monitor", "from .. import endpoints", "imports streamsave.endpoints: that is sideways"),
        ("_native/scan", "from ..codecs import base", "imports streamsave.codecs.base: that is up"),
        ("operations/save", "from ..demo.demo import run_demo", "imports streamsave.demo.demo: that is up"),
        ("demo/demo", "from ..cli import main", "imports streamsave.cli: that is up"),
        ("operations/save", "from .. import __version__", "imports streamsave: that is up"),
        ("format/header", "import os.path", "imports os.path: format/ is pure"),
        ("format/header", "from mmap import mmap", "imports mmap: format/ is pure"),
        ("operations/image", "from .._native._ffi import lib", "only streamsave._native touches it"),
        ("codecs/base", "from .._native import ffi", "only streamsave._native touches it"),
        ("guardian/child", "from ..qemu.monitor import Monitor", "the guardian's process would carry it"),
        ("qemu/recovery", "import rich", "the guardian's process would carry it"),
        ("novelty", "", "streamsave.novelty is in no layer"),
        ("codecs/base", "from . import registry", "a circle of imports: "),
    ],
)
def test_a_violation_is_found(tmp_path: Path, module: str, statement: str, complaint: str) -> None:
    sources = {
        "codecs/base": "",
        "demo/demo": "",
        "codecs/registry": "from .base import Codec",
        "endpoints/__init__": "",
        "qemu/monitor": "",
        "operations/__init__": "",
        "operations/save": "",
        "_native/__init__": "from ._ffi import ffi, lib",
        "_native/scan": "from . import ffi, lib\nfrom ..units import MiB",
    }
    for name, text in sources.items():
        _write(tmp_path, name, text)
    assert violations(tmp_path) == [], "these alone are in order"
    _write(tmp_path, module, statement)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert complaint in found[0]


def _write(root: Path, name: str, text: str) -> None:
    path = root / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
