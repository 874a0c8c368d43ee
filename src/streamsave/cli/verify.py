"""``streamsave verify``: whether images are whole and undamaged, and how much that was worth."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from ..errors import ImageError, SourceError, StreamsaveError
from ..units import format_duration, format_size
from .arguments import add_command, add_json, add_max_window, add_quiet, add_threads
from .output import Output, exit_status

if TYPE_CHECKING:
    from ..operations.verify import VerifyReport
    from .arguments import Subparsers

DESCRIPTION = """\
Check whether save images are whole and undamaged: every frame is decoded, every MiB of the stream is held against the
digests in the image's index, and the stream is walked to its well-formed end. The images are only read.

What the proof rests on is told: digests (an index: nothing was changed by accident), checksums (those of the codec), or
structure (a raw image that another program wrote: damage inside of the guest's pages cannot be seen).

The exit status is 0 if all images are good, else that of the first that is not: 11 no save image, 12 incomplete (its save
never finished), 13 truncated (it ends too early), 14 corrupt, 15 of a kind that this release does not read, 41 not readable.
"""

EXAMPLES = """\
  streamsave verify guest.save
  streamsave verify /var/lib/libvirt/qemu/save/*.save
      all of them; the exit status is that of the first that is not good
  streamsave verify guest.save --json | jq -r .root
      the digest of the stream: the same in every format that the image is converted to
"""

PROOFS: Final = {
    "digests": "every MiB is the one that was saved",
    "checksums": "by the codec's checksums; the image has no index",
    "structure": "by its structure only: a raw image without an index has no checksums",
}


def register(subparsers: Subparsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "verify",
        run,
        summary="check that images are whole and undamaged",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="the save images")
    add_threads(parser)
    add_max_window(parser)
    add_json(parser)
    add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Verify all; the status is that of the first that is not good."""
    from ..cancel import Cancellation
    from ..operations.verify import verify
    from .progress import showing_progress
    from .signals import SignalRelay

    output = Output(json=args.json, quiet=args.quiet)
    cancel = Cancellation()
    status = 0
    with SignalRelay(cancel, busy="still ending the verification"):
        for image in args.images:
            try:
                with showing_progress(output) as progress:
                    report = verify(
                        image, threads=args.threads, max_window=args.max_window, progress=progress, cancel=cancel
                    )
            except (ImageError, SourceError) as error:
                add_good_size(error)
                output.error(error, exit_status(error))
                status = status or exit_status(error)
            else:
                output.result("verified", as_fields(report), describe(report))
    return status


def add_good_size(error: StreamsaveError) -> None:
    """Say how much before the damage is good."""
    good_size = error.good_size if isinstance(error, ImageError) else -1
    if good_size >= 0:
        error.add_note(f"the first {good_size} bytes of the stream ({format_size(good_size)}) are good")


def describe(report: VerifyReport) -> str:
    """What was found good, for people."""
    edited = "; XML or cookie were edited since the save" if report.metadata_as_saved is False else ""
    return (
        f"{report.path}: good: {format_size(report.stream_size)} of stream, {report.format}, in"
        f" {format_duration(report.total_s)}; {PROOFS[report.proof]}{edited}"
    )


def as_fields(report: VerifyReport) -> dict[str, object]:
    """What was found good, for programs."""
    return {
        "path": report.path,
        "good": True,
        "format": report.format,
        "proof": report.proof,
        "image_size": report.image_size,
        "stream_size": report.stream_size,
        "frame_count": report.frame_count,
        "parallel": report.parallel,
        "root": report.root,
        "metadata_as_saved": report.metadata_as_saved,
        "machine": report.stream.machine,
        "total_s": report.total_s,
        "stage_s": report.stage_s,
        "cpu_s": report.cpu_s,
        "rate": report.rate,
    }
