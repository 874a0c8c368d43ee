"""What the system may refuse this process: memory, threads and descriptors. One error for all of them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final
from weakref import ref

from .errors import ResourceError

_LOOK_S = 0.1
"""How often to look whether a thread is gone that has not begun."""
_NO_MEMORY: Final = (
    *("failed to map segment", "cannot map zero-fill pages"),  # glibc's dlopen
    *("can't allocate", "annot allocate", "out of memory"),  # the interpreter of a lock, dlopen, liblzma in cramjam
    *("not enough memory", "allocation_failed"),  # libzstd, liblz4
)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that this process got no memory; those of libraries say it in their text alone."""
    number = error.errno if isinstance(error, OSError) else None
    return isinstance(error, MemoryError) or number == errno.ENOMEM or any(words in str(error) for words in _NO_MEMORY)


class Thread(threading.Thread):
    """A thread that runs once ``start`` has returned. ``what`` it is for, as in "the commit".

    With ``threading.Thread`` it is not sure: who starts one that gets no memory to begin waits for ever (python/cpython
    issue 140746), or, if it gets a little further, is not told. So here ``start`` waits for the beginning of ``run``, and
    for the end of the thread, which is when the function is gone that the interpreter made it with.
    """

    def __init__(self, run: Callable[[], object], name: str, what: str, *, daemon: bool = False) -> None:
        super().__init__(target=run, name=f"streamsave-{name}", daemon=daemon)
        self._what = what
        self._begun = threading.Event()
        self._started = _NobodyWaits()  # what start() of the class above waits for
        self._made_with: Callable[[], object] = object  # which is not None

    @property
    def _bootstrap(self) -> Callable[[], None]:
        """What ``start()`` of the class above makes the thread with; it alone has it then."""
        function = partial(super()._bootstrap)  # type: ignore[misc]  # of typeshed nothing private is known
        self._made_with = ref(function)
        return function

    def start(self) -> None:
        """Start it.

        Raises:
            ResourceError: the system gives this process no more threads, or no memory for one.

        """
        try:
            super().start()
        except RuntimeError as error:
            raise self._refused(f"{error}", "raise the limit on processes") from error
        while not self._begun.wait(_LOOK_S):
            if self._made_with() is None and not self._begun.is_set():
                threading._limbo.pop(self, None)  # type: ignore[attr-defined]  # noqa: SLF001 - or it is listed for ever
                raise self._refused("there is no memory for it", "raise the limit (ulimit -v, or the control group's)")

    def run(self) -> None:
        """In the new thread."""
        self._begun.set()
        super().run()

    def _refused(self, why: str, advice: str) -> ResourceError:
        return ResourceError(f"cannot start a thread for {self._what} ({why}): {advice}, or use fewer threads")


class _NobodyWaits(threading.Event):
    """An event that is waited for elsewhere."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002
        """Return at once."""
        return True


@contextmanager
def descriptors(what: str) -> Iterator[None]:
    """Inside, descriptors are opened for ``what``.

    Raises:
        ResourceError: there are no more of them. Any other OSError comes as it is.

    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise ResourceError(
            f"no descriptor is left for {what} ({error.strerror}): raise the limit on open files (ulimit -n)"
        ) from error
