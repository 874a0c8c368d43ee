import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

import streamsave
from streamsave import options
from streamsave.cli import main as cli
from streamsave.errors import CorruptImageError

COMMANDS = ("save", "restore", "info", "formats", "demo", "completion")


def streamsave_process(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "streamsave.cli", *arguments], capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["save"], *([name, "--help"] for name in COMMANDS)])
def test_nothing_heavy_is_imported_to_answer(arguments: list[str]) -> None:
    code = (
        "import sys; from streamsave.cli.main import main; main(sys.argv[1:])\n"
        "heavy = {'asyncio', 'rich', 'zstandard', 'shtab', 'dataclasses', 'qemu', 'cffi', 'logging', 'streamsave.options',"
        " 'streamsave.codecs', 'streamsave.operations'}\n"
        "print('imported:', sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("imported: []\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"streamsave {streamsave.__version__}\n"


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text or f"\n    {name}\n" in text for name in COMMANDS)
    assert "examples:\n  streamsave save --qmp" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_by_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "examples:\n  s" in text
    assert text.count(f"streamsave {name}") >= 2
    assert max(map(len, text.splitlines())) <= 125


def examples() -> list[list[str]]:
    texts = [cli.EPILOG, *(module.EXAMPLES for module in cli.COMMANDS)]
    lines = [line for text in texts for line in re.findall(r"^  (streamsave .*)$", text, re.MULTILINE)]
    return [shlex.split(re.split(r" [|>] ", line)[0])[1:] for line in lines]


