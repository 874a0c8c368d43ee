"""Editing an image: what changes and what does not, in place or anew, and that the image is whole at every instant."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import codecs
from streamsave.endpoints import file, replacement
from streamsave.endpoints.replacement import SECTOR_SIZE, overwrite
from streamsave.errors import Aborted, DestinationError, IncompleteImageError, UsageError
from streamsave.format.header import HEADER_SIZE, MAGIC_PARTIAL
from streamsave.format.metadata import Metadata
from streamsave.operations.convert import convert
from streamsave.operations.edit import EditReport, edit
from streamsave.operations.image import OpenImage, read_info
from streamsave.options import CompressOptions
from streamsave.units import KiB

from ..kit.cli import Run, streamsave
from ..kit.images import METADATA, made_up_stream, restored, save_bytes
from ..kit.unfinished import without_nameless_files
from ..kit.waiting import until

pytestmark = pytest.mark.timeout(40)
GOLDEN = Path(__file__).parents[1] / "data" / "golden"
STREAM = made_up_stream(200)
NAMES = tuple(codecs())


def titled(size: int) -> str:
    """An XML of one guest with ``size`` bytes more or less in it."""
    return METADATA.xml.replace("</name>", f"</name><title>{'t' * size}</title>")


BEFORE = Metadata(titled(3000), METADATA.cookie)
"""Of several sectors, as real ones are."""


def save(path: Path, name: str) -> None:
    """An image with ``BEFORE``."""
    save_bytes(STREAM, path, format=name)
    convert(path, path, CompressOptions(format=name), xml=BEFORE.xml)


@pytest.fixture(params=["zstd", "raw"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "guest.save"
    save(path, request.param)
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """One that libvirt wrote: its payload does not start at a multiple of 4096."""
    path = tmp_path / "tiny.save"
    path.write_bytes((GOLDEN / "tiny.zstd.save").read_bytes())
    return path


def payload(path: Path) -> bytes:
    """All that follows the metadata, the index too."""
    return path.read_bytes()[read_info(path).payload_offset :]


def unchanged_but(before: bytes, path: Path) -> list[int]:
    """The offsets of the bytes that changed."""
    after = path.read_bytes()
    assert len(after) == len(before)
    return [at for at in range(len(before)) if before[at] != after[at]]


def test_the_guests_state_is_one_byte(image: Path) -> None:
    before, inode = image.read_bytes(), image.stat().st_ino
    report = edit(image, state="paused")
    assert (report.changed, report.rewritten, report.was_running) == (True, False, False)
    assert unchanged_but(before, image) == [24]
    assert image.stat().st_ino == inode
    assert not read_info(image).header.was_running
    assert edit(image, state="running").was_running
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("xml", "state"), [(None, None), (BEFORE.xml, None), (BEFORE.xml, "running"), (None, "running"), (str, None)]
)
def test_nothing_is_written_when_nothing_changes(xml: Any, state: Any, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.stat()
    monkeypatch.setattr(os, "pwrite", None)
    monkeypatch.setattr(os, "writev", None)
    report = edit(image, xml=xml, state=state)
    assert (report.changed, report.rewritten) == (False, False)
    assert image.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 5000, 65_000, 70_000, 300_000])
def test_an_xml_within_the_padding_and_beyond_it(size: int, name: str, tmp_path: Path) -> None:
    image = tmp_path / "guest.save"
    save(image, name)
    old = payload(image)
    report = edit(image, xml=titled(size))
    info = read_info(image)
    assert (report.changed, report.rewritten) == (True, True)
    assert info.metadata == Metadata(titled(size), METADATA.cookie)
    assert info.payload_offset % 4096 == 0
    assert info.index is not None
    assert info.header.was_running
    assert report.image_size == image.stat().st_size
    assert payload(image) == old
    assert restored(image)[0] == STREAM
    assert info.payload_offset - HEADER_SIZE - info.header.cookie_offset - len("<cookie/>") - 1 >= 64 * KiB
    edit(image, xml=BEFORE.xml)
    assert read_info(image).metadata == BEFORE


def test_a_change_within_a_sector_is_made_in_place(image: Path) -> None:
    edit(image, xml=titled(3))
    before, inode = image.read_bytes(), image.stat().st_ino
    report = edit(image, xml=titled(3).replace("ttt", "TtT"))
    assert (report.changed, report.rewritten) == (True, False)
    assert image.stat().st_ino == inode
    assert len(unchanged_but(before, image)) == 2
    assert read_info(image).metadata.xml == titled(3).replace("ttt", "TtT")
    report = edit(image, xml=titled(3), state="paused")
    assert not report.rewritten, "header and XML share the first sector"
    assert restored(image)[0] == STREAM


def test_a_change_across_a_border_between_sectors_is_not(image: Path) -> None:
    edit(image, xml=titled(2000))
    xml = titled(2000)
    at = SECTOR_SIZE * 2 - HEADER_SIZE
    across = xml[: at - 1] + "TT" + xml[at + 1 :]
    assert edit(image, xml=across).rewritten
    within = across[:at] + "TT" + across[at + 2 :]
    assert not edit(image, xml=within).rewritten
    assert read_info(image).metadata.xml == within


def test_more_than_a_sector_is_never_overwritten(image: Path) -> None:
    with OpenImage(image) as opened:
        for offset, size in ((0, 513), (511, 2), (1000, 100)):
            with pytest.raises(ValueError, match="not in one sector"):
                overwrite(image, opened.source.fileno(), opened.status, bytes(size), offset)


def test_of_libvirts_image_everything_else_stays(foreign: Path) -> None:
    data = bytearray(foreign.read_bytes())
    data[40:60] = os.urandom(20)  # words that a later libvirt may use
    data[24] = 7  # as true as 1
    foreign.write_bytes(data)
    old, before = payload(foreign), read_info(foreign)
    edit(foreign, xml=lambda xml: xml.replace("</name>", "</name><title>edited</title>"))
    after = read_info(foreign)
    assert after.header.unused == before.header.unused
    assert (after.header.format, after.header.version, after.header.was_running) == (5, 2, True)
    assert after.metadata.cookie == (GOLDEN / "tiny.cookie.xml").read_text()
    assert "<title>edited</title>" in after.metadata.xml
    assert payload(foreign) == old


@pytest.mark.parametrize("change", [{"state": "paused"}, {"xml": lambda xml: xml.replace("</name>", "</name><title/>")}])
def test_the_byte_order_stays(change: Any, foreign: Path) -> None:
    data = bytearray(foreign.read_bytes())
    for at in range(16, 36, 4):
        data[at : at + 4] = data[at : at + 4][::-1]
    foreign.write_bytes(data)
    before, old = read_info(foreign).header.byte_order, payload(foreign)
    edit(foreign, **change)
    info = read_info(foreign)
    assert info.header.byte_order == before == "big"
    assert info.header.was_running == ("xml" in change)
    assert payload(foreign) == old


def test_owner_mode_and_attributes_stay(image: Path, tmp_path: Path) -> None:
    image.chmod(0o640)
    os.setxattr(image, "user.note", b"kept")
    if os.geteuid() == 0:
        os.chown(image, 1234, 2345)
    link = tmp_path / "link"
    link.symlink_to(image.name)
    before = image.stat()
    report = edit(link, xml=titled(10))
    after = image.stat()
    assert link.is_symlink()
    assert report.rewritten
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.getxattr(image, "user.note") == b"kept"
    assert stat.S_IMODE(after.st_mode) == 0o640


@pytest.mark.parametrize(
    ("xml", "complaint"),
    [
        ("<domain><name>another</name></domain>", "the new XML has the name another, the image made up"),
        ("<domain", "not well-formed"),
        (BEFORE.xml + "\0", "not well-formed"),
        (titled(5 << 20), "are the most that is read"),
    ],
)
def test_what_cannot_be_is_refused(xml: str, complaint: str, image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(UsageError, match=complaint):
        edit(image, xml=xml)
    assert image.read_bytes() == before


def test_another_uuid_is_refused_however_it_is_written(foreign: Path) -> None:
    uuid = read_info(foreign).metadata.xml.split("<uuid>")[1].split("</uuid>")[0]
    edit(foreign, xml=lambda xml: xml.replace(uuid, uuid.upper().replace("-", "")))
    with pytest.raises(UsageError, match="the new XML has the uuid"):
        edit(foreign, xml=lambda xml: xml.replace(uuid.upper().replace("-", ""), uuid[:-1] + "f" * (uuid[-1] != "f") or "0"))


def test_a_state_that_is_none_is_refused(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(UsageError, match="state must be one of running, paused, not 'gone'"):
        edit(image, state="gone")  # type: ignore[arg-type]
    assert image.read_bytes() == before


def test_an_xml_that_was_broken_can_be_mended(image: Path) -> None:
    data = image.read_bytes()
    image.write_bytes(data.replace(b"<domain>", b"<domain ", 1))
    edit(image, xml=BEFORE.xml)
    assert image.read_bytes() == data


def test_a_partial_image_is_refused(image: Path) -> None:
    image.write_bytes(MAGIC_PARTIAL + image.read_bytes()[16:])
    with pytest.raises(IncompleteImageError):
        edit(image, state="paused")


@pytest.mark.parametrize("what", ["written", "replaced", "removed"])
@pytest.mark.parametrize("xml", [titled(100), titled(2999) + "\n"], ids=["anew", "in place"])
def test_an_image_that_changes_while_it_is_edited_is_left_alone(what: str, xml: str, image: Path) -> None:
    others = image.read_bytes()

    def change(_xml: str) -> str:
        if what == "written":
            image.write_bytes(others)
        else:
            image.rename(image.with_name("old"))
            if what == "replaced":
                image.write_bytes(others)
        return xml

    with pytest.raises(DestinationError, match="is gone" if what == "removed" else "somebody else changed the image"):
        edit(image, xml=change)
    assert not list(image.parent.glob(".*"))
    if what != "removed":
        assert image.read_bytes() == others


@pytest.mark.parametrize("number", [22, 18, 95, 38])
def test_where_the_kernel_cannot_copy(number: int, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, calls = os.copy_file_range, iter(range(100))

    def some(source: int, target: int, size: int, *offsets: int) -> int:
        if next(calls) > 0:
            raise OSError(number, os.strerror(number))
        return copy(source, target, min(size, 10_000), *offsets)

    monkeypatch.setattr(os, "copy_file_range", some)
    old = payload(image)
    edit(image, xml=titled(100))
    assert payload(image) == old
    assert restored(image)[0] == STREAM


def test_a_full_disk(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    before = image.read_bytes()
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(
        DestinationError, match="cannot copy the payload to offset 69632: No space left on device; free some"
    ):
        edit(image, xml=titled(100))
    assert image.read_bytes() == before
    assert os.listdir(image.parent) == [image.name]


@pytest.mark.parametrize("for_good", [False, True])
def test_a_sector_that_the_disk_does_not_take(for_good: bool, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there is there again; or if that fails too the error says that nobody knows."""
    calls = iter(range(100))

    def failing(fd: int) -> None:
        if next(calls) == 0 or for_good:
            raise OSError(5, os.strerror(5))

    before = image.read_bytes()
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DestinationError, match="cannot be written at offset 24: Input/output error") as caught:
        edit(image, state="paused")
    assert image.read_bytes() == before
    notes = [f"{image} could not be changed back: after a power failure it may be as asked for, or not"]
    assert getattr(caught.value, "__notes__", []) == notes * for_good


