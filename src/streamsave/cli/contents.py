"""What ``streamsave info`` shows of a payload: frames, RAM, pages, and what a verification would rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..units import format_size
from .levels import level_fields, level_text

if TYPE_CHECKING:
    from ..operations.contents import Contents
    from ..operations.image import ImageInfo

VERIFICATIONS: Final = {
    "digests": "holds every MiB against its digest",
    "checksums": "has the codec's checksums only: there is no index",
    "structure": "has the stream's structure only: raw, and there is no index",
}
"""What a verification would rest on; nothing was verified here."""


def gather(info: ImageInfo, *, scan: bool) -> Contents:
    """What is in the payload, which somebody here decodes; with ``scan`` all of it."""
    from ..operations.contents import contents_of, look_into
    from ..operations.verify import verify

    if scan and info.index is None and info.header.complete:
        return contents_of(verify(info.path))
    return look_into(info)


def contents_rows(info: ImageInfo, contents: Contents) -> list[tuple[str, str]]:
    """Of the table, for people."""
    stream = contents.stream
    rows = [("index", "yes" if info.index else f"damaged: {info.index_problem}" if info.index_problem else "no")]
    if info.index:
        rows[-1] = ("index", f"yes: image {info.index.image_id.hex()}, digest {info.index.root.hex()}")
    rows.append(("verify", VERIFICATIONS[contents.proof]))
    if contents.frame_count >= 0:
        chunk = f" of {format_size(contents.chunk_size)}" if contents.chunk_size > 0 else ""
        ratio = contents.ratio(info.payload_size)
        frames = "1 frame" if contents.frame_count == 1 else f"{contents.frame_count} frames"
        rows.append(("stream", f"{format_size(contents.stream_size)} in {frames}{chunk}, ratio {ratio:.1f}"))
    if info.index and info.index.levels:
        rows.append(("compressed", f"at{level_text(info.index.levels)}"))
    if stream and stream.ram_blocks:
        rows.append(("RAM", ", ".join(f"{block.name} {format_size(block.size)}" for block in stream.ram_blocks)))
    if stream and contents.whole:
        total = stream.page_count + stream.zero_page_count
        share = f" ({100 * stream.zero_page_count / total:.0f} %)" if total else ""
        rows.append(("pages", f"{total} of {format_size(stream.page_size)}: {stream.zero_page_count} are zero{share}"))
    return rows


def contents_fields(info: ImageInfo, contents: Contents | None) -> dict[str, object]:
    """For programs; None is for what is not known."""
    stream = contents.stream if contents else None
    known = contents is not None and contents.frame_count >= 0
    counted = stream if contents is not None and contents.whole else None
    return {
        "proof": contents.proof if contents else None,
        "frame_count": contents.frame_count if contents and known else None,
        "chunk_size": contents.chunk_size if contents and contents.chunk_size > 0 else None,
        "stream_size": contents.stream_size if contents and known else None,
        "ratio": contents.ratio(info.payload_size) if contents and known else None,
        "levels": level_fields(info.index.levels) if info.index else None,
        "stream_machine": stream.machine if stream else None,
        "ram_blocks": [{"name": block.name, "size": block.size} for block in stream.ram_blocks] if stream else None,
        "page_size": stream.page_size if stream else None,
        "page_count": counted.page_count if counted else None,
        "zero_page_count": counted.zero_page_count if counted else None,
    }
