"""The power fails at any moment of any way in which an image is written: what calls itself complete verifies and restores.

The model of a crash is that of ``powerloss/crash.py``. ``make powerloss`` looks at more of the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

import pytest

from streamsave.endpoints.leftovers import TEMPORARY_SUFFIX
from streamsave.operations.restore import restore
from streamsave.operations.save import save
from streamsave.operations.verify import verify
from streamsave.options import SaveOptions
from streamsave.units import KiB, MiB

from ..conftest import Launch
from ..kit.images import restored, save_bytes
from ..kit.missing import require_tools
from ..kit.qemu import demo_guest
from ..kit.seeds import seed_of
from .powerloss.campaign import Trial
from .powerloss.crash import NOT, WHOLE, moments
from .powerloss.events import COMPLETE, FOLDER, Disk, Event, Named, Recording, Resized, Synced, Written
from .powerloss.judge import Expected, Findings, Judge, examine
from .powerloss.recorder import Recorder, recording
from .powerloss.scenarios import IMAGE, ONE_OF_BOTH, Scenario, new_stream, scenario_named, scenarios
from .powerloss.tracing import can_trace, trace

SEED: Final = seed_of("POWERLOSS_SEED")
ALL: Final = scenarios("zstd")
DEVICES: Final = [each for each in scenarios("raw", "gzip", "snappy") if each.on_device and each.name.startswith("save")]
TRACED: Final = ("save zstd over an image", "save gzip onto a device", "save into a descriptor", "edit a sector")
TRACED_TOO: Final = ("convert to zstd in place", "edit by a new file", "save a domain over an image")


def by_name(scenarios: Iterable[Scenario]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scenario", list(scenarios), ids=lambda each: each.name.replace(" ", "_"))


def trial_of(scenario: Scenario) -> Trial:
    print(f"POWERLOSS_SEED={SEED} shows the same again")
    return Trial(scenario, SEED)


@by_name([*ALL, *DEVICES])
def test_at_any_moment(scenario: Scenario) -> None:
    trial = trial_of(scenario)
    findings = trial.power_fails()
    assert not findings.complaints, findings.complaints[0]
    assert len(findings.distinct) >= 2, "no two ways to fail: nothing was looked at"
    assert trial.needed_barriers() == scenario.barriers, "the same without one of its fsyncs, each in turn, is found out"


@by_name(ALL)
def test_after_a_fault(scenario: Scenario) -> None:
    """An fsync or a rename fails, and perhaps everything after it; then the power."""
    held_up(trial_of(scenario).power_fails_after_faults())


@by_name(each for each in ALL if each.guarded)
def test_after_a_kill(scenario: Scenario) -> None:
    """The guardian does its part, and the power fails in the midst of it."""
    held_up(trial_of(scenario).power_fails_after_kills())


def held_up(trials: Iterable[tuple[str, Findings]]) -> None:
    count = 0
    for label, findings in trials:
        assert not findings.complaints, f"{label}: {findings.complaints[0]}"
        count += 1
    assert count >= 2


@by_name(scenario_named(name, "zstd", "gzip") for name in (*TRACED, *TRACED_TOO))
def test_as_the_kernel_sees_it(scenario: Scenario) -> None:
    """strace and the recorder in this process see the same."""
    require_tools("strace")
    if not can_trace():  # no program can be installed against that, so CI may skip it too
        pytest.skip(
            "ptrace, which strace needs, is forbidden here: allow it (--cap-add SYS_PTRACE, or kernel.yama.ptrace_scope)"
        )
    traced, recorded = Trial(scenario, SEED, recorder=trace), trial_of(scenario)
    findings = traced.power_fails()
    assert not findings.complaints, findings.complaints[0]
    if scenario.steady:
        assert traced.recording.shape() == recorded.recording.shape()


def test_the_next_save_works_and_tidies_up(tmp_path: Path) -> None:
    """Whatever a crash left: unfinished files go, and complete ones stay."""
    trial = trial_of(scenario_named("save zstd over an image", "zstd"))
    samples = trial.power_fails(keep=True).samples
    for number, (roles, files) in enumerate(samples.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        save_bytes(new_stream(), folder / IMAGE)
        assert restored(folder / IMAGE)[0] == new_stream()
        left = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.endswith(TEMPORARY_SUFFIX)}
        whole = {name: data for name, data in files.items() if name.endswith(TEMPORARY_SUFFIX) and data.startswith(COMPLETE)}
        assert left == whole, roles
    assert {len(roles) for roles in samples} == {1, 2}, "with and without a temporary file"


@pytest.mark.qemu
def test_a_guest(launch: Launch, tmp_path: Path) -> None:
    """Every image that a crash leaves of a real save restores into a real QEMU."""
    folder = (tmp_path / "images").resolve()
    folder.mkdir()
    image = folder / IMAGE
    guest = launch(demo_guest(16 * MiB)).boot()
    guest.qmp().close()
    save(guest.monitor, image, SaveOptions(format="raw", then="resume"))
    earlier = image.read_bytes()
    recorder = Recorder(folder)
    with recording(recorder):
        save(guest.monitor, image, SaveOptions(format="zstd"))
    seen = recorder.recording()
    assert seen.disk_after().contents() == {IMAGE: image.read_bytes()}
    expected = Expected(
        destination=IMAGE,
        sights=ONE_OF_BOTH,
        earlier=earlier,
        final=image.read_bytes(),
        stream_sha256=hashlib.sha256(restored(image)[0]).hexdigest(),
    )
    findings = examine(seen, Judge(expected), Random(SEED), keep=True)
    assert not findings.complaints, findings.complaints[0]
    contents = {data for files in findings.samples.values() for data in files.values() if data.startswith(COMPLETE)}
    assert contents == {earlier, expected.final}
    for content in contents:
        (tmp_path / "found").write_bytes(content)
        verify(tmp_path / "found")
        new = launch(demo_guest(16 * MiB), incoming=True)
        new.qmp().close()
        restore(tmp_path / "found", monitor=new.monitor)
        new.wait_for_ticks()
        new.kill()


# The model


def states_after(*events: Event, before: bytes = b"") -> set[bytes]:
    """What the file ``f`` may hold after a crash, in the end; b"-": it is not there."""
    disk = Disk({0: bytearray(before)}, {"f": 0})
    *_, (moment, is_fullest) = moments(Recording(disk, events))
    assert is_fullest
    states = moment.many(Random(1), subsets=8, samples=300)
    return {bytes(state.content(state.names()["f"])) if "f" in state.names() else b"-" for state in states}


def test_what_is_synced_is_certain() -> None:
    assert states_after(Written(0, 0, b"new"), Synced(0)) == {b"new"}
    assert states_after(Written(0, 0, b"new"), Synced(FOLDER), before=b"old") == {b"old", b"new"}
    assert states_after(Named((("f", 1),)), Written(1, 0, b"x"), Synced(1)) == {b"", b"x"}


def test_writes_may_be_torn_and_sizes_come_alone() -> None:
    sectors = [bytes([letter]) * 512 for letter in b"abc"]
    states = states_after(Written(0, 0, b"".join(sectors)), before=bytes(3 * 512))
    assert len(states) == 8
    assert all(state[at : at + 512] in (sectors[at // 512], bytes(512)) for state in states for at in (0, 512, 1024))
    assert {b"", b"ab", b"\0\0"} <= states_after(Written(0, 0, b"ab"))
    assert states_after(Written(0, 0, b"ab"), Resized(0, 1)) >= {b"", b"a", b"ab", b"\0"}


def test_a_later_write_of_what_is_synced_wins() -> None:
    assert states_after(Written(0, 0, b"a"), Written(0, 0, b"b"), Synced(0)) == {b"b"}
    assert states_after(Written(0, 0, b"a"), Synced(0, well=False), Written(0, 0, b"b"), Synced(0)) == {b"b"}


def test_an_fsync_that_failed_is_not_made_good_by_the_next() -> None:
    assert states_after(Written(0, 0, b"a"), Synced(0, well=False), Synced(0), before=b"z") == {b"a", b"z"}
    before = bytes(4 * KiB)
    states = states_after(Written(0, 0, b"a"), Synced(0, well=False), Written(0, 600, b"b"), Synced(0), before=before)
    assert {(state[:1], state[600:601]) for state in states} == {(b"a", b"b"), (b"\0", b"b")}


def test_names_change_as_a_whole() -> None:
    exchanged = Named((("f", 1), ("g", 0)))
    disk = Disk({0: bytearray(b"0"), 1: bytearray(b"1")}, {"f": 0, "g": 1})
    *_, (moment, _) = moments(Recording(disk, (exchanged, Named((("g", None),)))))
    found = [moment.state(fates).names() for fates in ((NOT, NOT), (WHOLE, NOT), (NOT, WHOLE), (WHOLE, WHOLE))]
    assert found == [{"f": 0, "g": 1}, {"f": 1, "g": 0}, {"f": 0}, {"f": 1}]
