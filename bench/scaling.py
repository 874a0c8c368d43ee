"""What more cores would bring: by calculation from what was measured here, and by the simulation.

::

    rate = min(cores x chunk / codec's CPU per chunk, chunk / lock held per chunk, QEMU's ceiling)

The simulation runs the pipeline with as many threads, each codec holding the lock and waiting as measured; it has the
processors of this machine only, so what it reaches is less than what a machine with so many cores would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from streamsave.codecs.registry import find_codec
from streamsave.units import GiB, MiB

from . import limit
from .lock import held_per_chunk
from .results import Results
from .simulation import engine_limit, simulate

CORES: Final = (8, 32, 128)


def measure_scaling(results: Results, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """From the limit's parts and the lock's that ``results`` has; rates in bytes per second."""
    engine = []
    for each in engine_limit(seconds):
        engine.append(asdict(each))
        say(f"  the engine alone, {each.threads} threads: {each.rate / GiB:.1f} GiB/s")
    held, rows = results.parts["lock"], []
    for part in results.parts["limit"]:
        name = part["member"].split()[0]
        chunk_s = codec_seconds(part) * find_codec(name).chunk_size
        hold_s, all_s = held["encoders_s"][name], held_per_chunk(held, name)
        for cores in CORES:
            simulated = simulate(cores, hold_s, chunk_s, seconds)
            row = {
                "member": part["member"],
                "cores": cores,
                "codec_rate": cores * MiB / chunk_s,
                "lock_rate": MiB / all_s,
                "qemu_rate": ceiling(part),
                "simulated_rate": simulated.rate,
            }
            rows.append(row)
            rates = f"{row['codec_rate'] / GiB:.1f} GiB/s of codecs, {simulated.rate / GiB:.1f} simulated"
            say(f"  {part['member']} on {cores} cores: {rates}")
    return {"engine": engine, "rows": rows}


def codec_seconds(part: dict[str, Any]) -> float:
    """CPU seconds of the codec per byte of stream."""
    return limit.middle_parts(part).codec_s / float(part["stream_size"])


def ceiling(part: dict[str, Any]) -> float:
    """What QEMU's one thread delivers if nothing keeps it waiting, bytes per second."""
    return float(part["stream_size"]) / limit.middle_parts(part).qemu_s


def calculated_rate(row: dict[str, Any], *, with_qemu: bool) -> float:
    """The least of the three, or of the first two."""
    return float(min(row["codec_rate"], row["lock_rate"], *([row["qemu_rate"]] if with_qemu else [])))
