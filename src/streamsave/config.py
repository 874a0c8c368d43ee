"""libvirt's ``qemu.conf``: the one setting in it that concerns us, ``save_image_format``.

The file is in libvirt's own small language (libvirt's ``src/util/virconf.c``)::

    save_image_format = "zstd"            # a string, in "..." or '...', without escapes
    max_queued = 0                        # a number
    cgroup_device_acl = [                 # a list, over as many lines as it likes
        "/dev/null", "/dev/kvm",
    ]

Statements end with their line or with ``;``. Of a key that is set twice the first value counts.

The whole file is read, and a line that libvirt would not understand is an error although it may not concern us: with such
a file libvirt does not start, and guessing what its owner meant is no way to choose the format of a guest's only copy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NoReturn, TypeAlias
from urllib.parse import urlsplit

from .codecs.registry import codecs, find_codec
from .errors import ConfigError, FormatError

KEY: Final = "save_image_format"
MAX_CONFIG_SIZE: Final = 10 * 1024 * 1024
"""As libvirt's own limit."""
MAX_LIST_DEPTH: Final = 16
"""No setting of libvirt's nests a list at all."""

Value: TypeAlias = "str | int | list[Value]"


def usual_path(uri: str | None = None) -> Path:
    """Where libvirt looks: ``/etc/libvirt`` for the system's daemon, the user's own configuration for a session's.

    ``uri`` tells which of them is meant; without it root means the first, and everybody else the second.
    """
    place = urlsplit(uri or "").path
    if place == "/system" or (place != "/session" and os.geteuid() == 0):
        return Path("/etc/libvirt/qemu.conf")
    home = os.path.expanduser("~/.config")
    return Path(os.environ.get("XDG_CONFIG_HOME") or home) / "libvirt" / "qemu.conf"


def configured_format(path: Path | None = None, usual: Path | None = None) -> str | None:
    """The format that ``path`` asks for; without a path, what the file at libvirt's usual place (or ``usual``) asks for.

    None where the file does not set the key, and where there is no path and no usual file that we may read.

    Raises:
        ConfigError: the file cannot be followed, or ``path`` cannot be read.

    """
    if path is not None:
        return read_save_format(path)
    try:
        return read_save_format(usual or usual_path())
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            return None  # absent or not for our eyes: as if it did not set the key
        raise


def read_save_format(path: Path) -> str | None:
    """The value of ``save_image_format`` in ``path``, which is a format that we write; None where it is not set.

    Raises:
        ConfigError: the file cannot be read (an ``OSError`` is the cause), is not in libvirt's language, or asks for a
            format that does not exist or that we do not write yet (a ``FormatError`` is the cause).

    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_SIZE + 1)
    except OSError as error:
        message = f"{path}: cannot read the configuration: {error.strerror}: name another file, or choose with --format"
        raise ConfigError(message, path=path) from error
    if len(data) > MAX_CONFIG_SIZE:
        raise ConfigError(f"{path}: larger than 10 MiB: this is no qemu.conf", path=path)
    for key, value, line in _Parser(path, data.decode("utf-8", "surrogateescape")).statements():
        if key == KEY:
            return _check_format(path, line, value)
    return None


def _check_format(path: Path, line: int, value: Value) -> str:
    where = f"{path}, line {line}: {KEY}"
    if not isinstance(value, str):
        words = ", ".join(codecs())
        raise ConfigError(f"{where} is {value!r}, which is not a string: set it to one of {words}", path=path, line=line)
    try:
        find_codec(value)
    except FormatError as error:
        message = f"{where} is {value!r}: {error} (or choose with --format)"
        raise ConfigError(message, path=path, line=line) from error
    return value


class _Parser:
    """A cursor over the text of one file; ``statements()`` is called once."""

    _NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
    _BLANK = re.compile(r"[ \t]*")
    _BLANK_LINES = re.compile(r"[ \t\r\n]*")
    _COMMENT = re.compile(r"#[^\r\n]*")
    _STRING = re.compile(r'"""(?P<long>.*?)"""|"(?P<double>[^"\r\n]*)"|\'(?P<single>[^\'\r\n]*)\'', re.DOTALL)
    _NUMBER = re.compile(r"[-+]?[0-9]{1,19}")

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._at = 0

    def statements(self) -> list[tuple[str, Value, int]]:
        """Key, value and line (from 1) of every assignment in the file."""
        found = []
        self._skip(self._BLANK_LINES)
        while self._at < len(self._text):
            if not self._skip(self._COMMENT):
                line = self._line
                key = self._expect(self._NAME, "the name of a setting")
                self._skip(self._BLANK)
                self._expect_one("=", f"an assignment, {key} = VALUE")
                found.append((key, self._value(), line))
                self._skip(self._BLANK)
                self._skip(self._COMMENT)
            self._separator()
        return found

    def _separator(self) -> None:
        self._skip(self._BLANK)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n;":
            self._fail("the end of the line")
        if self._text.startswith(";", self._at):
            self._at += 1
        self._skip(self._BLANK_LINES)

    def _value(self, depth: int = 0) -> Value:
        self._skip(self._BLANK)
        string = self._STRING.match(self._text, self._at)
        if string is not None:
            self._at = string.end()
            return str(string[string.lastgroup or 0])
        if self._text.startswith(('"', "'"), self._at):
            self._fail("the closing quote of this string")
        if self._text.startswith("[", self._at):
            return self._list(depth)
        return int(self._expect(self._NUMBER, 'a value: "text", a number or [ a list ]'))

    def _list(self, depth: int) -> list[Value]:
        values: list[Value] = []
        start = self._at
        if depth == MAX_LIST_DEPTH:
            self._fail("a list that is not nested so deeply")
        self._at += 1
        while True:
            self._skip(self._BLANK_LINES)
            if self._at >= len(self._text):
                self._at = start
                self._fail("the closing ] of this list")
            if self._text.startswith("]", self._at):
                self._at += 1
                return values
            if values:
                self._expect_one(",", "a comma or ] in this list")
                self._skip(self._BLANK_LINES)
                if self._text[self._at : self._at + 1] in ("]", ""):
                    continue
            values.append(self._value(depth + 1))

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Go behind what ``pattern`` matches here; tell whether that was anything."""
        match = pattern.match(self._text, self._at)
        if match is None:
            return False
        self._at = match.end()
        return True

    def _expect(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            self._fail(what)
        self._at = match.end()
        return match[0]

    def _expect_one(self, text: str, what: str) -> None:
        if not self._text.startswith(text, self._at):
            self._fail(what)
        self._at += len(text)

    @property
    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _fail(self, what: str) -> NoReturn:
        rest = self._text[self._at :].split("\n", 1)[0].rstrip()
        found = repr(rest[:40]) if rest else "the end of the line"
        raise ConfigError(
            f"{self._path}, line {self._line}: expected {what}, found {found}: libvirt would not accept this file either",
            path=self._path,
            line=self._line,
        )