@pytest.mark.parametrize("example", examples(), ids=" ".join)
def test_every_example_parses(example: list[str]) -> None:
    args = cli.parse(example)
    assert args.command == example[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["explode"], "invalid choice: 'explode'"),
        (["save", "x"], "one of the arguments --qmp --qmp-fd --domain is required"),
        (["save", "--qmp", "s", "x", "--level", "high"], "argument --level: 'high' is neither a number nor auto"),
        (["save", "--qmp", "s", "--domain", "web", "x"], "argument --domain: not allowed with argument --qmp"),
        (["save", "--qmp", "s", "x", "--then", "die"], "argument --then: invalid choice: 'die'"),
        (["save", "--qm", "s", "x"], "--qmp --qmp-fd --domain is required"),  # no abbreviations: more options break them
        (["restore", "x", "--running", "--paused"], "not allowed with argument"),
        (["restore", "x", "qemu-system-x86_64"], "unrecognized arguments: qemu-system-x86_64"),
        (["info", "x", "--xml", "--cookie"], "not allowed with argument"),
        (["completion", "tcsh"], "invalid choice: 'tcsh'"),
    ],
)
def test_what_cannot_be_parsed_exits_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("convert a --format xz b", {"source": "a", "destination": "b", "format": "xz"}),
        ("convert --format xz a --level 6 b", {"source": "a", "destination": "b", "level": 6}),
        ("convert - --format xz -", {"source": "-", "destination": "-"}),
        ("convert a --format xz --in-place", {"source": "a", "destination": None, "in_place": True}),
        ("verify a --json b --threads 2 c", {"images": ["a", "b", "c"], "json": True, "threads": 2}),
        ("save --qmp s a --quiet", {"qmp": "s", "image": "a", "quiet": True}),
        ("restore --paused a --qmp s", {"qmp": "s", "image": "a", "state": "paused"}),
        ("edit --set-paused a --json", {"image": "a", "state": "paused", "json": True}),
        ("info --json a --scan", {"image": "a", "json": True, "scan": True}),
        ("convert --format xz -- -a -", {"source": "./-a", "destination": "-"}),
        ("convert -a --format xz -- -b", None),
        ("verify -- --json -- x", {"images": ["./--json", "./--", "x"], "json": False}),
        ("completion bash", {"shell": "bash"}),
    ],
)
def test_files_and_options_may_be_mixed(
    line: str, expected: dict[str, object] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if expected is None:
        assert cli.main(line.split()) == 2
    else:
        args = vars(cli.parse(line.split()))
        assert {name: args[name] for name in expected} == expected


@pytest.fixture
def failing_info(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``info`` raises ``fails.error``."""
    fails = SimpleNamespace(error=None)

    def read_info(_path: str) -> None:
        raise fails.error

    monkeypatch.setitem(sys.modules, "streamsave.operations.image", SimpleNamespace(read_info=read_info))
    return fails


def test_an_error_becomes_one_line_and_its_status(failing_info: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    failing_info.error = CorruptImageError("guest.save: frame 3 is damaged")
    assert cli.main(["info", "guest.save"]) == 14
    assert capsys.readouterr() == ("", "streamsave: error: guest.save: frame 3 is damaged\n")
    assert cli.main(["info", "guest.save", "--json"]) == 14
    out, err = capsys.readouterr()
    assert err == "streamsave: error: guest.save: frame 3 is damaged\n"
    assert json.loads(out) == {
        "event": "error", "class": "CorruptImageError", "message": "guest.save: frame 3 is damaged", "notes": [],
        "exit_status": 14,
    }  # fmt: skip


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), RecursionError("deep")])
def test_a_bug_is_told_as_one_without_a_traceback(
    error: Exception, failing_info: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_info.error = error
    assert cli.main(["info", "x", "--json"]) == 70
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first == f"streamsave: internal error: {type(error).__name__}: {error}"
    assert "report it" in second
    event = json.loads(out)
    assert (event["class"], event["exit_status"]) == (type(error).__name__, 70)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory: use fewer threads"),
        (OSError(errno.ENOMEM, "no"), "there is not enough memory: use fewer threads"),
        (RuntimeError("can't allocate lock"), "there is not enough memory: use fewer threads"),
        (ImportError("x.so: failed to map segment from shared object"), "there is not enough memory: use fewer threads"),
        (
            OSError("cannot load library 'x': x.so: cannot map zero-fill pages"),
            "there is not enough memory: use fewer threads",
        ),
        (OSError(errno.EMFILE, "no"), "no descriptor is left ([Errno 24] no): raise the limit on open files"),
    ],
)
def test_what_the_system_lacks_is_no_bug(
    error: Exception, said: str, failing_info: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_info.error = error
    assert cli.main(["info", "x", "--json"]) == 50
    out, err = capsys.readouterr()
    assert err.startswith(f"streamsave: error: {said}")
    assert json.loads(out)["class"] == "ResourceError"


@pytest.mark.parametrize("error", [ZeroDivisionError("x\x1b"), CorruptImageError("x\x1b")])
def test_debugging_shows_the_traceback(
    error: Exception, failing_info: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSAVE_DEBUG", "1")
    failing_info.error = error
    cli.main(["info", "x"])
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "read_info" in err
    assert "\x1b" not in err


def test_an_interrupt_outside_of_an_operation(failing_info: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    failing_info.error = KeyboardInterrupt()
    assert cli.main(["info", "x"]) == 130
    assert capsys.readouterr().err == "streamsave: error: interrupted by SIGINT\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    for arguments in (["--help"], ["formats"], ["formats", "--json"], ["completion", "bash"]):
        reader_fd, writer_fd = os.pipe()
        os.close(reader_fd)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "streamsave.cli", *arguments],
                stdout=writer_fd, stderr=subprocess.PIPE, text=True, timeout=60,
            )  # fmt: skip
        finally:
            os.close(writer_fd)
        assert (done.returncode, done.stderr) == (0, ""), arguments


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["formats"], ["formats", "--json"]])
def test_output_that_cannot_be_written_is_an_error(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "streamsave.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 42
    assert done.stderr == "streamsave: error: cannot write to standard output: No space left on device\n"


def test_closed_standard_descriptors_are_never_given_to_a_file(tmp_path: Path) -> None:
    note = tmp_path / "fd"
    code = (
        "import os\n"
        "from streamsave.cli import main as cli\n"
        f"cli.parse = lambda argv: open({os.fspath(note)!r}, 'w').write(str(os.open('/', os.O_RDONLY))) and 1/0\n"
        "cli.main([])\n"
    )
    subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True, timeout=60)
    assert int(note.read_text()) > 2


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_options_formats_and_files(shell: str) -> None:
    done = streamsave_process("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    for word in (*COMMANDS, "--use-saved-command", "--transport", "bzip2", "zstd"):
        assert word in done.stdout, word
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_completion_works_in_bash() -> None:
    script = streamsave_process("completion", "bash").stdout
    ask = (
        "COMP_WORDS=(streamsave save --format ''); COMP_CWORD=3; COMPREPLY=()\n"
        "$(complete -p streamsave | sed 's/.*-F \\([^ ]*\\).*/\\1/') streamsave '' --format\n"
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True, timeout=60)
    assert {"raw", "gzip", "bzip2", "zstd"} <= set(done.stdout.split())


def test_the_choices_are_those_of_the_options() -> None:
    """Whatever the options allow, argparse does."""
    for then in get_args(options.Then):
        assert cli.parse(["save", "--qmp", "s", "x", "--then", then]).then == then
    for transport in get_args(options.Transport):
        assert cli.parse(["save", "--qmp", "s", "x", "--transport", transport]).transport == transport
        assert cli.parse(["restore", "x", "--qmp", "s", "--transport", transport]).transport == transport
