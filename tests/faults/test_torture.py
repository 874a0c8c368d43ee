"""A short campaign of random faults (``torture``), and whether its checker sees what it is there for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import pytest

from ..kit.cli import MARK
from ..kit.missing import missing
from ..kit.seeds import seed_of
from .torture.campaign import run_campaign
from .torture.faults import DONE, FAULTS, SOME_TIME, Fault, since
from .torture.plan import Plan, draw
from .torture.report import summary
from .torture.scene import Scene
from .torture.trial import run_trial
from .torture.world import World

pytestmark = pytest.mark.qemu
COUNT: Final = 60


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_goes_wrong(qemu: str) -> None:
    seed = seed_of("TORTURE_SEED")
    print(f"seed {seed}")  # pytest shows it if this fails
    outcomes = run_campaign(seed, range(COUNT), 2, lambda _: None)
    print(summary(outcomes))
    broken = [f"{each.plan.replay}\n{each}" for each in outcomes if each.broken]
    assert not broken, "\n".join(broken)
    impossible = {each.impossible for each in outcomes if each.impossible}
    if impossible:
        missing(f"not all faults can be had here: {'; '.join(impossible)}")


# The plan


def test_a_trial_is_drawn_the_same_again() -> None:
    plans = [draw(7, number) for number in range(2 * len(FAULTS))]
    assert plans == [draw(7, number) for number in range(2 * len(FAULTS))]
    assert plans != [draw(8, number) for number in range(2 * len(FAULTS))]


def test_every_fault_has_its_turn_in_every_round() -> None:
    for first in (0, len(FAULTS)):
        assert {draw(1, number).fault for number in range(first, first + len(FAULTS))} == set(FAULTS)


def test_a_fault_strikes_where_it_may() -> None:
    for number in range(20 * len(FAULTS)):
        plan = draw(1, number)
        instants = FAULTS[plan.fault].instants
        assert plan.instant in (instants or ("",))
        assert not (plan.paused and plan.instant in ("before stop", "stopped"))
        assert plan.instant == SOME_TIME or plan.instant in ("", *since("connected"), *since("opened", restores=True))


# The checker


def spoil_image(scene: Scene) -> None:
    with scene.image.open("r+b") as file:
        file.seek(scene.image.stat().st_size // 2)
        file.write(bytes(8192))


def remove_image(scene: Scene) -> None:
    scene.image.unlink()


def leave_file(scene: Scene) -> None:
    (scene.folder / ".guest.save.0123456789abcdef.streamsave-partial").write_bytes(b"LibvirtQemudPart")


def stop_guest(scene: Scene) -> None:
    scene.world.guest.ask("stop")


def reset_guest(scene: Scene) -> None:
    scene.world.guest.ask("system_reset")


def change_settings(scene: Scene) -> None:
    scene.world.guest.ask("migrate-set-parameters", max_bandwidth=12345678)


def leave_process(scene: Scene) -> None:
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: scene.run.mark})
    scene.after.callback(process.wait)
    scene.after.callback(process.kill)


@pytest.fixture
def world(qemu: str) -> Iterator[World]:
    with World() as world:
        yield world


def plan_of(fault: Fault, monkeypatch: pytest.MonkeyPatch, **others: object) -> Plan:
    monkeypatch.setitem(FAULTS, fault.name, fault)
    usual: dict[str, object] = {"format": "raw", "level": None, "then": "resume", "older": True, "paused": False}
    (instant,) = fault.instants or ("",)
    return replace(draw(1, 0), fault=fault.name, instant=instant, transport="fd", **{**usual, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("act", "complaint"),
    [
        (spoil_image, "what is there is not whole"),
        (remove_image, "the older image is gone"),
        (leave_file, "left in the folder"),
        (stop_guest, "the guest is paused, not running"),
        (reset_guest, "the guest's count has a seam"),
        (change_settings, "the settings are not as they were"),
        (leave_process, "processes are left"),
    ],
)
def test_what_is_wrong_after_a_save_is_seen(
    act: Callable[[Scene], None], complaint: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = Fault(name="lie", strike=act, instants=("let go",), early=DONE)
    outcome = run_trial(world, plan_of(lie, monkeypatch))
    assert any(complaint in each for each in outcome.broken), outcome


def test_a_save_without_a_lie_keeps_every_promise(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Fault(name="nothing", strike=lambda _: None, instants=("let go",), early=DONE)
    outcome = run_trial(world, plan_of(nothing, monkeypatch))
    assert (outcome.status, outcome.committed, outcome.broken) == (0, True, ())


def test_a_status_that_is_not_expected_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = replace(FAULTS["save: fsync fails"], early=DONE)
    outcome = run_trial(world, plan_of(fault, monkeypatch, amount=2.0))
    assert any("ended with 42, not [0]" in each for each in outcome.broken), outcome


def test_an_image_that_a_restore_changed_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lie = Fault(name="lie", restores=True, strike=spoil_image, instants=("let go",), early=DONE)
    outcome = run_trial(world, plan_of(lie, monkeypatch, by_command=False))
    assert outcome.broken == ("the image is not as it was",)
