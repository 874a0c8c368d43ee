"""The examples of docs/api.md that need no guest, run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamsave

from ..kit.images import METADATA, made_up_stream, save_bytes

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECTIONS = ("Verify", "The stream as a file, and the guest's pages", "Convert", "Edit", "Images")


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the examples find in their working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("vm.save", "guest.save"):
        save_bytes(made_up_stream(), Path(name))
    with Path("vm.save").open("rb") as image:
        monkeypatch.setattr("sys.stdin", image)
        yield


def run(section: str) -> dict[str, object]:
    """All examples under that heading, one after the other; the names that they leave."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert examples
    names: dict[str, object] = {"streamsave": streamsave, "sys": __import__("sys")}
    for example in examples:
        exec(compile(example, f"api.md: {section}", "exec"), names)
    return names


@pytest.mark.parametrize("section", SECTIONS)
def test_it_runs(section: str) -> None:
    run(section)


def test_one_page_of_a_guest(capsys: pytest.CaptureFixture[str]) -> None:
    names = run("The stream as a file, and the guest's pages")
    stream = made_up_stream()
    assert names["data"] == stream[1 << 20 : (1 << 20) + 4096]
    assert isinstance(names["where"], streamsave.PageContents)
    assert names["page"] == stream[names["where"].stream_offset :][:4096]
    assert names["page"] == (b"a page of text, number %08d. " % 4 * 124 + bytes(4096))[:4096]
    assert capsys.readouterr().out.splitlines() == [str(len(stream)), "pc.ram 7372800", "rom 65536"]


def test_what_edit_says_it_did() -> None:
    streamsave.edit("guest.save", xml=METADATA.xml.replace("</name>", "</name><on_crash>destroy</on_crash>"))
    run("Edit")
    info = streamsave.read_info("guest.save")
    assert (info.header.was_running, "<on_crash>restart" in info.metadata.xml) == (False, True)
