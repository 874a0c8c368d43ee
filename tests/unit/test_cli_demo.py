import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from streamsave.cli.main import main


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the demo by one whose rows are given: (format, intact)."""

    def replace(*rows: tuple[str, bool]) -> None:
        def run_demo(*, on_guest: Callable[[Any], None], on_row: Callable[[Any], None], cancel: object) -> list[Any]:
            on_guest(SimpleNamespace(memory_size=128 << 20, accelerator="tcg"))
            made = []
            for name, intact in rows:
                cells = (name, "1.0 MiB", "12.5", "intact" if intact else "DAMAGED")
                made.append(SimpleNamespace(format=name, memory_intact=intact, cells=lambda cells=cells: cells))
                on_row(made[-1])
            return made

        fake = SimpleNamespace(
            run_demo=run_demo, HEADINGS=("format", "image", "ratio", "memory"), DemoGuest=object, DemoRow=object
        )
        monkeypatch.setitem(sys.modules, "streamsave.demo.demo", fake)

    return replace


def test_an_aligned_table(demo: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    demo(("raw", True), ("zstd", True))
    assert main(["demo"]) == 0
    text = (
        "a guest with 128 MiB of memory runs on tcg\n"
        "\n"
        "format           image       ratio      memory\n"
        "raw            1.0 MiB        12.5      intact\n"
        "zstd           1.0 MiB        12.5      intact\n"
    )
    assert capsys.readouterr() == (text, "")


def test_damage_is_a_failure(demo: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    demo(("raw", True), ("gzip", False))
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "streamsave: the guest's memory did not come through gzip\n"
