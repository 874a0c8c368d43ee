"""The report: Markdown and charts out of ``results.json``. ``python -m bench.report FOLDER`` writes it anew.

Tables first that answer a question (is it met? how fast? how near the limit?), then all figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from streamsave.units import GiB, MiB

from . import charts, scaling
from .limit import middle_parts, shares
from .lock import held_per_chunk
from .results import Comparison, Results, Spread
from .wanted import GUEST, judge_bounds, judge_pairs

RESULTS: Final = "results.json"
REPORT: Final = "report.md"
MARKS: Final = {"met": "met", "missed": "**missed**", "not measured": "not measured"}
METHOD: Final = """\
How it was measured, and what each figure means: `docs/benchmarks.md`. All members of a group ran in turn, round after round;
a ratio is the median of the rounds' ratios, the least and the most in parentheses. The guest was stopped for all of them,
`max-bandwidth` was 0. The time of streamsave is the whole call, with connecting, guardian, fsync and rename; that of a pipe
is `migrate` to `completed`, which makes nothing durable."""


def write_report(results: Results, folder: Path) -> None:
    """``report.md`` and its charts in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text("\n".join(_lines(results, folder)) + "\n")


def _lines(results: Results, folder: Path) -> Iterator[str]:
    yield "# streamsave, and what else saves a guest"
    yield from ("", METHOD, "")
    yield from _machine(results)
    yield from _pairs(results)
    yield from _bounds(results)
    for guest, where in dict.fromkeys((each.guest, each.folder) for each in results.comparisons):
        yield from _guest(results, guest, where, folder)
    yield from _limit(results.parts.get("limit", []), folder)
    yield from _lock(results.parts.get("lock"))
    yield from _scaling(results.parts.get("scaling"), folder)
    yield from _fillings(results)


def _machine(results: Results) -> Iterator[str]:
    facts = results.machine
    rows = [(name.replace("_", " "), _text(value)) for name, value in facts.items()]
    rows.append(("load before", f"{results.parts.get('load', 0.0):.1f}"))
    yield from _table(("machine", ""), rows)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)


def _pairs(results: Results) -> Iterator[str]:
    folders = tuple(dict.fromkeys(each.folder for each in results.comparisons if each.guest == GUEST))
    rows = []
    for verdict in judge_pairs(results, folders):
        wanted, size = verdict.wanted, ""
        if wanted.larger_by is not None:
            size = f"{'+' if wanted.larger_by else ''}{100 * wanted.larger_by:.0f} %"
        rows.append(
            (
                f"{wanted.kind} {wanted.ours if wanted.kind == 'save' else wanted.group}",
                f"`{wanted.theirs}`",
                f"{verdict.folder}, {verdict.comparison.memory // MiB} MiB" if verdict.comparison else verdict.folder,
                f"{wanted.at_least:g} x",
                _ratio(verdict.ratio) if verdict.ratio else "",
                size,
                f"{100 * verdict.larger:+.1f} %" if verdict.larger is not None and wanted.kind == "save" else "",
                MARKS[verdict.met],
            )
        )
    if rows:
        yield from _heading("What is wanted, and what is")
        yield from _table(
            ("what", "against", "on, guest", "wanted", "measured", "larger by at most", "is larger by", ""), rows
        )


def _bounds(results: Results) -> Iterator[str]:
    rows = [(each.what, each.bound, each.measured, MARKS[each.met]) for each in judge_bounds(results)]
    if rows:
        yield from _table(("bound", "wanted", "measured", ""), rows)


def _guest(results: Results, guest: str, where: str, folder: Path) -> Iterator[str]:
    here = [each for each in results.comparisons if (each.guest, each.folder) == (guest, where)]
    saves, restores = ([each for each in here if each.kind == kind] for kind in ("save", "restore"))
    name = f"{guest}-{where}".replace("/", "-")
    yield from _heading(f"Guest {guest}, images on {where}")
    if saves:
        charts.save_bars(saves, f"Saving: guest {guest}, {where}", folder / f"save-{name}.svg")
        charts.size_against_rate(saves, f"Size against rate: guest {guest}, {where}", folder / f"size-{name}.svg")
        yield from (f"![rates of saves](save-{name}.svg)", "", f"![size against rate](size-{name}.svg)", "")
        yield from _table(SAVE_COLUMNS, [row for each in saves for row in _save_rows(each)])
        yield from _levels(saves)
    if restores:
        charts.restore_bars(restores, f"Restoring: guest {guest}, {where}", folder / f"restore-{name}.svg")
        yield from (f"![rates of restores](restore-{name}.svg)", "")
        yield from _table(RESTORE_COLUMNS, [row for each in restores for row in _restore_rows(each)])


SAVE_COLUMNS: Final = (
    *("save", "MiB/s", "image, MiB", "of the stream", "CPU s/GiB", "of it QEMU"),
    *("page faults", "peak, MiB", "stopped, s", "durable after, s"),
)
RESTORE_COLUMNS: Final = ("restore of", "by", "MiB/s", "CPU s/GiB", "of it QEMU", "page faults", "peak, MiB")


def _save_rows(comparison: Comparison) -> Iterator[Sequence[str]]:
    gib = comparison.stream_size / GiB
    for member in comparison.runs:
        size, qemu_s = comparison.middle(member, "size"), comparison.middle(member, "qemu_cpu_s")
        stopped_s = comparison.middle(member, "stopped_s")
        yield (
            member,
            _rate(comparison.rate(member)),
            f"{size / MiB:.0f}",
            f"{100 * size / comparison.stream_size:.1f} %",
            f"{(comparison.middle(member, 'tool_cpu_s') + qemu_s) / gib:.2f}",
            f"{qemu_s / gib:.2f}",
            f"{comparison.middle(member, 'faults'):.0f}",
            f"{comparison.middle(member, 'peak') / MiB:.0f}",
            f"{stopped_s:.2f}",
            f"{comparison.middle(member, 'wall_s') + comparison.middle(member, 'sync_s'):.2f}",
        )


