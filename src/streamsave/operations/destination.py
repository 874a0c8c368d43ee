"""Which kind of destination a new image gets: by what is there, and by what the caller asks for."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ..cancel import Cancellation
from ..choices import AUTO
from ..codecs.base import Codec
from ..endpoints.descriptor import name_of
from ..endpoints.file import NewImage, resolve
from ..endpoints.image_pipe import ImagePipe
from ..endpoints.image_sink import ImageSink, reason
from ..endpoints.in_place import InPlaceImage, open_device
from ..errors import DestinationError
from ..options import CompressOptions

Destination: TypeAlias = str | Path | int
"""A path, or a descriptor that the caller opened and keeps."""


def open_destination(
    destination: Destination,
    head: bytes,
    codec: Codec,
    *,
    stream: bool = False,
    least_size: int = 0,
    cancel: Cancellation,
) -> ImageSink:
    """A new image of ``codec`` at ``destination``, begun with ``head``: header and metadata.

    ``stream``: into a pipe, from which nothing can be taken back, so the header in ``head`` is the complete one.
    ``least_size``: bytes that it takes in any case.

    Raises:
        DestinationError: it cannot be written, is too small, or is a pipe that was not asked for.
        UsageError: a descriptor that is not open for what it takes.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.

    """
    path = _name_of(destination) if isinstance(destination, int) else resolve(Path(destination))
    if stream:
        with _Opened(destination, path, _open_pipe) as fd:
            return ImagePipe(fd, head, path)
    mode = 0 if isinstance(destination, int) or not path.exists() else path.stat().st_mode
    if isinstance(destination, int) or stat.S_ISBLK(mode):
        with _Opened(destination, path, open_device) as fd:
            own = os.dup(fd)
        return InPlaceImage(
            path, own, head, cover=codec.cover, needs_zeros=codec.needs_zeros, cancel=cancel, least_size=least_size
        )
    if mode and not stat.S_ISREG(mode):
        raise DestinationError(
            f"{path}: is no regular file and no block device; a pipe has to be asked for (save --stream, convert to -), for"
            " nothing can be taken back from it",
            path=path,
        )
    return NewImage(path, head, least_size=least_size)


def adjusted(sink: ImageSink, options: CompressOptions) -> ImageSink:
    """``sink``, which from now on writes as ``options`` want it."""
    if options.level == AUTO:
        sink.keep_pace()
    if options.bypass_cache:
        sink.bypass_cache()
    return sink


class _Opened:
    """The caller's descriptor, or ``path`` opened for as long as the ``with``."""

    def __init__(self, destination: Destination, path: Path, open_path: Callable[[Path], int]) -> None:
        self._path = path
        self._open_path = open_path
        self._given = destination if isinstance(destination, int) else -1
        self._fd = -1

    def __enter__(self) -> int:
        try:
            self._fd = self._open_path(self._path) if self._given < 0 else os.dup(self._given)
        except OSError as error:
            raise DestinationError(f"{self._path}: cannot be opened: {reason(error)}", path=self._path) from error
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _open_pipe(path: Path) -> int:
    """Somebody has to read it already: an open that waits for a reader cannot be cancelled."""
    if not path.exists() or not stat.S_ISFIFO(path.stat().st_mode):
        raise DestinationError(f"{path}: is no pipe; make one with mkfifo, or leave --stream out", path=path)
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _name_of(fd: int) -> Path:
    """What to call the file behind ``fd``, which has to be open."""
    try:
        os.fstat(fd)
    except OSError as error:
        raise DestinationError(f"descriptor {fd} is not open: {reason(error)}") from error
    return name_of(fd)
