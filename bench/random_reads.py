"""Random reads of 4 KiB from the stream of an image: how long each takes. ``python -m bench.random_reads IMAGE [COUNT]``."""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
from random import Random
from time import perf_counter

import streamsave
from streamsave.units import KiB, MiB

SIZE = 4 * KiB


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("count", metavar="COUNT", type=int, nargs="?", default=2000, help="of reads (default: %(default)s)")
    args = parser.parse_args()
    image, count = args.image, args.count
    random, times = Random(1), []
    with streamsave.open_stream(image) as stream:
        for _ in range(count):
            offset = random.randrange(stream.size - SIZE)
            began = perf_counter()
            assert len(stream.read_at(offset, SIZE)) == SIZE
            times.append(perf_counter() - began)
        pages = []
        block = max(stream.ram.blocks, key=lambda block: block.size)
        for _ in range(count):
            offset = random.randrange(block.size // SIZE) * SIZE
            began = perf_counter()
            assert len(stream.ram.read(block.name, offset, SIZE)) == SIZE
            pages.append(perf_counter() - began)
        print(f"{stream.info.format}, {stream.size / MiB:.0f} MiB of stream, {count} reads of {SIZE} bytes at random")
    for what, taken in (("of the stream", times), ("of the guest's pages", pages)):
        slow = sorted(taken)[int(count * 0.99)]
        print(f"{what:22} median {statistics.median(taken) * 1000:.2f} ms, 99 % within {slow * 1000:.2f} ms")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
