"""Past the page cache (``O_DIRECT``): what is appended is gathered into an aligned buffer and goes to the disk in blocks.

Frames are of odd sizes, and a disk takes whole blocks from aligned memory. So each byte is copied once, compressed as it is,
and the tail that fills no block is written the ordinary way, with the flag off again. Many file systems refuse the flag, and
some only the writes: then everything goes the ordinary way, and a note says so.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Final

from ..types import Buffer
from ..units import KiB, MiB

BLOCK_SIZE: Final = 4 * KiB
"""What offsets and sizes have to be multiples of: enough for every disk whose sectors are 512 or 4096 bytes."""
BUFFER_SIZE: Final = 4 * MiB
"""Each write waits for the disk, so it has to be a large one."""


class DirectWriter:
    """Appends to ``fd``, whose offset is ``offset``. One thread; ``check`` is called before each write and may raise.

    The flag belongs to the open file, which ``fd`` may share with others (a caller's descriptor, the guardian's): it is on
    from here to ``finish()`` or ``stop()``, and nobody else may read or write through it meanwhile.
    """

    def __init__(self, fd: int, offset: int, check: Callable[[], None]) -> None:
        self._fd = fd
        self._check = check
        self.refusal = ""
        """Why it is not done after all; empty while it is."""
        self._direct = False
        self._view = memoryview(mmap.mmap(-1, BUFFER_SIZE))
        self._fill = 0
        if offset % BLOCK_SIZE:
            self.refusal = f"the payload begins at {offset}, at no multiple of {BLOCK_SIZE}"
            return
        try:
            self._set(direct=True)
        except OSError as error:
            self.refusal = f"this file system refuses it ({error.strerror})"

    def write(self, parts: Sequence[Buffer]) -> None:
        """Append ``parts``; they are the caller's again when this returns. OSError as it comes."""
        for part in parts:
            left = memoryview(part).cast("B")
            while left:
                taken = left[: BUFFER_SIZE - self._fill]
                self._view[self._fill : self._fill + len(taken)] = taken
                self._fill += len(taken)
                left = left[len(taken) :]
                if self._fill == BUFFER_SIZE:
                    self._write_out(BUFFER_SIZE)

    def finish(self) -> None:
        """Write what is left, the tail the ordinary way. OSError as it comes."""
        self._write_out(self._fill // BLOCK_SIZE * BLOCK_SIZE)
        self.stop()
        self._write_out(self._fill)

    def stop(self) -> None:
        """Turn the flag off again; what is left in the buffer is dropped if nobody writes it now. May be called twice."""
        if self._direct:
            self._set(direct=False)

    def _write_out(self, size: int) -> None:
        """The first ``size`` bytes of the buffer; fewer than a block may stay."""
        done = 0
        while done < size:
            self._check()
            try:
                done += os.write(self._fd, self._view[done:size])
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self.refusal = f"this file system refuses such writes ({error.strerror})"
                self.stop()
        self._view[: self._fill - size] = self._view[size : self._fill]
        self._fill -= size

    def _set(self, *, direct: bool) -> None:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
        self._direct = direct
