"""The list is true, its trials tell what they should, and a few of them in every test run; ``make mutations`` tries all."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ..kit.cli import ROOT
from ..kit.seeds import seed_of
from .catalogue import MUTATIONS
from .copies import Copy
from .mutation import Mutation, StaleError
from .trials import NotGreenError, Trial, Verdict, run_campaign

SAMPLE = 2
EXAMPLE = Mutation(
    name="an-example",
    file="format/digest.py",
    old="DIGEST_SIZE: Final = 16",
    new="DIGEST_SIZE: Final = 8",
    why="for these tests",
    tests=("unit/test_index.py::test_a_wrong_root_shows",),
)


def test_the_list_is_true() -> None:
    """Every place is there, once, and so is every test that is to notice."""
    stale = []
    for mutation in MUTATIONS:
        try:
            mutation.check()
        except StaleError as error:
            stale.append(str(error))
    assert stale == []
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []
    assert all(mutation.why and mutation.tests for mutation in MUTATIONS)


def test_every_test_is_there_with_its_parameters() -> None:
    node_ids = sorted({node for mutation in MUTATIONS for node in mutation.node_ids})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *node_ids]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"old": "LEAF_SIZE"}, "the old text is [2-9] in"),
        ({"old": "DIGEST_SIZE: Final = 17"}, "the old text is 0 in"),
        ({"new": EXAMPLE.old}, "the old text is the new in"),
        ({"new": "DIGEST_SIZE: Final = ("}, "would be no Python"),
        ({"file": "nothing.py"}, "No such file"),
        ({"tests": ("unit/test_index.py::test_digest_is",)}, "there is no test tests/unit/test_index.py::test_digest_is$"),
        ({"tests": ("unit/nothing.py::test_digest",)}, "there is no test tests/unit/nothing.py::test_digest"),
    ],
)
def test_what_is_not_true_is_found(change: dict[str, str], complaint: str) -> None:
    EXAMPLE.check()
    with pytest.raises(StaleError, match=complaint):
        replace(EXAMPLE, **change).check()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    with Copy() as copy:
        yield copy
    assert not copy.root.exists()


@pytest.mark.parametrize(
    ("new", "verdict", "said"),
    [
        (EXAMPLE.new, Verdict.KILLED, "FAILED tests/unit/test_index.py::test_a_wrong_root_shows"),
        ("DIGEST_SIZE: Final = 8 * 2", Verdict.SURVIVED, ""),
        ("DIGEST_SIZE: Final = nobody_knows", Verdict.NONE, ""),
    ],
)
def test_verdicts(new: str, verdict: Verdict, said: str, copy: Copy) -> None:
    """Red is a test that fails, not one that cannot be imported; and what was mutated is as before afterwards."""
    mutation = replace(EXAMPLE, new=new)
    path = copy.root / mutation.path
    before = path.read_bytes()
    with copy.mutated(mutation):
        trial = Trial(mutation, copy.test(mutation.node_ids), 0.0)
        assert path.read_bytes() != before
    assert trial.verdict is verdict, trial.run.output
    assert trial.run.first.startswith(said)
    assert path.read_bytes() == before


def test_what_is_red_already_tells_nothing() -> None:
    mutation = replace(EXAMPLE, tests=("unit/test_index.py::test_digest_is_none",))
    with pytest.raises(NotGreenError, match="the tests fail already"):
        run_campaign([mutation], tell=lambda _: None)


@pytest.mark.timeout(400)
def test_a_sample() -> None:
    seed = seed_of("MUTATIONS_SEED")
    print(f"seed {seed}; python -m tests.mutations --sample {SAMPLE} --seed {seed} tries these again")
    trials = run_campaign(random.Random(seed).sample(MUTATIONS, SAMPLE))
    assert [trial.mutation.name for trial in trials if trial.verdict is not Verdict.KILLED] == []
