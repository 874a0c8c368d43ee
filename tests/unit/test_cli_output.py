import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamsave.cli.output import Output, complain, escape, exit_status, quote_command, reporting, table, write
from streamsave.errors import Aborted, CorruptImageError, DestinationError, StreamsaveError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain näme 日本", "plain näme 日本"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\tc\rd", "a\\x0ab\\x09c\\x0dd"),
        ("\x9b31m", "\\x9b31m"),  # the one-character form of ESC [
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (os.fsdecode(b"\xff"), "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("", ""),
    ],
)
def test_escape_shows_what_a_terminal_would_obey(text: str, shown: str) -> None:
    assert escape(text) == shown
    assert escape(text).isprintable()


def test_escape_keeps_only_what_it_is_told_to() -> None:
    assert escape("a\n\tb\x1b\r", keep="\n\t") == "a\n\tb\\x1b\\x0d"


@pytest.mark.parametrize(
    "arguments",
    [
        ["qemu-system-x86_64", "-m", "512", "-name", "my guest", ""],
        ["a'b", 'c"d', "$HOME", "`id`", "back\\slash"],
        ["new\nline", "\x1b[31m'quoted\\", "\u202e", os.fsdecode(b"\xff\xfe"), "tab\t$(id)"],
    ],
)
def test_a_quoted_command_is_printable_and_means_the_same_to_bash(arguments: list[str]) -> None:
    quoted = quote_command(arguments)
    assert quoted.isprintable()
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {quoted}"], capture_output=True, check=True).stdout
    assert printed.split(b"\0")[:-1] == [os.fsencode(argument) for argument in arguments]


def test_a_table_is_aligned() -> None:
    rows = [("name", "n", "text"), ("zstd", "5", "fast"), ("gz", "12", "")]
    assert table(rows, right=(1,)) == "name   n  text\nzstd   5  fast\ngz    12"


def test_result_is_text_or_json_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {"path": Path("a/\x1b.save"), "sizes": (1, 2), "ratio": math.inf, "stage_s": {"stream": 0.5}}
    Output().result("saved", fields, "it is saved")
    assert capsys.readouterr().out == "it is saved\n"
    Output(quiet=True).result("saved", fields, "it is saved")
    assert capsys.readouterr().out == ""
    Output(json=True, quiet=True).result("saved", fields, "it is saved")
    line = capsys.readouterr().out
    assert line.isascii()
    assert "\x1b" not in line
    assert json.loads(line) == {
        "event": "saved", "path": "a/\x1b.save", "sizes": [1, 2], "ratio": None, "stage_s": {"stream": 0.5}
    }  # fmt: skip


def test_an_error_is_one_line_with_its_notes_below(capsys: pytest.CaptureFixture[str]) -> None:
    error = CorruptImageError("guest.save: bad \x1b[2J frame")
    error.add_note("first note\nof two lines")
    Output(json=True).error(error, 14)
    out, err = capsys.readouterr()
    assert err == ("streamsave: error: guest.save: bad \\x1b[2J frame\n    first note\n    of two lines\n")
    assert json.loads(out) == {
        "event": "error",
        "class": "CorruptImageError",
        "message": "guest.save: bad \x1b[2J frame",
        "notes": ["first note\nof two lines"],
        "exit_status": 14,
    }


def test_a_message_of_several_lines_cannot_pose_as_ours(capsys: pytest.CaptureFixture[str]) -> None:
    Output().error(StreamsaveError("QEMU says: oops\nstreamsave: all is well\r"), 1)
    assert capsys.readouterr().err == "streamsave: error: QEMU says: oops\n    streamsave: all is well\\x0d\n"


def test_exit_status_of_a_signal() -> None:
    assert exit_status(Aborted("x", signum=15)) == 143
    assert exit_status(Aborted("x")) == 130
    assert exit_status(DestinationError("x")) == 42


def test_a_reader_that_went_away_is_no_error_and_stays_silent() -> None:
    reader_fd, writer_fd = os.pipe()
    os.close(reader_fd)
    with os.fdopen(writer_fd, "w") as stream:
        write(stream, "dropped\n")
        write(stream, "dropped too\n")


def test_a_full_disk_under_standard_output_is_an_error() -> None:
    with open("/dev/full", "w") as stream:
        with pytest.raises(DestinationError, match="cannot write to standard output: No space left on device") as caught:
            write(stream, "lost\n")
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(DestinationError, match="closed"):
        write(None, "lost\n")


def test_a_lost_report_says_what_was_done_all_the_same() -> None:
    with pytest.raises(DestinationError) as caught, reporting("the image x is complete"):
        write(None, "lost")
    assert caught.value.__notes__ == ["only this report failed: the image x is complete"]


def test_text_that_the_encoding_lacks_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding="ascii") as stream:
        write(stream, "näme\n")
    assert path.read_bytes() == b"n\\xe4me\n"


def test_bytes_go_out_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("w") as stream:
        write(stream, b"\xff\x00\r\n")
    assert path.read_bytes() == b"\xff\x00\r\n"


def test_complaining_into_nothing_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        complain("nobody hears this")
