"""A short campaign of random damage (``damage.py``); ``make damage`` runs ten thousand trials."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from streamsave.codecs.registry import codecs
from streamsave.errors import CorruptImageError
from streamsave.operations.reports import RestoreReport

from ..kit.images import restored
from ..kit.seeds import seed_of
from . import damage
from .damage import CHANGES, Trial, places, run_campaign, run_trial, trial_count, what_is
from .damage_samples import Sample

COUNT = 300


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_damage_is_an_error_or_harmless() -> None:
    seed = seed_of("DAMAGE_SEED")
    print(f"seed {seed}")  # pytest shows it if this fails
    numbers = Random(seed).sample(range(100_000), COUNT)
    trials = run_campaign(seed, numbers, workers=2)
    broken = [f"--only {trial.number}: {trial}" for trial in trials if trial.broken]
    assert not broken, f"python -m tests.faults.damage --seed {seed} " + "\n".join(broken)
    outcomes = Counter(trial.outcome for trial in trials)
    assert outcomes["CorruptImageError"] > COUNT // 4, outcomes
    assert outcomes["good"] > COUNT // 50, outcomes
    for name in CHANGES:
        assert any(trial.change == f"{name}: done" for trial in trials), name
        assert any(trial.change.startswith(f"{name}: ") and "Error" in trial.change for trial in trials), name
    assert sum(trial.hit for trial in trials) > COUNT * 0.9


def test_trials_are_spread_evenly_and_come_out_the_same_again() -> None:
    every = {(sample.name, region, kind) for sample, region, kind in map(what_is, range(trial_count()))}
    assert len(every) == trial_count()
    assert {sample.name for sample, _ in places()} >= {*codecs(), "bzip2 -c", "zstd -c", "pzstd -1 -c", "tiny.lzop.save"}
    one, other = run_trial(7, 123), run_trial(7, 123)
    assert (one.outcome, one.change, one.hit) == (other.outcome, other.change, other.hit)


def trial_where(**wanted: str) -> int:
    """The number of a trial of that sample, region and kind."""
    for number in range(trial_count()):
        sample, region, kind = what_is(number)
        if {"sample": sample.name, "region": region, "kind": kind} == wanted:
            return number
    raise LookupError(wanted)


@pytest.mark.parametrize("lie", ["wrong bytes", "a crash", "a descriptor"])
def test_a_broken_promise_is_seen(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, kept = restored, []

    def lying(path: Path) -> tuple[bytes, RestoreReport]:
        if lie == "a crash":
            raise ZeroDivisionError
        if lie == "a descriptor":
            kept.append(os.open("/dev/null", os.O_RDONLY))
        stream, report = honest(path)
        return (b"?" + stream[1:] if lie == "wrong bytes" else stream), report

    number = trial_where(sample="zstd", region="metadata", kind="flip")
    assert run_trial(1, number).broken == ""
    monkeypatch.setattr(damage, "restored", lying)
    trial: Trial = run_trial(1, number)
    assert {"wrong bytes": "wrong bytes", "a crash": "raised ZeroDivisionError", "a descriptor": "descriptor is left"}[
        lie
    ] in trial.broken
    for fd in kept:
        os.close(fd)


@pytest.mark.parametrize("lie", ["changed", "left"])
def test_a_change_that_fails_and_leaves_something_is_seen(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path, data: bytes, sample: Sample) -> str:
        target = path if lie == "changed" else path.with_name("rest")
        target.write_bytes(b"?")
        raise CorruptImageError("as it may be")

    monkeypatch.setattr(damage, "CHANGES", {"convert": failing})
    number = trial_where(sample="gzip", region="frames", kind="flip")
    assert f"convert failed and {lie}" in run_trial(1, number).broken
