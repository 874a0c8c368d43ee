"""What every save of a guest does about its new image: look at the place where it goes, and have it watched meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..codecs.base import Codec
from ..endpoints.image_sink import ImageSink
from ..errors import UsageError
from ..guardian.plan import GuardianPlan
from ..qemu.recovery import Command
from ..units import KiB
from .image_writer import ImageWriter

MANAGED_FOLDER: Final = ("libvirt", "qemu", "save")
"""Below /var/lib, or in a user's own configuration."""


def guardian_plan(
    image: ImageWriter[ImageSink], *, was_running: bool = False, then: str = "quit", undo: Sequence[Command] = ()
) -> GuardianPlan:
    """What the guardian has to know of ``image``, and of the guest if that is for it to free."""
    partial, complete = image.magics
    return GuardianPlan(
        kind=image.file.kind,
        temporary=str(image.file.temporary),
        destination=str(image.file.path),
        partial=partial.decode(),
        complete=complete.decode(),
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


def least_size(memory_size: int) -> int:
    """Of an image of so much memory, whatever it holds: not even a guest full of zeros takes less."""
    return memory_size // 4096 + 64 * KiB
