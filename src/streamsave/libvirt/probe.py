"""Which way the daemon can open a pipe of ours: found out by letting it read from one, before any domain is touched."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import LibvirtError, ResourceError
from ..format.header import Header, encode_header
from ..format.save_format import SaveFormat
from ..units import KiB
from .call import Call
from .connection import Connection
from .passage import DescriptorPassage, FifoPassage, Passage

KINDS: tuple[Callable[[], Passage], ...] = (DescriptorPassage, FifoPassage)
TIMEOUT_S = 20.0
MAX_XML = 32 * KiB
"""What fits into any pipe. libvirt complains in its log about the XML that stands for a larger one, and that is all."""


def open_passage(connection: Connection, xml: str) -> Passage:
    """A passage that the daemon can open; the caller's. ``xml`` is a domain's, for it to read.

    Raises:
        LibvirtError: there is none.

    """
    tried = []
    for kind in KINDS:
        try:
            passage = kind()
        except ResourceError as error:
            tried.append(str(error))
            continue
        try:
            problem = _try(connection, passage, xml)
            if not problem:
                return passage
            tried.append(f"{passage.path}: {problem}")
        except BaseException:
            passage.close()
            raise
        passage.close()
    raise LibvirtError(
        f"libvirt's daemon at {connection.uri} cannot open a pipe of ours ({'; '.join(tried)}): is it in a container or"
        " confined? Run streamsave where the daemon runs, in its PID namespace"
    )


def _try(connection: Connection, passage: Passage, xml: str) -> str:
    """Why the daemon did not read from the passage; empty if it did."""
    with passage.next_pipe() as pipe:
        size = os.write(pipe.writer, _small_image(xml))
        call = Call(lambda: connection.read_image(passage.path))
        answered = call.wait(TIMEOUT_S)
        read = pipe.waiting() < size
    if not answered:
        return "the daemon does not answer"
    return "" if read else str(call.error or "the daemon read something else")


def _small_image(xml: str) -> bytes:
    """A raw image with nothing in it but ``xml``."""
    data = xml.encode("utf-8", "surrogateescape")
    data = (data if len(data) <= MAX_XML else b"<domain/>") + b"\0"
    return encode_header(Header(complete=True, data_size=len(data), was_running=False, format=SaveFormat.RAW)) + data
