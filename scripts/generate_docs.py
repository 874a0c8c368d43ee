"""Writes the pages of docs/ that repeat what the code says: exit statuses from the error classes, formats from the registry.

``python scripts/generate_docs.py`` writes them. With ``--check`` it writes nothing, and exits with 1 if one is not current.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamsave.cli.formats import HEADINGS, row
from streamsave.cli.output import INTERNAL_ERROR_STATUS
from streamsave.codecs.registry import codecs
from streamsave.errors import Aborted, StreamsaveError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RESULTS = ROOT / "tests" / "interop" / "results.json"
NOTE = "<!-- Written by scripts/generate_docs.py: change the code and run that again. -->\n"

TABLE_BEGIN = "<!-- the table below is written by make interop-full -->"
TABLE_END = "<!-- the table above is written by make interop-full -->"

EXIT_CODES = """\
# Exit statuses

0 means that everything was done; nothing else ever exits with 0. Every other status has one meaning, and one class in
`streamsave.errors` whose `exit_status` it is. With `--json` the class is in the last event, see [cli.md](cli.md).

{table}

What belongs together is ten apart: 2-4 the call, 10-15 the image, 20 a codec, 30-39 the guest and what runs it, 40-42 our
own files, 50 what the system gives us, 60 the time that the caller gives us. On a status other than 0 from `save` the guest
is as it was before, unless a note below the message says that the image is complete and only what followed it failed, that
the guest could not be brought back, or that a paused guest takes `cont` before its next save.

Where memory runs out inside a library that gives up then (that of lz4 and snappy), it ends the whole process: status 134,
128 + SIGABRT. The guest is freed as after `kill -9`.

`streamsave restore IMAGE -- QEMU...` stays in the foreground as that QEMU. Until the guest is restored its status is one of
the above; from then on it is QEMU's own, or 128 + N if signal N killed QEMU.
"""

FORMATS = """\
# Formats

What `streamsave formats` lists: the compression formats of save images that it writes and reads. The number is libvirt's, in
the image's header; "libvirt" is the oldest release that restores the format.

{table}

A level means what the stock tool means by it. "default" is the level that streamsave uses where none is asked for, "tool's"
the one that the stock tool uses. The migration stream is compressed in chunks of the given size, each on its own, so that
all processors can work at once; the stock tool still decodes the payload in one go, see [cli.md](cli.md#info).

Without `--format`, `save_image_format` in libvirt's `qemu.conf` decides if it is set there, otherwise the format is zstd.
Further formats come from installed packages through the entry-point group `streamsave.codecs`.
"""


def exit_codes() -> str:
    """docs/exit-codes.md."""
    rows = [("0", "", "everything was done"), (str(INTERNAL_ERROR_STATUS), "", "a bug in streamsave; please report it")]
    for kind in error_classes():
        status, text = str(kind.exit_status), " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        if kind is StreamsaveError:
            text = "`streamsave demo`: the guest's memory did not come through. No error has this class itself."
        if kind is Aborted:
            status, text = "128 + N", f"{text} N is the signal's number; without a signal the status is {status}."
        rows.append((status, f"`{kind.__name__}`", text.replace("``", "`")))
    rows.sort(key=lambda row: int(row[0].split()[0]))
    return NOTE + EXIT_CODES.format(table=markdown_table(("status", "class", "meaning"), rows))


def formats() -> str:
    """docs/formats.md: our own codecs only, whatever else is installed."""
    rows = [row(codec) for codec in codecs().values() if type(codec).__module__.startswith("streamsave.")]
    return NOTE + FORMATS.format(table=markdown_table(HEADINGS, rows))


def libvirt() -> str:
    """docs/libvirt.md, whose table is what ``make interop-full`` saw; the rest of it is written by hand."""
    text = (DOCS / "libvirt.md").read_text()
    before, _, after = text.partition(TABLE_BEGIN)
    seen: dict[str, dict[str, dict[str, str]]] = json.loads(RESULTS.read_text())
    directions = next(iter(next(iter(seen.values())).values()))
    table = markdown_table(
        ("with", "format", *directions),
        [
            (versions, name, *(outcomes.get(direction, "not tried") for direction in directions))
            for versions, formats in seen.items()
            for name, outcomes in formats.items()
        ],
    )
    return f"{before}{TABLE_BEGIN}\n{table}\n{TABLE_END}{after.partition(TABLE_END)[2]}"


def error_classes(kind: type[StreamsaveError] = StreamsaveError) -> Iterator[type[StreamsaveError]]:
    """``kind`` and everything below it, by exit status."""
    found = {kind}
    for below in kind.__subclasses__():
        found.update(error_classes(below))
    yield from sorted(found, key=lambda each: each.exit_status)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with one row per line."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` compare them."""
    stale = []
    for name, text in (("exit-codes.md", exit_codes()), ("formats.md", formats()), ("libvirt.md", libvirt())):
        path = DOCS / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.write_text(text)
    if "--check" in arguments and stale:
        print(f"not current: {', '.join(stale)}: run scripts/generate_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
