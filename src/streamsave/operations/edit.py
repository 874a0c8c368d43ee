"""Edit: another domain XML in an image, or another word on whether its guest is to run. The payload stays as it is.

The image is whole at every instant, whenever the power fails: what changes within one sector is written there, for a disk
writes a sector as a whole; everything else goes into a new file, which then takes the place of the old one. The index stays
valid, for it counts from the start of the payload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from ..cancel import Cancellation
from ..endpoints.replacement import SECTOR_SIZE, Replacement, overwrite
from ..errors import DestinationError
from ..format.domain_xml import check_same_guest
from ..format.header import Header, encode_header
from ..format.metadata import Metadata, encode_metadata, encode_texts
from ..options import GuestState, runs_after
from .image import OpenImage


@dataclass(frozen=True, slots=True, kw_only=True)
class EditReport:
    """An image that is as it was asked for."""

    path: Path
    changed: bool
    """False: it was like that before, and nothing was written."""
    rewritten: bool
    """A new file took the place of the old one; False: less than a sector changed."""
    was_running: bool
    """What the image says now."""
    image_size: int
    total_s: float
    warnings: tuple[str, ...] = ()


def edit(
    image: str | Path,
    *,
    xml: str | Callable[[str], str] | None = None,
    state: GuestState | None = None,
    cancel: Cancellation | None = None,
) -> EditReport:
    """Change the domain XML in ``image``, and whether its guest is to run after a restore (``"running"``, ``"paused"``).

    ``xml`` is the new one, or makes it from the old one and may take its time: an image that changes meanwhile is left
    alone. The file keeps its owner, mode and attributes. Any thread may call.

    Raises:
        UsageError: there is no such ``state``, or the XML is not well-formed, too large, or of another guest.
        IncompleteImageError, TruncatedImageError, CorruptImageError, NotAnImageError, UnsupportedImageError, SourceError.
        DestinationError: the image cannot be written, or somebody else changed it. Nothing has changed then.
        Aborted, and everything that ``xml`` raises.

    """
    cancel = cancel or Cancellation()
    began = perf_counter()
    with OpenImage(image) as opened:
        opened.check_complete()
        old, header = opened.info.metadata, opened.info.header
        header = replace(header, was_running=runs_after(state, was_running=header.was_running))
        new = Metadata(xml(old.xml) if callable(xml) else old.xml if xml is None else xml, old.cookie)
        cancel.check()
        if new != old:
            check_same_guest(old.xml, new.xml)
        changed = new != old or header != opened.info.header
        rewritten = changed and not _overwritten(opened, header, new)
        warnings = _rewrite(opened, header, new, cancel) if rewritten else ()
        return EditReport(
            path=opened.path,
            changed=changed,
            rewritten=rewritten,
            was_running=header.was_running,
            image_size=opened.path.stat().st_size,
            total_s=perf_counter() - began,
            warnings=warnings,
        )


def _overwritten(image: OpenImage, header: Header, new: Metadata) -> bool:
    """Change the image where it is; False: that would not be safe, or there is no room."""
    before = image.source.read_at(header.payload_offset, 0)
    data = before[len(encode_header(header)) :]
    if new != image.info.metadata:
        texts, cookie_offset = encode_texts(new)
        if len(texts) > len(data):
            return False
        data = texts.ljust(len(data), b"\0")
        header = replace(header, cookie_offset=cookie_offset)
    after = encode_header(header) + data
    first, end = _difference(before, after)
    if first // SECTOR_SIZE != (end - 1) // SECTOR_SIZE:
        return False
    overwrite(image.path, image.source.fileno(), image.status, after[first:end], first)
    return True


def _difference(before: bytes, after: bytes) -> tuple[int, int]:
    """From where to where the two differ. They are of one size, and not the same."""
    difference = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
    from_end = difference.bit_length() - 1, (difference & -difference).bit_length() - 1  # of the first and the last bit
    return len(before) - 1 - from_end[0] // 8, len(before) - from_end[1] // 8


def _rewrite(image: OpenImage, header: Header, new: Metadata, cancel: Cancellation) -> tuple[str, ...]:
    """A new file with new room to edit, and all that follows the metadata in the old one; what is to be said of it."""
    data, cookie_offset = encode_metadata(new)
    complete = replace(header, data_size=len(data), cookie_offset=cookie_offset)
    partial = encode_header(replace(complete, complete=False))
    with (
        Replacement(image.path, partial + data, image.source.fileno(), image.status) as file,
        cancel.waking(lambda _error: file.abort()),
    ):
        try:
            file.copy_old(header.payload_offset)
            file.commit(encode_header(complete), partial)
        except DestinationError:
            cancel.check()  # then that is the reason
            raise
        file.remove_older()
        return tuple(file.notes)
