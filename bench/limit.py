"""How near a save comes to what the machine can do: the parts that no save is without, each measured alone, and the whole.

::

    limit = (QEMU's CPU for one stream + the codec's for the same chunks + the kernel's for receiving it once
             + the kernel's for writing the image once) / processors

The codec's share is that of one thread alone. On processors that share a core, or memory that is busy, all at once take
longer: ``codec_all_s`` says how long, and what that alone adds to the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.kit.qemu import RunningQemu

import streamsave
from streamsave.codecs.registry import find_codec
from streamsave.options import usable_cpus

from .contestants import Ours
from .meters import account_of
from .runs import save_run
from .worker import Worker

FORMATS: Final = (Ours("zstd", 1), Ours("zstd", 3), Ours("gzip", 1))
AT_MOST: Final = 1.12
"""What is wanted."""


@dataclass(frozen=True)
class Parts:
    """One round. CPU seconds, and at the end the seconds that a whole save took."""

    qemu_s: float
    receive_s: float
    codec_s: float
    codec_all_s: float
    write_s: float
    cpus: int
    wall_s: float

    @property
    def limit_s(self) -> float:
        """Nothing that does all of this is faster."""
        return (self.qemu_s + self.receive_s + self.codec_s + self.write_s) / self.cpus

    @property
    def share(self) -> float:
        """The save's time per limit."""
        return self.wall_s / self.limit_s


def measure_limit(qemu: RunningQemu, ours: Ours, folder: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """``rounds`` rounds of all parts and of the whole, with the guest in ``qemu`` and the image in ``folder``."""
    captured, image = folder / "captured", folder / "image"
    level = find_codec(ours.format).check_level(int(ours.level or 0))
    _, report = save_run(qemu, Ours("raw"), captured)
    stream = {"path": str(captured), "offset": streamsave.read_info(captured).header.payload_offset}
    stream["size"] = report["stream_size"]
    taken = []
    for number in range(rounds):
        receiver = Worker("discard", monitor=str(qemu.monitor))
        before = account_of(qemu.pid)
        received = receiver.run()
        qemu_s = account_of(qemu.pid).since(before).own_s
        codec = {"format": ours.format, "level": level, **stream}
        alone = Worker("encode", threads=1, **codec).run().result
        together = Worker("encode", threads=usable_cpus(), **codec).run().result
        written = Worker("write", target=str(image), sizes=alone["sizes"], **stream).run().result
        image.unlink()
        whole, _ = save_run(qemu, ours, image)
        image.unlink()
        parts = Parts(
            qemu_s=qemu_s,
            receive_s=received.result["receive_s"],
            codec_s=alone["cpu_s"],
            codec_all_s=together["cpu_s"],
            write_s=written["cpu_s"],
            cpus=usable_cpus(),
            wall_s=whole.wall_s,
        )
        taken.append(parts)
        say(f"  {number + 1}/{rounds} {ours.name:8} {whole.wall_s:.2f} s, limit {parts.limit_s:.2f} s: {parts.share:.2f}")
    captured.unlink()
    return {"member": ours.name, "stream_size": report["stream_size"], "rounds": [asdict(parts) for parts in taken]}


def middle_parts(measured: dict[str, Any]) -> Parts:
    """The median of each part."""
    rounds = measured["rounds"]
    return Parts(**{name: median(each[name] for each in rounds) for name in rounds[0]})


def shares(measured: dict[str, Any]) -> list[float]:
    """Each round's time per limit."""
    return [Parts(**each).share for each in measured["rounds"]]
