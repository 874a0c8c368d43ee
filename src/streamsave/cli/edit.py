"""``streamsave edit``: the domain XML of an image in an editor, or from a file, and whether its guest is to run."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import Aborted, DestinationError, UsageError
from .arguments import add_changes, add_command, add_image, add_json, add_quiet, read_xml
from .output import Output, complain, reporting, write

if TYPE_CHECKING:
    from ..operations.edit import EditReport
    from .arguments import Subparsers

DESCRIPTION = """\
Change the domain XML in a save image, or whether its guest runs after a restore; without an option, the XML in an editor
(VISUAL, EDITOR, else vi). The name and the UUID stay, and so does the payload.

If the editor fails the image is as it was, and the exit status is 130 (2 if there is no such editor). What you changed in
vain is kept; the error says where.

The image is whole at every instant: what fits into one sector of the disk is written in place, for everything else a new
file takes the place of the old one, with the same owner, mode and attributes. There is no limit to how long the XML grows.
"""

EXAMPLES = """\
  streamsave edit guest.save
      in an editor
  streamsave info guest.save --xml > guest.xml
  streamsave edit guest.save --xml guest.xml
  streamsave edit guest.save --set-paused
"""

DEFAULT_EDITOR: Final = "vi"


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers, "edit", run, summary="change the XML in an image", description=DESCRIPTION, examples=EXAMPLES
    )
    add_image(parser, "the save image")
    add_changes(parser)
    add_json(parser)
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Edit; 0 once the image is as it was asked for."""
    from ..cancel import Cancellation
    from ..operations.edit import edit
    from .signals import SignalRelay

    output = Output(json=args.json, quiet=args.quiet)
    cancel = Cancellation()
    with ExitStack() as stack:
        relay = SignalRelay(cancel, busy="still ending the edit")
        if args.xml is None and args.state is None:
            editor = _Editor(args.image)

            def change(xml: str) -> str:
                text = editor.edited(xml)
                stack.enter_context(relay)
                return text

            with editor.keeping_the_text():
                report = edit(args.image, xml=change, cancel=cancel)
        else:
            stack.enter_context(relay)
            report = edit(args.image, xml=read_xml(args.xml), state=args.state, cancel=cancel)
    for warning in report.warnings:
        output.warn(warning)
    with reporting(f"the image {report.path} is as it was asked for"):
        output.result("edited", as_fields(report), describe(report))
    return 0


def describe(report: EditReport) -> str:
    """What was done, for people."""
    if not report.changed:
        return f"{report.path} is unchanged: nothing was written"
    how = "a new file took its place" if report.rewritten else "in place"
    return f"edited {report.path} ({how}); the guest {'runs' if report.was_running else 'is paused'} after a restore"


def as_fields(report: EditReport) -> dict[str, object]:
    """What was done, for programs."""
    return {
        "path": report.path,
        "changed": report.changed,
        "rewritten": report.rewritten,
        "was_running": report.was_running,
        "image_size": report.image_size,
        "total_s": report.total_s,
        "warnings": report.warnings,
    }


class _Editor:
    """The user's editor, on a file in a folder of its own that nobody else may read: an XML may hold secrets."""

    def __init__(self, image: str) -> None:
        self._name = f"{Path(image).stem}.xml"
        self._folder: Path | None = None
        self._before: bytes | None = None
        """What the editor was given."""

    def edited(self, xml: str) -> str:
        """``xml`` as the user wants it. Asks again while that cannot be, where somebody is there to ask.

        Raises:
            UsageError: there is no such editor, or it made something that cannot be.
            DestinationError: there is no place for the file.
            SourceError: it left no file, or none that may be read.
            Aborted: the editor failed, by its status.

        """
        from ..format.domain_xml import check_same_guest

        path = self._new_file(xml.encode("utf-8", "surrogateescape"))
        while True:
            _run_editor(path)
            text = read_xml(path) or ""
            try:
                if text != xml:
                    check_same_guest(xml, text)
            except UsageError as error:
                if not _wants_to_go_on(error):
                    raise
            else:
                return text

    @contextmanager
    def keeping_the_text(self) -> Iterator[None]:
        """If what is done inside fails, what the user wrote is not lost: a note says where it is. Else nothing is left."""
        try:
            yield
        except BaseException as error:
            if self._folder and self._is_changed(self._folder / self._name):
                kept, self._folder = self._folder / self._name, None
                error.add_note(f"what you wrote is in {kept}; use it with --xml, then remove it")
            raise
        finally:
            if self._folder:
                shutil.rmtree(self._folder)

    def _new_file(self, data: bytes) -> Path:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="streamsave-edit."))
            path = self._folder / self._name
            path.write_bytes(data)
        except OSError as error:
            raise DestinationError(
                f"the XML cannot be written to a file for the editor: {error.strerror}; set TMPDIR to a folder that has room"
            ) from error
        self._before = data
        return path

    def _is_changed(self, path: Path) -> bool:
        if self._before is None:
            return False
        try:
            return path.read_bytes() != self._before
        except FileNotFoundError:
            return False  # nothing is there to be lost
        except OSError:
            return True


def _run_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or DEFAULT_EDITOR
    old = {signum: signal.signal(signum, lambda *_: None) for signum in (signal.SIGINT, signal.SIGQUIT)}  # the editor's own
    try:
        status = subprocess.run([*shlex.split(editor), path], check=False).returncode
    except (OSError, ValueError) as error:
        why = "not found" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"the editor {editor!r} cannot be run: {why}; set VISUAL or EDITOR to one that is installed, or use --xml FILE"
        ) from error
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
    if status:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise Aborted(f"the editor {editor!r} {how}: the image is as it was")


def _wants_to_go_on(error: UsageError) -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    complain(f"{error}")
    write(sys.stderr, "Edit it again? [Y/n] ")
    answer = sys.stdin.readline()
    return answer.strip().lower() in ("", "y", "yes") and answer != ""
