"""Running a pipeline."""

from __future__ import annotations

from streamsave.pipeline.stages import Pipeline


def run_to_end(pipeline: Pipeline) -> None:
    """All of it, and no thread is left.

    Raises:
        Exception: whatever made it fail.

    """
    pipeline.start()
    try:
        pipeline.wait()
    finally:
        pipeline.join()
