"""What every save of a guest does about its new image: look at the place where it goes, and have it watched meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..codecs.base import Codec
from ..endpoints.file import NewImage
from ..errors import DestinationError, UsageError
from ..format.header import MAGIC_COMPLETE, OWN_MAGIC_COMPLETE
from ..guardian import GuardianPlan
from ..qemu.recovery import Command
from ..units import KiB, format_size
from .image_writer import ImageWriter

MANAGED_FOLDER: Final = ("libvirt", "qemu", "save")
"""Below /var/lib, or in a user's own configuration."""


def guardian_plan(
    image: ImageWriter[NewImage],
    codec: Codec,
    *,
    was_running: bool = False,
    then: str = "quit",
    undo: Sequence[Command] = (),
) -> GuardianPlan:
    """What the guardian has to know of ``image``, and of the guest if that is for it to free."""
    file = image.file
    return GuardianPlan(
        temporary=str(file.temporary),
        destination=str(file.path),
        device=file.device,
        inode=file.inode,
        magic=(OWN_MAGIC_COMPLETE if codec.number is None else MAGIC_COMPLETE).decode(),
        was_running=was_running,
        then=then,
        undo=undo,
    )


def check_managed(destination: Path, codec: Codec) -> None:
    """Keep images that libvirt does not know out of the folder of its managed saves.

    Raises:
        UsageError: libvirt would take the image for a damaged one, remove it, and boot the guest without its memory.

    """
    path = destination.resolve()
    if codec.number is None and path.suffix == ".save" and path.parent.parts[-3:] == MANAGED_FOLDER:
        raise UsageError(
            f"{path}: libvirt keeps its managed saves there, and it does not have the format {codec.name}: at the next start"
            " of the domain it would remove the image and boot the guest without its memory; choose a format of libvirt's"
        )


def check_space(image: ImageWriter[NewImage], memory_size: int) -> None:
    """Refuse what cannot fit whatever the memory holds: not even a guest full of zeros would."""
    path = image.file.path
    least = memory_size // 4096 + 64 * KiB
    try:
        status = os.statvfs(path.parent)
    except OSError as error:
        raise DestinationError(f"{path}: cannot ask for the free space there: {error.strerror}", path=path) from error
    free = status.f_bavail * status.f_frsize
    if free < least:
        raise DestinationError(
            f"{path}: only {format_size(free)} are free there, and {format_size(memory_size)} of memory need"
            f" {format_size(least)} at the very least; free some space or save elsewhere",
            path=path,
        )