@pytest.mark.parametrize("call", ["copy_file_range", "fsync"])
def test_cancelled(call: str, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, real, calls = Cancellation(), getattr(os, call), iter(range(100))

    def cancelling(*arguments: Any) -> Any:
        if call != "fsync" or next(calls) == 1:  # the first one is the folder's
            cancel.cancel("enough")
        return real(*arguments)

    monkeypatch.setattr(os, call, cancelling)
    monkeypatch.setattr(replacement, "COPY_SIZE", 100 * KiB)
    before = image.read_bytes()
    with pytest.raises(Aborted, match="enough"):
        edit(image, xml=titled(100), cancel=cancel)
    assert image.read_bytes() == before
    assert os.listdir(image.parent) == [image.name]


# -- power failures --------------------------------------------------------------------------------------------------------

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
    assert calls[header + 1] == ("fsync", new), "behind the complete header"
    if nameless:
        assert new.endswith("(deleted)")
        assert calls[header + 2 : exchanged] == [("give_name", new)], "all of it is durable by then"
    else:
        assert new == temporary
        assert calls[header - 1] == ("fsync", new), "before the complete header"
        assert header + 2 == exchanged


# -- the command line ------------------------------------------------------------------------------------------------------


def editor(folder: Path, script: str) -> dict[str, str]:
    path = folder / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"EDITOR": f"{path} --wait", "VISUAL": "", "TMPDIR": str(folder)}


