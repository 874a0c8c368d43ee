"""An image in place: on a block device, or in a file that the caller opened. Nothing is renamed; the magic alone decides.

What was there before is gone from the first write on, and must not look complete at any instant after it. So the partial
header is durable before anything else changes, and the complete one is the last thing that is written.

A device goes on behind the image, with whatever was there. The stock tool that decodes the payload reads on to the end, so
the rest has to be something that it skips: either zeros, which are made before the guest is stopped, for they may take long;
or a few bytes here and there that tell it to skip what follows, which are written after the payload.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ..cancel import Cancellation
from ..errors import DestinationError, UsageError
from ..format.header import HEADER_SIZE
from ..units import GiB
from .image_sink import ImageSink

BLKZEROOUT: Final = 0x127F
"""<linux/fs.h>: make a range of a block device zeros, by the device itself where it can."""
ZERO_STEP: Final = 1 * GiB
"""So much at a time: between the steps the operation can be cancelled."""

Cover = Callable[[int], Iterator[tuple[int, bytes]]]
"""``Codec.cover``: what to write at which offsets so that so many bytes are skipped."""


class InPlaceImage(ImageSink):
    """Written over what ``fd``, a block device or a file open for reading and writing, holds.

    Raises:
        DestinationError: it cannot be written, or is too small.
        UsageError: it is something else, or not open for both.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.

    """

    kind = "in place"

    def __init__(
        self,
        path: Path,
        fd: int,
        head: bytes,
        *,
        cover: Cover,
        needs_zeros: bool,
        cancel: Cancellation,
        least_size: int = 0,
    ) -> None:
        """``head``: the partial header and the metadata. ``cover`` and ``needs_zeros`` are the codec's."""
        super().__init__(path, fd)
        self._cover = cover
        try:
            self._is_device = self._check_kind()
            self._room = os.lseek(fd, 0, os.SEEK_END) if self._is_device else 0
            os.lseek(fd, 0, os.SEEK_SET)
            if self._is_device:
                self._check_space(self._room, max(least_size, len(head)))
            self._begin(head, cancel, needs_zeros=needs_zeros)
        except OSError as error:
            self.close()
            raise self._cannot("be written in place", error) from error
        except BaseException:
            self.close()
            raise

    def _begin(self, head: bytes, cancel: Cancellation, *, needs_zeros: bool) -> None:
        self.write([head[:HEADER_SIZE]])  # less than a sector, which a disk writes whole or not at all
        os.fsync(self._fd)
        if self._is_device and needs_zeros:
            start = -(-len(head) // 4096) * 4096
            for offset in range(start, self._room, ZERO_STEP):
                cancel.check()
                size = min(ZERO_STEP, self._room - offset)
                fcntl.ioctl(self._fd, BLKZEROOUT, struct.pack("=QQ", offset, size))
        self.write([head[HEADER_SIZE:]])

    def commit(self, header: bytes, partial: bytes) -> None:
        """See ``ImageSink``."""
        try:
            self._end()
            os.fsync(self._fd)
            self._begin_naming()
            self._rewrite(header)
            os.fsync(self._fd)
        except BaseException as error:
            if self.naming and not self._mark_partial(partial):
                self.left = f"{self.path} could not be taken back: it may look complete, and is of no use"
            if isinstance(error, OSError):
                raise self._cannot("make the image durable", error) from error
            raise
        self.committed = True

    def discard(self) -> None:
        """Close. What is not committed is marked as partial already."""
        self.close()

    def _end(self) -> None:
        """Make an end of the image where it ends."""
        if not self._is_device:
            os.ftruncate(self._fd, self.size)
            return
        try:
            for offset, data in self._cover(self._room - self.size):
                self._check_aborted()
                if os.pwrite(self._fd, data, self.size + offset) != len(data):
                    raise OSError(5, "short write behind the payload")
        except ValueError as error:
            raise DestinationError(
                f"{self.path}: too few bytes are left behind the image ({error}); save to a larger device", path=self.path
            ) from error

    def _check_kind(self) -> bool:
        """Whether it is a device."""
        mode = os.fstat(self._fd).st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise UsageError(f"{self.path}: neither a file nor a block device; ask for a stream to write to a pipe")
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        if flags & os.O_ACCMODE != os.O_RDWR:
            raise UsageError(f"{self.path}: not open for reading and writing; open it so")
        if flags & os.O_APPEND:  # what was there would keep its magic
            raise UsageError(f"{self.path}: open for appending, so nothing in it can be changed; open it without O_APPEND")
        return stat.S_ISBLK(mode)


def open_device(path: Path) -> int:
    """A block device for ourselves alone: one that is mounted, or that another save writes to, is refused.

    Raises:
        OSError: as it comes.

    """
    return os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
