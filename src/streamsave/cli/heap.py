"""How the C library keeps memory: a setting of the whole process, so a program's to make and not a library's."""

from __future__ import annotations

from typing import Final

from ..units import MiB

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""Of glibc's ``mallopt`` (``malloc.h``)."""


def keep_freed_memory() -> None:
    """Let glibc use freed memory again, up to 64 MiB in each thread's heap, and not give it back at once.

    Some libraries have no way to write into memory of ours: what they return for a chunk would be mapped, faulted in page by
    page and unmapped each time, in part with the interpreter lock held. Nothing happens with other C libraries.
    """
    import ctypes

    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_MMAP_THRESHOLD, 4 * MiB)
        mallopt(_TRIM_THRESHOLD, 64 * MiB)
