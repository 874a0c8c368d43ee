import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from streamsave import options
from streamsave.errors import FormatError, UsageError
from streamsave.options import CompressOptions, RestoreOptions, SaveOptions, usable_cpus


def test_the_defaults() -> None:
    save = SaveOptions()
    assert (save.format, save.level, save.threads, save.then, save.transport, save.save_command) == (
        "zstd", None, None, "quit", "fd", True
    )  # fmt: skip
    assert save.codec.name == "zstd"
    restore = RestoreOptions()
    assert (restore.state, restore.transport, restore.threads) == (None, "fd", None)


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SaveOptions().format = "raw"  # type: ignore[misc]


@pytest.mark.parametrize("kind", [CompressOptions, SaveOptions])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "gzip", "level": 10}, "format gzip has levels 1 to 9, not 10"),
        ({"format": "zstd", "level": 0}, "format zstd has levels 1 to [0-9]+, not 0"),
        ({"format": "raw", "level": 1}, "format raw has no levels"),
        ({"timeout_s": 0}, "timeout_s must be a number of seconds greater than 0, not 0"),
        ({"timeout_s": -1.5}, "not -1.5"),
        ({"timeout_s": float("inf")}, "not inf"),
        ({"timeout_s": float("nan")}, "not nan"),
        ({"threads": 0}, "threads must be 1 to 256, not 0"),
        ({"threads": 257}, "threads must be 1 to 256, not 257"),
    ],
)
def test_what_cannot_be_is_refused_at_construction(
    kind: type[CompressOptions], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        kind(**values)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("kind", [CompressOptions, SaveOptions])
def test_auto_is_a_level_where_there_are_any(kind: type[CompressOptions]) -> None:
    assert kind(format="xz", level="auto").level == "auto"
    with pytest.raises(UsageError, match="format raw has no levels to choose from"):
        kind(format="raw", level="auto")
    with pytest.raises(UsageError, match="levels 1 to 9, not slow"):
        kind(format="gzip", level="slow")  # type: ignore[arg-type]


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(FormatError, match="zip") as caught:
        SaveOptions(format="zip")
    assert {"raw", "gzip", "bzip2", "zstd"} <= set(caught.value.known)
    assert all(name in str(caught.value) for name in caught.value.known)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SaveOptions, {"then": "reboot"}, "then must be one of quit, resume, pause, not 'reboot'"),
        (SaveOptions, {"transport": "tcp"}, "transport must be one of fd, unix, not 'tcp'"),
        (RestoreOptions, {"transport": "tcp"}, "transport must be one of fd, unix, not 'tcp'"),
        (RestoreOptions, {"state": "asleep"}, "state must be one of running, paused, not 'asleep'"),
        (SaveOptions, {"max_stopped_s": 0}, "max_stopped_s must be a number of seconds greater than 0, not 0"),
        (RestoreOptions, {"timeout_s": -1}, "timeout_s must be a number of seconds greater than 0, not -1"),
        (RestoreOptions, {"threads": -1}, "threads must be 1 to 256, not -1"),
        (RestoreOptions, {"max_window": 0}, "max_window must be 1024 to 2147483648 bytes, not 0"),
        (RestoreOptions, {"max_window": 4 << 30}, "max_window must be 1024 to 2147483648 bytes"),
    ],
)
def test_choices(kind: type[SaveOptions] | type[RestoreOptions], values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**values)


def test_thread_count_is_what_was_asked_for_or_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "usable_cpus", lambda: 7)
    assert SaveOptions().thread_count == RestoreOptions().thread_count == 7
    assert SaveOptions(threads=3).thread_count == RestoreOptions(threads=3).thread_count == 3


@pytest.mark.parametrize(("affinity", "quota", "count"), [(8, None, 8), (8, 3, 3), (2, 6, 2), (1000, None, 256)])
def test_usable_cpus_is_the_tighter_limit(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: int | None, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(affinity)))
    monkeypatch.setattr(options, "_cgroup_cpus", lambda: quota)
    assert usable_cpus() == count


def test_the_tightest_quota_on_the_way_up_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "/proc/self/cgroup": "1:cpu:/old\n0::/a/b\n",
        "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        "/sys/fs/cgroup/a/cpu.max": "250000 100000\n",
        "/sys/fs/cgroup/cpu.max": "1600000 100000\n",
    }

    def read_text(path: Path) -> str:
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    assert options._cgroup_cpus() == 3  # two and a half, rounded up
    del files["/sys/fs/cgroup/a/cpu.max"], files["/sys/fs/cgroup/cpu.max"]
    assert options._cgroup_cpus() is None
    del files["/proc/self/cgroup"]
    assert options._cgroup_cpus() is None