def test_in_an_editor(image: Path, tmp_path: Path) -> None:
    env = editor(
        tmp_path,
        'test "$1" = --wait && cp "$2" seen && sed -i "s/^/<!-- seen -->/" "$2"',
    )
    done = Run(["edit", image], env=env, cwd=tmp_path).finish()
    assert done.status == 0, done.err
    assert (tmp_path / "seen").read_text() == BEFORE.xml
    assert read_info(image).metadata.xml == "<!-- seen -->" + BEFORE.xml
    assert not list(tmp_path.glob("streamsave-edit*"))


def test_an_editor_that_changes_nothing(image: Path, tmp_path: Path) -> None:
    before = image.stat()
    done = streamsave("edit", image, env=editor(tmp_path, "true"))
    assert (done.status, "is unchanged: nothing was written" in done.out) == (0, True), done.err
    assert image.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("script", "status", "complaint"),
    [
        ('sed -i s/tt/TT/ "$2"; exit 3', 130, "ended with status 3: the image is as it was"),
        ('sed -i s/tt/TT/ "$2"; kill -9 $$', 130, "was ended by signal 9: the image is as it was"),
        ('sed -i s/made/un-made/ "$2"', 2, "the new XML has the name un-made up"),
        ('echo "<domain" > "$2"', 2, "not well-formed"),
        ('touch "$OTHER"; sed -i "s,</name>,</name><title/>," "$2"', 42, "somebody else changed the image"),
    ],
)
def test_what_was_written_in_vain_is_kept(script: str, status: int, complaint: str, image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    done = streamsave("edit", image, env=editor(tmp_path, script) | {"OTHER": str(image)})
    assert (done.status, complaint in done.error) == (status, True), done.err
    (kept,) = tmp_path.glob("streamsave-edit.*/guest.xml")
    assert f"what you wrote is in {kept}; use it with --xml" in done.err
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert image.read_bytes() == before


@pytest.mark.parametrize("script", ["exit 3", 'rm "$2"; exit 3', 'rm "$2"', "kill -9 $$"])
def test_nothing_is_left_of_what_nobody_changed(script: str, image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    done = streamsave("edit", image, env=editor(tmp_path, script))
    assert done.status == (41 if script == 'rm "$2"' else 130), done.err
    assert "what you wrote" not in done.err
    assert not list(tmp_path.glob("streamsave-edit*"))
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "why"), [("/nowhere/editor", "not found"), ("nosuch --wait", "not found"), ("/", "Permission denied")]
)
def test_an_editor_that_is_none(name: str, why: str, image: Path, tmp_path: Path) -> None:
    done = streamsave("edit", image, env={"EDITOR": name, "VISUAL": "", "TMPDIR": str(tmp_path)})
    assert done.status == 2
    assert done.err == (
        f"streamsave: error: the editor '{name}' cannot be run: {why}; set VISUAL or EDITOR to one that is installed,"
        " or use --xml FILE\n"
    )
    assert not list(tmp_path.glob("streamsave-edit*"))


