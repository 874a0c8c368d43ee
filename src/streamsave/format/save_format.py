"""libvirt's numbers for the formats of a payload, and since when libvirt restores them.

Source: libvirt ``src/qemu/qemu_saveimage.h`` (``virQEMUSaveFormat``) and its release notes. Header version 2 and the formats
up to lzop came with 0.7.1 (2009), whose restore mixes up raw and compressed images: 0.7.2 is the first that restores either.
"""

from __future__ import annotations

from enum import IntEnum


class SaveFormat(IntEnum):
    """The header's ``format`` field. The names in lower case are libvirt's words in ``qemu.conf``."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6
    """Not a stream: QEMU's mapped-ram layout."""

    @property
    def word(self) -> str:
        """What libvirt calls it."""
        return self.name.lower()


def oldest_libvirt(number: int) -> str:
    """The first libvirt release that restores images of this format, such as ``10.4``; empty where none does."""
    return _OLDEST.get(number, "")


_OLDEST: dict[int, str] = {
    SaveFormat.RAW: "0.7.2",
    SaveFormat.GZIP: "0.7.2",
    SaveFormat.BZIP2: "0.7.2",
    SaveFormat.XZ: "0.7.2",
    SaveFormat.LZOP: "0.7.2",
    SaveFormat.ZSTD: "10.4",
    SaveFormat.SPARSE: "11.2",
}
