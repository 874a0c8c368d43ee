"""The commit in a thread of its own: while a disk takes its time, the guest can still be freed.

Until the image gets its name the commit can be given up, and never gets there then. From that moment on it is waited for,
whatever happens: an image that may exist and a guest that runs on must not come together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..cancel import Cancellation
from ..endpoints.image_sink import ImageSink
from ..resources import Thread


class Commit:
    """``commit`` finishes ``file``. ``run()`` once; ``join()`` is due afterwards, whatever happens."""

    def __init__(self, file: ImageSink, commit: Callable[[], None]) -> None:
        self._file = file
        self._commit = commit
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._begun = False
        self._thread = Thread(self._run, "commit", "the commit")

    def run(self, cancel: Cancellation) -> None:
        """Return when the image exists, or raise why it does not: the commit's error, or what gave it up.

        The thread may still be ending then: free the guest, then ``join()``.

        Raises:
            ResourceError: the thread cannot be started.
            Everything that ``commit`` raises, and what ``cancel`` was ended with.

        """
        with cancel.waking(self._give_up):
            try:
                self._thread.start()  # interrupted in there, the thread may run
                self._over.wait()
            except BaseException as interrupt:
                self._give_up(interrupt)
                self._wait_on()
                raise
        if self._error is not None:
            raise self._error

    def join(self) -> None:
        """Wait until the thread is gone. Endless if a dead disk is: free the guest first."""
        if self._begun:
            self._thread.join()

    def _run(self) -> None:
        with self._lock:
            if self._over.is_set():
                return  # given up before it began: the file may be closed by now
            self._begun = True
        try:
            self._commit()
        except BaseException as error:
            self._finish(error)
        else:
            self._finish(None)

    def _give_up(self, error: BaseException) -> None:
        self._file.abort()
        if not self._file.naming:
            self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        """The first end counts."""
        with self._lock:
            if not self._over.is_set():
                self._error = error
                self._over.set()

    def _wait_on(self) -> None:
        while not self._over.is_set():
            try:
                self._over.wait()
            except KeyboardInterrupt:
                continue  # the image is getting its name
