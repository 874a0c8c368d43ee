"""The parts of the benchmark that are tables and arithmetic; and that its instruments read what is there."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ET
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from bench import charts
from bench.baseline import LARGER_BY, SLOWER_BY, baseline_of, compare, ratios, read_baseline, write_baseline
from bench.check import PLAN, lines
from bench.contestants import RESTORES, SAVES, Ours, Pipe, tools
from bench.limit import Parts
from bench.lock import Watched
from bench.measure import Plan
from bench.meters import account_of, children_of, peak_memory
from bench.packages import PAGE_SIZE, contents_of, version_of
from bench.report import write_report
from bench.results import Comparison, OtherMachineError, Results, Run, Spread
from bench.rounds import OURS
from bench.simulation import simulate
from bench.wanted import GUEST, PAIRS, PairVerdict, judge_bounds, judge_pairs

from streamsave.codecs.registry import codecs
from streamsave.options import CompressOptions
from streamsave.units import GiB, MiB

from ..kit.linux import KitError
from ..kit.missing import missing

MACHINE = {"cpu": "made up", "threads": 2, "kernel": "1", "streamsave": "0", "tools": {"zstd": "1.5.4"}}


def run(wall_s: float, size: int = 300 * MiB, peak: int = 20 * MiB) -> Run:
    return Run(wall_s=wall_s, tool_cpu_s=1.5, qemu_cpu_s=0.5, faults=10, peak=peak, stopped_s=1.0, size=size)


def zstd(ours: list[float], theirs: list[float], *, size: int = 300 * MiB, folder: str = "tmpfs") -> Comparison:
    """Saves at level 3 against ``zstd -c``."""
    runs = {"zstd 3": [run(wall_s, size) for wall_s in ours], "zstd -c": [run(wall_s) for wall_s in theirs]}
    return Comparison("save", "zstd", GUEST, 3 * GiB, folder, GiB, runs)


def results_of(*comparisons: Comparison) -> Results:
    return Results(dict(MACHINE), comparisons=list(comparisons))


def verdict_on(comparison: Comparison) -> PairVerdict:
    verdicts = judge_pairs(results_of(comparison), ("tmpfs",))
    return next(each for each in verdicts if (each.wanted.ours, each.wanted.theirs) == ("zstd 3", "zstd -c"))


# -- the tables ---------------------------------------------------------------------------------------------------------


def test_every_wanted_pair_is_measured() -> None:
    saves = {group.name: {member.name for member in group.members} for group in SAVES}
    restores = {group.name: {OURS, group.pipe.name} for group in RESTORES}
    for pair in PAIRS:
        members = (saves if pair.kind == "save" else restores)[pair.group]
        assert {pair.ours, pair.theirs} <= members


def test_every_format_with_a_stock_tool_is_saved_and_restored() -> None:
    formats = {name for name, codec in codecs().items() if codec.tool or name == "raw"}
    assert {member.format for group in SAVES for member in group.members if isinstance(member, Ours)} == formats
    assert {group.format for group in RESTORES} == formats


def test_the_commands_are_libvirts() -> None:
    commands = {member.command for group in SAVES for member in group.members if isinstance(member, Pipe)}
    assert {"gzip -c", "bzip2 -c", "xz -c -3 -T1", "lzop -c", "zstd -c"} <= commands


def test_levels_are_the_codecs() -> None:
    for group in SAVES:
        for member in group.members:
            if isinstance(member, Ours):
                CompressOptions(format=member.format, level=member.level)  # or UsageError


def test_tools_are_programs() -> None:
    assert {"zstd", "pzstd", "lbzip2", "pigz"} <= set(tools())
    assert all(" " not in tool for tool in tools())


def test_the_2009_pipeline_appends() -> None:
    pipe = Pipe("gzip -c", appends=True)
    assert pipe.into("/images/vm") == "gzip -c | dd of=/images/vm oflag=append conv=notrunc 2>/dev/null"
    assert Pipe("gzip -c").into("/images/vm") == "gzip -c > /images/vm"


def test_a_plan_takes_every_group_once() -> None:
    plan = Plan((Path("/tmp"),), (GUEST,), (), 1, 1, 1)
    assert [group for slow in (False, True) for group in plan.saves(slow=slow)] == list(SAVES)
    assert len([group for slow in (False, True) for group in plan.restores(slow=slow)]) == len(RESTORES)
    assert replace(plan, groups=("xz",)).saves(slow=False) == []
    assert [group.name for group in replace(plan, groups=("xz",)).saves(slow=True)] == ["xz"]
    assert replace(plan, kinds=("restore",)).saves(slow=True) == []


# -- results ------------------------------------------------------------------------------------------------------------


def test_ratios_are_taken_round_by_round() -> None:
    drifting = zstd([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert drifting.faster("zstd 3", "zstd -c") == Spread(2.0, 2.0, 2.0)
    assert drifting.rate("zstd 3") == Spread(GiB / 2, GiB / 4, GiB)


def test_larger_is_a_share() -> None:
    assert zstd([1.0], [1.0], size=306 * MiB).larger("zstd 3", "zstd -c") == pytest.approx(0.02)


def test_results_come_back(tmp_path: Path) -> None:
    results = results_of(zstd([1.0], [2.0]))
    results.parts["load"] = 0.5
    results.write(tmp_path / "folder" / "results.json")
    assert Results.read(tmp_path / "folder" / "results.json") == results
    assert os.listdir(tmp_path / "folder") == ["results.json"]


def test_a_later_measurement_takes_the_place_of_an_earlier_one() -> None:
    results = results_of(zstd([1.0], [2.0]))
    results.add(zstd([3.0], [6.0]))
    results.add(zstd([3.0], [6.0], folder="disk"))
    assert [each.runs["zstd 3"][0].wall_s for each in results.comparisons] == [3.0, 3.0]


def test_results_of_another_machine_are_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results_of(zstd([1.0], [2.0])).write(path)
    assert Results.continued(path, dict(MACHINE)).comparisons
    with pytest.raises(OtherMachineError, match="another tools"):
        Results.continued(path, {**MACHINE, "tools": {"zstd": "1.5.5"}})


# -- verdicts -----------------------------------------------------------------------------------------------------------


def test_a_pair_is_met_by_its_median() -> None:
    assert verdict_on(zstd([1.0, 1.0, 1.0], [1.7, 1.8, 1.0])).met == "met"
    assert verdict_on(zstd([1.0, 1.0, 1.0], [1.69, 1.0, 9.0])).met == "missed"


def test_a_large_image_is_a_miss() -> None:
    assert verdict_on(zstd([1.0], [2.0], size=305 * MiB)).met == "met"
    assert verdict_on(zstd([1.0], [2.0], size=307 * MiB)).met == "missed"


def test_what_was_not_measured_is_said() -> None:
    verdicts = list(judge_pairs(results_of(), ("tmpfs", "ext4")))
    assert {verdict.met for verdict in verdicts} == {"not measured"}
    assert [each.folder for each in verdicts if each.wanted.ours == "raw"] == ["tmpfs"]


def test_the_limit() -> None:
    parts = Parts(qemu_s=1.0, receive_s=0.2, codec_s=4.0, codec_all_s=5.0, write_s=0.8, cpus=2, wall_s=3.3)
    assert parts.limit_s == pytest.approx(3.0)
    assert parts.share == pytest.approx(1.1)


def test_bounds() -> None:
    results = results_of(zstd([1.0], [2.0]))
    results.comparisons[0].runs["zstd 3"][0] = run(1.0, peak=151 * MiB)
    held = {"parts_s": {"engine": 30e-6}, "encoders_s": {"zstd": 29e-6, "gzip": 31e-6}, "chunk_mib": {"zstd": 1, "gzip": 1}}
    results.parts = {"lock": held, "scaling": {"engine": [{"threads": 1, "rate": 11 * GiB}], "rows": []}}
    assert [(each.met, each.measured) for each in judge_bounds(results)] == [
        ("missed", "151 MiB"),
        ("met", "59 us"),
        ("missed", "61 us"),
        ("met", "11.0 GiB/s"),
    ]


# -- the regression check -----------------------------------------------------------------------------------------------


def test_nothing_changed() -> None:
    results = results_of(zstd([1.0, 1.1], [2.0, 2.2]))
    (change,) = compare(results, baseline_of(results))
    assert not change.worse
    assert change.pair == f"save zstd 3 / zstd -c, guest {GUEST} tmpfs"


def test_slower_is_a_regression_when_every_round_says_so() -> None:
    baseline = baseline_of(results_of(zstd([1.0], [2.0])))
    least = 1 - SLOWER_BY
    assert not compare(results_of(zstd([1.0] * 3, [2.0 * least] * 3)), baseline)[0].worse
    assert compare(results_of(zstd([1.0] * 3, [1.99 * least] * 3)), baseline)[0].worse == "10 % slower"
    assert not compare(results_of(zstd([1.0] * 3, [1.0, 1.0, 2.0])), baseline)[0].worse


def test_larger_is_a_regression() -> None:
    baseline = baseline_of(results_of(zstd([1.0], [2.0])))
    size = int(300 * MiB * (1 + 2 * LARGER_BY))
    assert compare(results_of(zstd([1.0], [2.0], size=size)), baseline)[0].worse == "2.0 % larger"


def test_a_pair_that_is_gone_is_a_regression() -> None:
    baseline = baseline_of(results_of(zstd([1.0], [2.0])))
    changes = compare(results_of(), baseline)
    assert changes[0].worse == "not measured any more"
    assert lines(changes)[-1] == "1 of 1 pairs became worse"


def test_the_committed_baseline_is_of_what_the_check_measures(tmp_path: Path) -> None:
    baseline = read_baseline()
    groups = [group for slow in (False, True) for group in PLAN.saves(slow=slow)]
    made_up = [
        Comparison("save", group.name, GUEST, 1, "tmpfs", GiB, {member.name: [run(1.0)] for member in group.members})
        for group in groups
    ]
    made_up += [
        Comparison("restore", group.name, GUEST, 1, "tmpfs", GiB, {OURS: [run(1.0)], group.pipe.name: [run(1.0)]})
        for slow in (False, True)
        for group in PLAN.restores(slow=slow)
    ]
    assert set(baseline["ratios"]) == set(ratios(results_of(*made_up)))
    write_baseline(results_of(*made_up), tmp_path / "baseline.json")
    assert read_baseline(tmp_path / "baseline.json").keys() == baseline.keys()


# -- the report ---------------------------------------------------------------------------------------------------------


def full_results() -> Results:
    results = results_of(zstd([1.0, 1.1], [2.0, 2.1]))
    auto = {"zstd auto": [replace(run(1.0), levels={"3": 0.25, "4": 0.75})], "zstd -c --adapt -T0": [run(1.0)]}
    results.add(Comparison("save", "auto", GUEST, 3 * GiB, "tmpfs", GiB, auto))
    restored = {OURS: [run(1.0), run(1.0)], "zstd -dc": [run(3.0), run(3.5)]}
    results.add(Comparison("restore", "zstd", GUEST, 3 * GiB, "tmpfs", GiB, restored))
    results.add_filling({"name": GUEST, "size": GiB, "sha256": "ab" * 32, "packages": {"git": "1:2.39_amd64"}})
    parts = {"qemu_s": 1.0, "receive_s": 0.2, "codec_s": 4.0, "codec_all_s": 5.0, "write_s": 0.8, "cpus": 2, "wall_s": 3.3}
    rates = {"codec_rate": 2 * GiB, "lock_rate": 12 * GiB, "qemu_rate": 3 * GiB, "simulated_rate": 1.9 * GiB}
    results.parts = {
        "load": 0.1,
        "limit": [{"member": "zstd 3", "folder": "tmpfs", "stream_size": GiB, "rounds": [parts]}],
        "lock": {
            "known_us": {"5": 5.1},
            "parts_s": {"engine": 30e-6},
            "encoders_s": {"zstd": 29e-6},
            "decoders_s": {"zstd": 8e-6},
            "chunk_mib": {"zstd": 1},
        },
        "scaling": {
            "engine": [{"threads": 1, "rate": 11 * GiB}],
            "rows": [{"member": "zstd 3", "cores": cores, **rates} for cores in (8, 32)],
        },
    }
    return results


def test_the_report_has_tables_and_charts(tmp_path: Path) -> None:
    write_report(full_results(), tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| save zstd 3 | `zstd -c` | tmpfs, 3072 MiB | 1.7 x | 1.95 (1.91 to 2.00) | +2 % | +0.0 % | met |" in report
    assert "| save of zstd 3 on tmpfs: time per limit of the machine | 1.12 | 1.10 (1.10 to 1.10) | met |" in report
    assert "Levels of zstd auto in its last round: 3 for 25 %, 4 for 75 % of the stream." in report
    shown = {line.split("(")[1].rstrip(")") for line in report.splitlines() if line.startswith("![")}
    assert shown == {path.name for path in tmp_path.glob("*.svg")}
    assert len(shown) == 5
    for name in shown:
        assert ET.parse(tmp_path / name).getroot().tag.endswith("svg")


def test_charts_are_the_same_bytes_for_the_same_results(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        charts.save_bars([zstd([1.0, 1.1], [2.0, 2.1])], "Saving", tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "zstd -c" in (tmp_path / "one.svg").read_text()


# -- the instruments ----------------------------------------------------------------------------------------------------


def test_a_childs_time_and_faults_are_seen_when_it_ended() -> None:
    before = account_of(os.getpid())
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"], check=True)
    used = account_of(os.getpid()).since(before)
    assert used.children_s > 0.02
    assert used.children_faults > 20
    assert account_of(os.getpid()).own_s == pytest.approx(sum(os.times()[:2]), abs=0.05)


def test_children_and_their_memory_are_found() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True) as process:
        try:
            while len(found := children_of(os.getpid())) < 2:
                pass
            assert process.pid in found
            assert all(peak_memory(pid) > 0 for pid in found)
        finally:
            os.killpg(process.pid, 9)
    assert peak_memory(process.pid) == 0


def package(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    root = folder / name
    for path, contents in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(contents)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1:2\nArchitecture: all\nMaintainer: m\nDescription: d\n"
    )
    deb = folder / f"{name}_1%3a2_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, deb], check=True, stdout=subprocess.DEVNULL)
    return deb


def test_packages_give_a_piece_in_turn_of_their_programs(tmp_path: Path) -> None:
    one = package(tmp_path, "one", {"usr/bin/a": b"a" * 5000, "usr/share/doc/a": b"not this", "usr/lib/b": b"b"})
    two = package(tmp_path, "two", {"usr/lib/c": b"c" * 4096})
    a, b, c = (contents + bytes(-len(contents) % PAGE_SIZE) for contents in (b"a" * 5000, b"b", b"c" * 4096))
    pieces = list(contents_of([one, two], piece_size=8192))
    assert b"".join(pieces) in (a + c + b, b + a[:4096] + c + a[4096:])
    assert version_of(one) == "1:2_all"


def test_a_damaged_package_is_said(tmp_path: Path) -> None:
    deb = package(tmp_path, "one", {"usr/bin/a": os.urandom(100_000)})
    with deb.open("r+b") as file:
        file.truncate(50_000)
    with pytest.raises(KitError, match=r"one_1%3a2_all\.deb: .* delete the file"):
        list(contents_of([deb]))


def test_the_simulation_takes_the_time_that_it_is_told_to() -> None:
    simulated = simulate(4, hold_s=0.0, total_s=0.01, seconds=0.3)
    assert 0.3 * simulated.codec_rate < simulated.rate < 1.01 * simulated.codec_rate
    assert simulated.codec_rate == pytest.approx(400 * MiB)


def test_the_watcher_sees_how_long_the_lock_is_held() -> None:
    usable = os.sched_getaffinity(0)
    if len(usable) < 2:
        missing("watching takes a processor of its own")
    os.sched_setaffinity(0, {max(usable)})
    held_s = []
    try:
        for held_us in ("0", "1000"):
            with closing(Watched(min(usable), "held", held_us)) as watched:
                held_s.append(watched.held_s(0.5))
    finally:
        os.sched_setaffinity(0, usable)
    assert held_s[1] > 0.5e-3
    assert held_s[0] < held_s[1] / 4
