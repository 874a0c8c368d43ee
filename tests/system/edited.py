"""Images that are to be edited."""

from __future__ import annotations

from pathlib import Path

from streamsave.format.metadata import Metadata
from streamsave.operations.convert import convert
from streamsave.operations.image import read_info
from streamsave.options import CompressOptions

from ..kit.images import METADATA, made_up_stream, save_bytes

STREAM = made_up_stream(200)


def titled(size: int) -> str:
    """An XML of one guest with ``size`` bytes more or less in it."""
    return METADATA.xml.replace("</name>", f"</name><title>{'t' * size}</title>")


BEFORE = Metadata(titled(3000), METADATA.cookie)
"""Of several sectors, as real ones are."""


def save(path: Path, name: str) -> None:
    """An image with ``BEFORE``."""
    save_bytes(STREAM, path, format=name)
    convert(path, path, CompressOptions(format=name), xml=BEFORE.xml)


def payload(path: Path) -> bytes:
    """All that follows the metadata, the index too."""
    return path.read_bytes()[read_info(path).payload_offset :]
