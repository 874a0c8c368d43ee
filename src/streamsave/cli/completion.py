"""``streamsave completion``: a script that completes our options in bash or zsh."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .arguments import add_command
from .output import write

if TYPE_CHECKING:
    from .arguments import Subparsers

FILES = frozenset({"IMAGE", "SOCKET", "PATH", "SRC", "DST", "FILE"})
"""The metavars of arguments that name files."""

EXAMPLES = """\
  source <(streamsave completion bash)
      in this shell; in ~/.bashrc for all
  streamsave completion bash > /etc/bash_completion.d/streamsave
  streamsave completion zsh > "${fpath[1]}/_streamsave"
"""


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "completion",
        run,
        summary="print a completion script for a shell",
        description="Print a script that teaches the shell to complete streamsave's commands, options and formats.",
        examples=EXAMPLES,
    )
    parser.add_argument("shell", choices=("bash", "zsh"))


def run(args: argparse.Namespace) -> int:
    """Print the script, made from the parser and the registry."""
    import shtab

    from ..codecs.registry import codecs
    from .main import build_parser

    parser = build_parser()
    for action in _actions(parser):
        if action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks
        elif action.metavar == "FORMAT":
            action.choices = tuple(codecs())
    write(sys.stdout, shtab.complete(parser, shell=args.shell) + "\n")
    return 0


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:  # noqa: SLF001 - there is no public way, shtab does the same
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for subparser in action.choices.values():
                found += _actions(subparser)
    return found
