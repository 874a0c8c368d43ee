import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from streamsave.cli.main import COMMANDS, parse
from streamsave.cli.output import INTERNAL_ERROR_STATUS
from streamsave.errors import StreamsaveError

ROOT = Path(__file__).parents[2]


def error_classes(kind: type[StreamsaveError] = StreamsaveError) -> list[type[StreamsaveError]]:
    """The classes of streamsave itself: tests may make their own."""
    below = [found for each in kind.__subclasses__() for found in error_classes(each)]
    return [each for each in (kind, *below) if each.__module__ == "streamsave.errors"]


def test_no_two_classes_share_an_exit_status() -> None:
    statuses = Counter(kind.exit_status for kind in error_classes())
    assert len(error_classes()) >= 24
    assert [status for status, count in statuses.items() if count > 1] == []


def test_every_class_has_a_status_of_its_own_that_a_shell_can_tell() -> None:
    for kind in error_classes():
        assert "exit_status" in vars(kind), f"{kind.__name__} inherits its exit status"
        assert kind.exit_status not in (0, INTERNAL_ERROR_STATUS, 126, 127)
        assert kind.exit_status < 128 or kind.__name__ == "Aborted"


def test_the_tree_in_the_docstring_is_the_truth() -> None:
    module = sys.modules[StreamsaveError.__module__]
    drawn = re.findall(r"^[| ]*(?:\+-- )?(\w+)(?: \(also ValueError\))? +(\d+)  ", module.__doc__ or "", re.MULTILINE)
    assert {name: int(status) for name, status in drawn} == {kind.__name__: kind.exit_status for kind in error_classes()}


def test_the_generated_pages_are_current() -> None:
    script = ROOT / "scripts" / "generate_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_statuses_are_documented() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    for kind in error_classes():
        status = "128 + N" if kind.__name__ == "Aborted" else str(kind.exit_status)
        assert f"| {status} | `{kind.__name__}` | " in text


def test_every_command_and_option_is_in_the_manual() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for command in COMMANDS:
        name = command.__name__.rsplit(".", 1)[-1]
        assert f"\n## {name}\n" in text
        help_text = subprocess.run(
            [sys.executable, "-m", "streamsave.cli", name, "--help"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for option in set(re.findall(r"^  (--[a-z-]+)", help_text, re.MULTILINE)):
            assert option in text, option


def test_what_the_manual_tells_to_type_parses() -> None:
    import shlex

    lines = re.findall(r"^\$ (streamsave .*)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        parse(shlex.split(re.split(r" [|>] ", line)[0])[1:])
