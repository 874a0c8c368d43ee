"""An image that is edited is whole at every instant, whenever the power fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsave.endpoints import file
from streamsave.format.header import MAGIC_PARTIAL
from streamsave.format.metadata import Metadata
from streamsave.operations.edit import EditReport, edit
from streamsave.operations.image import OpenImage, read_info

from ..kit.images import restored
from ..kit.unfinished import without_nameless_files
from .edited import BEFORE, STREAM, payload, save, titled

pytestmark = pytest.mark.timeout(40)


@pytest.fixture(params=["zstd", "raw"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "guest.save"
    save(path, request.param)
    return path


TOUCHING = [
    *(
        (os, name)
        for name in ("writev", "pwrite", "copy_file_range", "fsync", "rename", "unlink", "fchmod", "fchown", "setxattr")
    ),
    (file, "exchange"),
    (file, "give_name"),
]


def died_at(image: Path, count: int, change: Callable[[], EditReport]) -> bool:
    """A child does ``change`` and dies, without a word, before its call number ``count`` that touches a disk; or did not."""
    pid = os.fork()
    if not pid:
        left = iter(range(count, -1, -1))
        for home, name in TOUCHING:
            real = getattr(home, name)

            def dying(*arguments: Any, real: Any = real, **options: Any) -> Any:
                if not next(left):
                    os._exit(9)
                return real(*arguments, **options)

            setattr(home, name, dying)
        try:
            change()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize(
    ("xml", "state"),
    [(None, "paused"), (titled(0), None), (titled(100_000), "paused"), (BEFORE.xml[:-99] + "TtT" + BEFORE.xml[-96:], None)],
)
def test_it_is_whole_whenever_it_is_looked_at(xml: str | None, state: Any, image: Path) -> None:
    before = image.read_bytes()
    old, new = (BEFORE, True), (Metadata(xml or BEFORE.xml, BEFORE.cookie), state is None)
    count, seen = 0, []
    while died_at(image, count, lambda: edit(image, xml=xml, state=state)):
        info = read_info(image)
        assert info.header.complete
        assert (info.metadata, info.header.was_running) in (old, new)
        assert restored(image)[0] == STREAM
        seen.append(image.read_bytes() == before)
        for left in image.parent.glob(".*"):
            head = left.read_bytes()[:16]
            assert head in (b"", MAGIC_PARTIAL) or payload(left) == payload(image)
            left.unlink()
        if not seen[-1]:
            edit(image, xml=BEFORE.xml, state="running")
            before = image.read_bytes()
        count += 1
    assert count >= 2
    assert True in seen
    info = read_info(image)
    assert (info.metadata, info.header.was_running) == new


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("xml", [titled(0), titled(100_000)])
def test_nothing_gets_the_name_before_it_is_durable(
    xml: str, nameless: bool, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power failure may undo: all that was not synced. The old file is not touched at all."""
    if not nameless:
        without_nameless_files(monkeypatch)
    calls: list[tuple[str, str]] = []
    with OpenImage(image) as old:
        before = old.source.read_at(1 << 20, 0)
        for home, name in TOUCHING:
            real = getattr(home, name)

            def noted(first: Any, *rest: Any, name: str = name, real: Any = real, **options: Any) -> Any:
                fd = rest[0] if name == "copy_file_range" else first
                file = os.readlink(f"/proc/self/fd/{fd}") if isinstance(fd, int) else str(fd)
                calls.append((name, Path(file).name))
                return real(first, *rest, **options)

            monkeypatch.setattr(home, name, noted)
        edit(image, xml=xml)
        assert old.source.read_at(1 << 20, 0) == before
    assert not [call for call in calls if call[1] == image.name], "the image itself"
    exchanged = next(at for at, (name, _) in enumerate(calls) if name == "exchange")
    temporary = calls[exchanged][1]
    after = list(dict.fromkeys(calls[exchanged + 1 :]))  # it is looked for again when all is closed
    assert after == [("fsync", image.parent.name), ("unlink", temporary)], "the old one, last of all"
    header = max(at for at, (name, _) in enumerate(calls) if name == "pwrite")
    new = calls[header][1]
    assert calls[header - 1] == ("fsync", new), "before the complete header"
    assert calls[header + 1] == ("fsync", new), "and behind it"
    assert header + 2 == exchanged
    if nameless:
        assert new.endswith("(deleted)")
        assert calls[header - 2] == ("give_name", new), "some file systems make nothing durable that has none"
    else:
        assert new == temporary
