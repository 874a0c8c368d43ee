import errno
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from streamsave.cancel import Cancellation
from streamsave.cli.signals import SignalRelay
from streamsave.errors import Aborted, GuestError, IncomingError, ResourceError

BUSY = "still freeing the guest"


@pytest.fixture(autouse=True)
def _everything_as_it_was() -> Iterator[None]:
    before = [signal.getsignal(signum) for signum in signal.Signals]
    threads, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    assert [signal.getsignal(signum) for signum in signal.Signals] == before
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, fds)


class Waiter:
    """An operation that waits until it is cancelled."""

    def __init__(self, cancel: Cancellation) -> None:
        self.cancel = cancel
        self.woken = threading.Event()

    def __call__(self) -> None:
        with self.cancel.waking(lambda _error: self.woken.set()):
            assert self.woken.wait(10)
        self.cancel.check()


def cancelled_by(*signums: int, error: Exception | None = None) -> Aborted:
    """What leaves the block if these signals arrive in it while an operation waits, which then raises ``error`` if given."""
    cancel = Cancellation()
    operation = Waiter(cancel)

    def run() -> None:
        with SignalRelay(cancel, busy=BUSY):
            for signum in signums:
                os.kill(os.getpid(), signum)
            try:
                operation()
            except Aborted as aborted:
                raise error or aborted from None

    with pytest.raises(Aborted) as caught:
        run()
    return caught.value


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels(signum: signal.Signals) -> None:
    aborted = cancelled_by(signum)
    assert str(aborted) == f"interrupted by {signum.name}"
    assert aborted.signum == signum


def test_a_signal_wakes_the_main_thread_from_a_wait() -> None:
    cancel = Cancellation()
    operation = Waiter(cancel)
    with SignalRelay(cancel, busy=BUSY):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(Aborted):
            operation()
        timer.join()


def test_a_second_signal_only_gets_an_answer(capfd: pytest.CaptureFixture[str]) -> None:
    aborted = cancelled_by(signal.SIGINT, signal.SIGTERM)
    assert aborted.signum == signal.SIGINT
    assert capfd.readouterr().err == f"streamsave: SIGTERM again: {BUSY}\n"


def test_an_operation_that_succeeds_all_the_same_has_succeeded() -> None:
    with SignalRelay(Cancellation(), busy=BUSY):
        os.kill(os.getpid(), signal.SIGINT)


def test_without_a_signal_an_error_stays_what_it_is() -> None:
    with pytest.raises(GuestError), SignalRelay(Cancellation(), busy=BUSY):
        raise GuestError("it is paused")


def test_the_signal_is_the_reason_for_what_fails_after_it() -> None:
    error = IncomingError("QEMU died")
    error.add_note("a note")
    aborted = cancelled_by(signal.SIGINT, error=error)
    assert str(aborted) == "interrupted by SIGINT: QEMU died"
    assert aborted.signum == signal.SIGINT
    assert aborted.__notes__ == ["a note"]


def test_no_thread_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything has begun; the fixture sees that all is as it was."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ResourceError, match="cannot start a thread for signals"), SignalRelay(Cancellation(), busy="busy"):
        pass


def test_no_descriptor_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(ResourceError, match="no descriptor is left for signals"), SignalRelay(Cancellation(), busy="busy"):
        pass


def test_an_ignored_signal_stays_ignored() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        cancel = Cancellation()
        with SignalRelay(cancel, busy=BUSY) as relay:
            os.kill(os.getpid(), signal.SIGHUP)
            relay.forward_to(lambda signum: pytest.fail(f"{signum} was forwarded"))
        cancel.check()
    finally:
        signal.signal(signal.SIGHUP, old)


def test_what_stops_a_process_is_ignored_while_a_guest_waits() -> None:
    stopping = (signal.SIGTSTP, signal.SIGTTOU)
    with SignalRelay(Cancellation(), busy=BUSY):
        assert [signal.getsignal(signum) for signum in stopping] == [signal.SIG_DFL] * 2
    with SignalRelay(Cancellation(), busy=BUSY, stoppable=False):
        assert [signal.getsignal(signum) for signum in stopping] == [signal.SIG_IGN] * 2


class Receiver:
    def __init__(self, count: int) -> None:
        self.signals: list[int] = []
        self._left = threading.Semaphore(0)
        self._count = count

    def __call__(self, signum: int) -> None:
        self.signals.append(signum)
        self._left.release()

    def wait(self) -> list[int]:
        for _ in range(self._count):
            assert self._left.acquire(timeout=10)
        return self.signals


def test_every_signal_is_forwarded_once_there_is_a_guest() -> None:
    cancel = Cancellation()
    receiver = Receiver(4)
    with SignalRelay(cancel, busy=BUSY) as relay:
        relay.forward_to(receiver)
        for signum in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            before = len(receiver.signals)
            os.kill(os.getpid(), signum)
            while len(receiver.signals) == before:
                threading.Event().wait(0.001)
        assert receiver.wait() == [signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT]
    cancel.check()


def test_a_signal_that_came_too_late_to_cancel_is_forwarded() -> None:
    cancel = Cancellation()
    operation = Waiter(cancel)
    receiver = Receiver(1)
    with SignalRelay(cancel, busy=BUSY) as relay:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Aborted):
            operation()
        relay.forward_to(receiver)
        assert receiver.wait() == [signal.SIGTERM]


def test_forwarding_to_one_that_ended_is_no_error() -> None:
    sent = threading.Event()

    def send(_signum: int) -> Any:
        sent.set()
        raise ProcessLookupError

    with SignalRelay(Cancellation(), busy=BUSY) as relay:
        relay.forward_to(send)
        os.kill(os.getpid(), signal.SIGINT)
        assert sent.wait(10)
