"""The demo: one guest through every format, and what it says when something is not as it should be."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.codecs.registry import codecs
from streamsave.demo import demo, machine
from streamsave.demo.demo import HEADINGS, DemoRow, run_demo
from streamsave.errors import Aborted, FormatError, ProcessError
from streamsave.format.header import HEADER_SIZE, POINTER_SIZE
from streamsave.operations.image import read_info
from streamsave.operations.restore import restore
from streamsave.units import MiB

pytestmark = pytest.mark.qemu
MEMORY_SIZE = 32 * MiB


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whatever this host has: the probe has tests of its own."""
    if "probe" not in request.node.name:
        monkeypatch.setattr(demo, "probe_accelerator", lambda _qemu: "tcg")


def test_one_guest_goes_through_every_format(qemu: str) -> None:
    seen: list[object] = []
    rows = run_demo(qemu=qemu, memory_size=MEMORY_SIZE, on_guest=seen.append, on_row=seen.append)
    assert [row.format for row in rows] == list(codecs())
    assert seen[1:] == list(rows)
    assert seen[0] == demo.DemoGuest(accelerator="tcg", memory_size=MEMORY_SIZE, command=seen[0].command)  # type: ignore[attr-defined]
    for row in rows:
        assert row.memory_intact, row
        assert row.counter_after >= row.counter_before + 2
        assert row.image_size < MEMORY_SIZE
        assert 0 < row.stopped_s < row.save_s
        assert len(row.cells()) == len(HEADINGS)
    for earlier, later in pairwise(rows):
        assert later.counter_before >= earlier.counter_after, "the same guest, and not a new one"
    ratios = {row.format: row.ratio for row in rows}
    assert 2 < ratios["gzip"] < 4, "not what a guest's memory is like"
    assert ratios["raw"] == 1


def test_damaged_memory_is_seen(qemu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One letter of one page, changed in a raw image that has lost its index, so that nobody else sees it."""

    def damage_and_restore(image: Path, **others: Any) -> object:
        data, info = image.read_bytes(), read_info(image)
        at = data.rindex(b"wake")
        with image.open("r+b") as file:
            file.seek(at)
            file.write(b"woke")
            file.seek(HEADER_SIZE - POINTER_SIZE)
            file.write(bytes(POINTER_SIZE))
            file.truncate(info.payload_offset + info.payload_size)
        return restore(image, **others)

    monkeypatch.setattr(demo, "restore", damage_and_restore)
    (row,) = run_demo(formats=["raw"], qemu=qemu, memory_size=MEMORY_SIZE)
    assert not row.memory_intact
    assert row.cells()[-1] == "DAMAGED"


def test_unknown_format_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "Machine", lambda *_: pytest.fail("something was started"))
    with pytest.raises(FormatError, match="nonsense"):
        run_demo(formats=["raw", "nonsense"])


def test_missing_qemu_is_named_with_the_package() -> None:
    with pytest.raises(ProcessError, match=r"no-such-qemu is not installed.*apt-get install qemu-system-x86"):
        run_demo(qemu="no-such-qemu")


def test_a_file_that_is_no_qemu(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("no program")
    pretender = machine.Machine(tmp_path / "console", tmp_path / "qmp", qemu=str(tmp_path / "qemu"))
    with pytest.raises(ProcessError, match=r"does not start: Permission denied; is it QEMU's binary\?"):
        pretender.start(tmp_path / "stderr")


def test_qemu_that_does_not_start_is_quoted(fake_qemu: Callable[[str], str]) -> None:
    with pytest.raises(ProcessError, match=r"ended with status 3: no machine today") as caught:
        run_demo(qemu=fake_qemu("echo no machine today >&2; exit 3"))
    assert caught.value.stderr == "no machine today"


def test_guest_that_never_comes_up_is_an_error(fake_qemu: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "BOOT_S", 0.3)
    with pytest.raises(ProcessError, match="did not count to 2"):
        run_demo(qemu=fake_qemu("exec sleep 60"))


def test_cancelled_at_any_time(qemu: str) -> None:
    cancel = Cancellation()
    rows: list[DemoRow] = []

    def stop(row: DemoRow) -> None:
        rows.append(row)
        cancel.cancel("enough")

    with pytest.raises(Aborted, match="enough"):
        run_demo(qemu=qemu, memory_size=MEMORY_SIZE, on_row=stop, cancel=cancel)
    assert len(rows) == 1
    with pytest.raises(Aborted, match="enough"):
        run_demo(qemu=qemu, memory_size=MEMORY_SIZE, cancel=cancel)


@pytest.fixture
def fake_qemu(tmp_path: Path) -> Callable[[str], str]:
    """Makes a shell script that plays QEMU; its path. ``$console`` in it is the console's file."""

    def make(script: str) -> str:
        path = tmp_path / "fake-qemu"
        find_console = 'console=$(echo "$*" | sed "s/.*append=on,path=\\([^ ]*\\).*/\\1/")'
        path.write_text(f"#!/bin/sh\n{find_console}\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


@pytest.fixture
def _kvm_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)


def test_probe_without_kvm_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert machine.probe_accelerator("no-such-qemu") == "tcg"


@pytest.mark.usefixtures("_kvm_is_there")
def test_probe_believes_a_guest_that_runs(fake_qemu: Callable[[str], str]) -> None:
    assert (
        machine.probe_accelerator(fake_qemu('echo "$*" | grep -q -e "-accel kvm" && echo up >"$console"; exec sleep 60'))
        == "kvm"
    )


@pytest.mark.usefixtures("_kvm_is_there")
def test_probe_does_not_wait_for_a_guest_that_hangs(
    fake_qemu: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "KVM_PROBE_S", 0.4)
    began = time.monotonic()
    assert machine.probe_accelerator(fake_qemu("exec sleep 60")) == "tcg"
    assert time.monotonic() - began < 2


@pytest.mark.usefixtures("_kvm_is_there")
def test_probe_does_not_wait_for_a_qemu_that_ended(fake_qemu: Callable[[str], str]) -> None:
    began = time.monotonic()
    assert machine.probe_accelerator(fake_qemu("exit 1")) == "tcg"
    assert time.monotonic() - began < machine.KVM_PROBE_S / 2
