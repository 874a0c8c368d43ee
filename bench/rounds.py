"""Groups, measured: all members in turn, then all again: A B C A B C ..., so that a drifting machine hits each of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.kit.qemu import Guest, RunningQemu

import streamsave
from streamsave.codecs.registry import find_codec
from streamsave.format.header import Header, encode_header
from streamsave.format.metadata import Metadata, encode_metadata

from .contestants import Ours, Pipe, RestoreGroup, SaveGroup
from .results import Comparison, Run
from .runs import restore_run, save_run

OURS: Final = "streamsave"
Say = Callable[[str], None]


def save_rounds(qemu: RunningQemu, group: SaveGroup, place: Comparison, folder: Path, rounds: int, say: Say) -> Comparison:
    """``place``, with ``rounds`` runs of each member of ``group``, to ``folder``."""
    for number in range(rounds):
        for member in group.members:
            image = folder / "image"
            run, _ = save_run(qemu, member, image)
            image.unlink(missing_ok=True)
            if not isinstance(member, Ours | Pipe):
                pass  # it keeps nothing
            elif run.size < place.stream_size // 100:
                raise RuntimeError(f"{member.name} wrote an image of {run.size} bytes only")
            place.runs.setdefault(member.name, []).append(run)
            say(f"  {number + 1}/{rounds} {_line(place, member.name, run)}")
    return place


def restore_rounds(
    guest: Guest, group: RestoreGroup, files: tuple[Path, Path], place: Comparison, rounds: int, say: Say
) -> Comparison:
    """``place``, with ``rounds`` runs of streamsave and of the pipe; ``files``: the image and its payload alone."""
    image, payload = files
    for number in range(rounds):
        for name, contestant, path in ((OURS, Ours(group.format), image), (group.pipe.name, group.pipe, payload)):
            run = restore_run(guest, contestant, path)
            place.runs.setdefault(name, []).append(run)
            say(f"  {number + 1}/{rounds} {_line(place, name, run)}")
    return place


def prepare_image(qemu: RunningQemu, group: RestoreGroup, folder: Path) -> tuple[Path, Path]:
    """The image of ``qemu``'s guest that the group restores, and its payload alone, as new files in ``folder``."""
    image, payload = folder / "image", folder / "payload"
    if group.made_by is None:
        _, report = save_run(qemu, Ours(group.format), image)
        offset, size = streamsave.read_info(image).header.payload_offset, report["payload_size"]
        _copy(image, offset, size, payload)
        return image, payload
    save_run(qemu, group.made_by, payload)
    number = find_codec(group.format).number
    assert number is not None, "libvirt has the formats of others' images"
    data, cookie_offset = encode_metadata(Metadata("<domain/>"))
    head = Header(True, len(data), was_running=True, format=number, cookie_offset=cookie_offset)
    image.write_bytes(encode_header(head) + data)
    with image.open("ab") as file:
        subprocess.run(["cat", payload], stdout=file, check=True)
        os.fsync(file.fileno())
    return image, payload


def _copy(source: Path, offset: int, size: int, target: Path) -> None:
    with source.open("rb") as from_, target.open("wb") as to:
        from_.seek(offset)
        while size and (copied := os.copy_file_range(from_.fileno(), to.fileno(), size)):
            size -= copied
        os.fsync(to.fileno())


def _line(place: Comparison, name: str, run: Run) -> str:
    rate = place.stream_size / run.wall_s / 2**20
    cpu_s = run.tool_cpu_s + run.qemu_cpu_s
    return f"{name:26} {run.wall_s:8.2f} s {rate:7.0f} MiB/s {run.size / 2**20:7.0f} MiB  {cpu_s:7.2f} s CPU"
