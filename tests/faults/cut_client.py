"""A save that waits for SIGUSR1 between the image's commit and ``quit``: ``cut_client.py MONITOR IMAGE``."""

from __future__ import annotations

import signal
import sys

from streamsave.endpoints.image_sink import ImageSink
from streamsave.operations.image_writer import ImageWriter
from streamsave.operations.save import save
from streamsave.options import SaveOptions

commit = ImageWriter.commit


def commit_and_wait(image: ImageWriter[ImageSink]) -> None:
    commit(image)
    print("committed", flush=True)
    signal.sigwait([signal.SIGUSR1])


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    ImageWriter.commit = commit_and_wait  # type: ignore[assignment,method-assign]
    save(sys.argv[1], sys.argv[2], SaveOptions(format="raw", transport="unix"))
