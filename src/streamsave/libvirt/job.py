"""What libvirt's own job says of a save. Asked in a thread of its own, for libvirt answers when it likes."""

from __future__ import annotations

from threading import Event
from typing import Self

from ..operations.course import Course
from .call import Call
from .connection import Domain

LOOK_S = 0.5
"""How often it is asked: each time it asks QEMU."""
LAST_ANSWER_S = 2.0
"""How long an answer under way is waited for when all is over: libvirt gives none while it holds the domain."""


class JobWatch:
    """Keeps ``course.job`` up to date. A context manager; a libvirt that does not tell is not asked again.

    Raises:
        ResourceError: the thread cannot be started.

    """

    def __init__(self, domain: Domain, course: Course) -> None:
        self._domain = domain
        self._course = course
        self._over = Event()
        self._call = Call(self._watch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """No more questions."""
        self._over.set()
        self._call.wait(LAST_ANSWER_S)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self._course.job = self._domain.job()