def _levels(saves: Sequence[Comparison]) -> Iterator[str]:
    """What a level that was left to us became, in the last round."""
    for comparison in saves:
        for member, runs in comparison.runs.items():
            if len(levels := runs[-1].levels) > 1:
                shares = ", ".join(f"{level} for {100 * share:.0f} %" for level, share in levels.items())
                yield from (f"Levels of {member} in its last round: {shares} of the stream.", "")


def _restore_rows(comparison: Comparison) -> Iterator[Sequence[str]]:
    gib = comparison.stream_size / GiB
    for member in comparison.runs:
        qemu_s = comparison.middle(member, "qemu_cpu_s")
        yield (
            comparison.group,
            member,
            _rate(comparison.rate(member)),
            f"{(comparison.middle(member, 'tool_cpu_s') + qemu_s) / gib:.2f}",
            f"{qemu_s / gib:.2f}",
            f"{comparison.middle(member, 'faults'):.0f}",
            f"{comparison.middle(member, 'peak') / MiB:.0f}",
        )


def _limit(parts: Sequence[dict[str, Any]], folder: Path) -> Iterator[str]:
    if not parts:
        return
    charts.limit_bars(parts, folder / "limit.svg")
    yield from _heading("How near the limit of the machine")
    yield from ("CPU seconds of each part, measured alone, and the seconds of a whole save.", "")
    yield from ("![the parts of a save](limit.svg)", "")
    columns = (
        "save",
        "QEMU",
        "receiving",
        "codec",
        "codec, all cores at once",
        "writing",
        "limit, s",
        "a save, s",
        "per limit",
    )
    rows = []
    for part in parts:
        middle = middle_parts(part)
        seconds = (middle.qemu_s, middle.receive_s, middle.codec_s, middle.codec_all_s, middle.write_s)
        total = (f"{middle.limit_s:.2f}", f"{middle.wall_s:.2f}", _ratio(Spread.of(shares(part))))
        rows.append((f"{part['member']}, {part['folder']}", *(f"{each:.2f}" for each in seconds), *total))
    yield from _table(columns, rows)


def _lock(held: dict[str, Any] | None) -> Iterator[str]:
    if held is None:
        return
    yield from _heading("The interpreter lock")
    known = ", ".join(f"{us}: {got:.1f}" for us, got in held["known_us"].items())
    yield from (f"Microseconds per chunk with the lock held. Known times, and what they were measured as: {known}.", "")
    rows = [(f"every chunk of a save: {part}", f"{held_s * 1e6:.1f}", "") for part, held_s in held["parts_s"].items()]
    for codec, held_s in held["encoders_s"].items():
        what = f"encoder of {codec}, chunk of {held['chunk_mib'][codec]} MiB"
        rows.append((what, f"{held_s * 1e6:.1f}", f"{held_per_chunk(held, codec) * 1e6:.1f}"))
    rows += [(f"decoder of {codec}", f"{held_s * 1e6:.1f}", "") for codec, held_s in held["decoders_s"].items()]
    yield from _table(("part", "us", "with all parts, us"), rows)


def _scaling(measured: dict[str, Any] | None, folder: Path) -> Iterator[str]:
    if measured is None:
        return
    charts.scaling_lines(measured["rows"], folder / "scaling.svg")
    yield from _heading("More cores: calculated and simulated")
    yield from ("![rates by cores](scaling.svg)", "")
    columns = ("save", "cores", "codecs alone", "lock", "QEMU's one stream", "so without QEMU", "so with it", "simulated")
    rows = []
    for row in measured["rows"]:
        rates = [row["codec_rate"], row["lock_rate"], row["qemu_rate"]]
        rates += [scaling.calculated_rate(row, with_qemu=with_qemu) for with_qemu in (False, True)]
        rates.append(row["simulated_rate"])
        rows.append((row["member"], str(row["cores"]), *(f"{rate / GiB:.1f}" for rate in rates)))
    yield from ("In GiB of stream per second.", "")
    yield from _table(columns, rows)
    engine = ", ".join(f"{each['threads']} threads {each['rate'] / GiB:.1f}" for each in measured["engine"])
    yield from (f"The engine with codecs that take no time, GiB/s: {engine}.", "")


def _fillings(results: Results) -> Iterator[str]:
    yield from _heading("What the guests were filled with")
    rows = [(each["name"], f"{each['size'] / MiB:.0f}", f"`{each['sha256']}`") for each in results.fillings]
    yield from _table(("guest", "MiB", "sha256"), rows)
    packages = {name: version for each in results.fillings for name, version in each["packages"].items()}
    yield ", ".join(f"{name} {version}" for name, version in packages.items())


def _heading(text: str) -> Iterable[str]:
    return (f"## {text}", "")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + " --- |" * len(columns)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _ratio(spread: Spread) -> str:
    return f"{spread.middle:.2f} ({spread.least:.2f} to {spread.most:.2f})"


def _rate(spread: Spread) -> str:
    return f"{spread.middle / MiB:.0f} ({spread.least / MiB:.0f} to {spread.most / MiB:.0f})"


def main() -> int:
    """Write the report of the results in a folder."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=main.__doc__)
    parser.add_argument("folder", type=Path, help=f"with the {RESULTS} of a run of make bench")
    folder = parser.parse_args().folder
    try:
        results = Results.read(folder / RESULTS)
    except OSError as error:
        parser.error(f"{folder / RESULTS}: {error.strerror}: run make bench first")
    write_report(results, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
