"""Everything that the command line prints goes through here.

Standard output carries results, standard error the rest: errors, warnings, questions, the progress bar. With ``--json``
every line of standard output is one JSON object with an ``event``, and errors are told there too.

Two promises. Text that came from an image, a guest or QEMU never reaches a terminal raw: ``escape`` shows control
characters instead of sending them. And the report is not worth the operation: a reader that went away (``| head``) is no
error and never ends a save; only a result that cannot be written at all (a full disk) is a failure.
"""

from __future__ import annotations

import json
import math
import os
import select
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

from ..errors import Aborted, DestinationError, ImageError, StreamsaveError
from ..printable import escape as escape  # as itself: whoever prints finds it here

PROGRAM: Final = "streamsave"
INTERNAL_ERROR_STATUS: Final = 70
"""``EX_SOFTWARE`` of sysexits.h: a bug of ours."""


class Output:
    """Prints what one run of one sub-command has to say: for people, or with ``json`` for programs."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def result(self, event: str, fields: Mapping[str, object], text: str, *, stream: TextIO | None = None) -> None:
        """The outcome: one JSON object, or ``text`` on standard output (or ``stream``), or with ``quiet`` nothing.

        ``text`` may have several lines; everything else in it that is not printable is escaped.

        Raises:
            DestinationError: it cannot be written.

        """
        if self.json:
            self.event(event, fields)
        elif not self.quiet:
            write(stream or sys.stdout, escape(text, keep="\n") + "\n")

    def event(self, event: str, fields: Mapping[str, object]) -> None:
        """One JSON object in a line of its own on standard output.

        Raises:
            DestinationError: it cannot be written.

        """
        write(sys.stdout, json_line(event, fields))

    def warn(self, text: str) -> None:
        """One line of warning on standard error; ``quiet`` does not silence it."""
        complain(f"warning: {text}")

    def error(self, error: StreamsaveError, status: int) -> None:
        """The error that ends this run, its notes indented below it; with ``json`` as a last event too."""
        notes: Sequence[str] = getattr(error, "__notes__", ())
        complain(f"error: {error}", notes)
        if self.json:
            self._error_event(type(error).__name__, str(error), notes, status, _facts(error))

    def internal_error(self, error: BaseException, advice: str) -> None:
        """A bug of ours, told in the same shape."""
        message = f"{type(error).__name__}: {error}"
        complain(f"internal error: {message}", [advice])
        if self.json:
            self._error_event(type(error).__name__, message, [advice], INTERNAL_ERROR_STATUS, {})

    def _error_event(self, name: str, message: str, notes: Sequence[str], status: int, facts: Mapping[str, object]) -> None:
        fields = {"class": name, "message": message, "notes": notes, "exit_status": status, **facts}
        try:
            self.event("error", fields)
        except DestinationError:
            pass  # standard output is what failed; standard error has said it


@contextmanager
def reporting(done: str) -> Iterator[None]:
    """Around the report on an operation that succeeded: if it cannot be written, say all the same what is ``done``."""
    try:
        yield
    except DestinationError as error:
        error.add_note(f"only this report failed: {done}")
        raise


def exit_status(error: StreamsaveError) -> int:
    """What the process exits with: the class's status, or 128 + N when signal N ended it."""
    if isinstance(error, Aborted) and error.signum:
        return 128 + error.signum
    return error.exit_status


def write(stream: TextIO | None, text: str | bytes) -> None:
    """Write and flush; bytes go out as they are. A reader that went away is no error: what follows is dropped too.

    Raises:
        DestinationError: the stream is closed, or writing failed.

    """
    if stream is None:  # the process was started without this descriptor
        raise DestinationError("cannot write to standard output: it is closed")
    try:
        if isinstance(text, bytes):
            stream.buffer.write(text)
        else:
            encoding = stream.encoding or "utf-8"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        _drop_output(stream)
    except KeyboardInterrupt:  # nobody reads: what the buffer holds must not block again when the interpreter ends
        _drop_output(stream)
        raise
    except OSError as error:
        _drop_output(stream)
        raise DestinationError(f"cannot write to standard output: {error.strerror}") from error


def complain(text: str, notes: Iterable[str] = ()) -> None:
    """``streamsave: text`` on standard error, ``notes`` indented below it. There is nowhere to say that this failed."""
    lines = [line for part in (text, *notes) for line in part.rstrip("\n").split("\n")]
    shown = f"\n{' ' * 4}".join(escape(line) for line in lines)
    try:
        write(sys.stderr, f"{PROGRAM}: {shown}\n")
    except DestinationError:
        pass


def json_line(event: str, fields: Mapping[str, object]) -> str:
    """An event as one line, its end included."""
    plain = {name: _plain(value) for name, value in fields.items()}
    return json.dumps({"event": event, **plain}, allow_nan=False) + "\n"


def drop_unread_output() -> None:
    """From now on standard output and standard error go to nowhere, each if writing to it would block: nobody reads it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not select.select([], [stream], [], 0)[1]:
            _drop_output(stream)


def quote_command(arguments: Iterable[str]) -> str:
    r"""A command line that a shell would take: quoted where needed, unprintable characters as ``$'\x1b'`` of bash."""
    return " ".join(_quote(argument) for argument in arguments)


def table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """``rows`` as aligned columns, two spaces apart; the columns in ``right`` are aligned to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    to_right = frozenset(right)
    lines = []
    for row in rows:
        cells = (c.rjust(w) if i in to_right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _quote(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    shown = (
        char if char.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in argument.replace("\\", "\\\\").replace("'", "\\'")
    )
    return f"$'{''.join(shown)}'"


def _facts(error: StreamsaveError) -> dict[str, object]:
    """Where an image is wrong, and how far an operation came, as far as that is known."""
    facts: dict[str, object] = {}
    if isinstance(error, ImageError):
        places = {"offset": error.offset, "frame": error.frame, "good_size": error.good_size}
        facts = {name: place for name, place in places.items() if place >= 0}
        if error.path:
            facts["path"] = error.path
    if error.progress is not None:
        from dataclasses import asdict

        facts["progress"] = asdict(error.progress)
    return facts


def _plain(value: object) -> object:
    """``value`` as JSON has it: paths as strings, tuples as lists, numbers that JSON lacks as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def _drop_output(stream: TextIO) -> None:
    """Send ``stream`` to nowhere, or what its buffer holds would fail again when the interpreter ends."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # not a real file (or gone): nothing to be flushed at the end