def test_no_place_for_the_editors_file(image: Path, tmp_path: Path) -> None:
    done = streamsave("edit", image, env={"EDITOR": "true", "TMPDIR": str(tmp_path)}, prefix=["prlimit", "--fsize=100"])
    assert (done.status, "cannot be written to a file for the editor: File too large" in done.error) == (42, True), done.err
    assert not list(tmp_path.glob("streamsave-edit*"))


def test_ctrl_c_in_the_editor_is_the_editors(image: Path, tmp_path: Path) -> None:
    import signal

    env = editor(tmp_path, f'trap "" INT; touch {tmp_path}/here; sleep 1; sed -i s/tt/TT/ "$2"')
    run = Run(["edit", image], env=env)
    until((tmp_path / "here").exists)
    os.killpg(run.process.pid, signal.SIGINT)
    done = run.finish()
    assert done.status == 0, done.err
    assert read_info(image).metadata.xml == BEFORE.xml.replace("tt", "TT", 1)


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("", 0), ("n", 2)])
def test_what_cannot_be_may_be_edited_again(answer: str, status: int, image: Path, tmp_path: Path) -> None:
    script = (
        'if test -e again; then sed -i "s/un-made/made/; s/tt/TT/" "$2"; else touch again; sed -i s/made/un-made/ "$2"; fi'
    )
    master, slave = pty.openpty()
    try:
        os.write(master, f"{answer}\n".encode())
        command = [sys.executable, "-m", "streamsave.cli", "edit", str(image)]
        env = {**os.environ, **editor(tmp_path, script)}
        done = subprocess.run(command, stdin=slave, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=30)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == status, done.stderr
    assert "un-made up" in done.stderr
    assert "Edit it again? [Y/n]" in done.stderr
    assert read_info(image).metadata.xml == (BEFORE.xml if status else BEFORE.xml.replace("tt", "TT", 1))


def test_from_a_file(image: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.xml"
    file.write_text(titled(7))
    done = streamsave("edit", image, "--xml", file, "--set-paused", "--json")
    assert done.status == 0, done.err
    assert (done.event["event"], done.event["changed"], done.event["was_running"]) == ("edited", True, False)
    assert read_info(image).metadata.xml == titled(7)
    assert "in place" in streamsave("edit", image, "--set-running").out
