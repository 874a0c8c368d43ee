import os
from pathlib import Path

import pytest

from streamsave import config
from streamsave.config import configured_format, read_save_format, usual_path
from streamsave.errors import ConfigError, FormatError


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "qemu.conf"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("\n\n  # nothing set\n", None),
        ("# save_image_format = 'gzip'", None),
        ('save_image_format = "gzip"', "gzip"),
        ("save_image_format='bzip2'", "bzip2"),
        ('\t save_image_format\t=  """raw"""  # a comment, with "quotes"\n', "raw"),
        ('save_image_format = "zstd" # first\nsave_image_format = "xz"\n', "zstd"),  # libvirt takes the first one, too
        ('dump_image_format = "lzop"\nsave_image_format = "gzip"\r\n', "gzip"),
        ('a = 1 ; b = -2; c = +3\nsave_image_format = "gzip";', "gzip"),
        ('cgroup_device_acl = [\n  "/dev/null", \'x\',\n\n  "/dev/zero"\n]\nsave_image_format = "gzip"', "gzip"),
        ('a = []\nb = [ ]\nc = [ "x", ]\nd = [ 1, [ 2 ] ]\nsave_image_format = "gzip"', "gzip"),
        ('user = "# not a comment"\nsave_image_format = "gzip"', "gzip"),
        ('user = "it\'s"\nnote = """two\nlines = 1"""\nsave_image_format = "gzip"', "gzip"),
        ('user = "n\xe4me"\nsave_image_format = "gzip"', "gzip"),
    ],
)
def test_the_value_is_found(conf: Path, text: str, value: str | None) -> None:
    conf.write_bytes(text.encode("latin-1"))  # libvirt does not care about the encoding either
    assert read_save_format(conf) == value


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('save_image_format "gzip"', 1, "expected an assignment, save_image_format = VALUE, found '\"gzip\"'"),
        ("\n\nsave_image_format = gzip", 3, "expected a value: \"text\", a number or [ a list ], found 'gzip'"),
        ("a = 1\nb =", 2, 'expected a value: "text", a number or [ a list ], found the end of the line'),
        ('a = "open\nb = 1', 1, "expected the closing quote of this string, found '\"open'"),
        ('a = """open\nb = 1', 1, "expected the end of the line, found '\"open'"),
        ('\na = [ "x"\nb = 1', 3, "expected a comma or ] in this list, found 'b = 1'"),
        ('a = 1\nb = [ "x",\n\n', 2, "expected the closing ] of this list, found '[ \"x\",'"),
        ('a = "x" "y"', 1, "expected the end of the line, found '\"y\"'"),
        ("= 1", 1, "expected the name of a setting, found '= 1'"),
        ("a = 99999999999999999999", 1, "expected the end of the line, found '9'"),
        ("a = " + "[" * 100_000, 1, "expected a list that is not nested so deeply"),
    ],
)
def test_what_libvirt_would_not_understand_is_an_error_at_its_line(conf: Path, text: str, line: int, message: str) -> None:
    conf.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_save_format(conf)
    assert str(caught.value).startswith(f"{conf}, line {line}: {message}")
    assert (caught.value.path, caught.value.line) == (conf, line)


def test_an_unknown_word_names_file_line_value_and_the_words(conf: Path) -> None:
    conf.write_text('\nsave_image_format = "zip"\n')
    with pytest.raises(ConfigError) as caught:
        read_save_format(conf)
    message = str(caught.value)
    assert message.startswith(f"{conf}, line 2: save_image_format is 'zip': ")
    assert all(word in message for word in ("raw", "gzip", "bzip2", "zstd"))
    assert "yet" not in message
    assert isinstance(caught.value.__cause__, FormatError)
    assert caught.value.exit_status == 4


def test_sparse_is_understood_and_answered(conf: Path) -> None:
    conf.write_text('save_image_format = "sparse"')
    with pytest.raises(ConfigError, match=r"line 1: save_image_format is 'sparse': .*seekable file.*choose with --format"):
        read_save_format(conf)


@pytest.mark.parametrize("value", ["1", "[ 'gzip' ]"])
def test_the_value_has_to_be_a_string(conf: Path, value: str) -> None:
    conf.write_text(f"save_image_format = {value}")
    with pytest.raises(ConfigError, match=r"line 1: save_image_format is .*, which is not a string: .*gzip"):
        read_save_format(conf)


def test_a_named_file_has_to_be_there(conf: Path) -> None:
    with pytest.raises(ConfigError, match=f"{conf}: cannot read the configuration: No such file or directory") as caught:
        configured_format(conf)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(ConfigError, match="Is a directory"):
        configured_format(conf.parent)


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: larger than 10 MiB"):
        configured_format(Path("/dev/zero"))


def test_the_usual_file_need_not_be_there(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    monkeypatch.setattr(config, "usual_path", lambda: conf)
    assert configured_format() is None
    conf.write_text('save_image_format = "gzip"')
    assert configured_format() == "gzip"


def test_the_usual_file_has_to_be_right_if_it_is_there(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    monkeypatch.setattr(config, "usual_path", lambda: conf)
    conf.write_text("nonsense")
    with pytest.raises(ConfigError, match=f"{conf}, line 1: expected an assignment"):
        configured_format()


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert usual_path() == Path("/etc/libvirt/qemu.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert usual_path() == Path("/xdg/libvirt/qemu.conf")
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert usual_path() == Path("/home/me/.config/libvirt/qemu.conf")
