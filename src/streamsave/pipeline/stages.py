"""The threads of one pipeline, and what runs them: order in, order out, one ending.

A stage is a loop in a thread of its own. It ends when its input has ended (finish) or when the gate closes (drop); an
exception that leaves it closes the gate for all. The threads are not daemons: whoever starts a pipeline joins it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter, thread_time

from ..errors import ResourceError
from ..resources import Thread
from ..types import Buffer, Sink, Source
from .bufpool import BufferPool, Slot, foreign_slot_count
from .gate import Gate, GateClosed
from .stats import Stats


class Pipeline(ABC):
    """reader --> worker 0..n-1 --> writer over one pool of slots; the mirror images fill in the three loops.

    The slots travel in three queues under the gate's lock: ``free`` (the pool's), ``work`` (to be coded, any order) and
    ``order`` (to be written, in the order in which they were read). ``gate``: of the pipeline that this one ends with.
    """

    def __init__(self, source: Source, sink: Sink, pool: BufferPool, threads: int, gate: Gate | None = None) -> None:
        self.source = source
        self.sink = sink
        self.pool = pool
        self.stats = Stats()
        self._threads_wanted = threads
        self._gate = gate or Gate()
        self._gate.on_fail(self._abort_endpoints)
        self._slot_freed = self._gate.condition()
        self._work_ready = self._gate.condition()
        self._output_ready = self._gate.condition()
        self._stage_ended = self._gate.condition()
        self._running = 0
        self._threads: list[Thread] = []
        self._work: deque[Slot] = deque()
        self._order: deque[Slot] = deque()
        self._input_ended = False

    # -- what a mirror image fills in ---------------------------------------------------------------------------------

    @abstractmethod
    def _read(self) -> None:
        """Fill slots from the source and ``_publish`` them, then ``_end_input``."""

    @abstractmethod
    def _code(self) -> None:
        """``_take_work`` until None, and ``_deliver`` each."""

    @abstractmethod
    def _write(self) -> None:
        """``_take_output`` until empty, ``_put``, ``_recycle``."""

    # -- the life of a pipeline ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all threads. Call once; ``join()`` is due afterwards, whatever happens.

        Raises:
            ResourceError: a thread could not be started; those that were are ending.

        """
        stages = [("reader", self._read), ("writer", self._write)]
        stages += [(f"worker-{number}", self._code) for number in range(self._threads_wanted)]
        for name, body in stages:
            self._start(name, body)

    def wait(self, on_tick: Callable[[], None] | None = None, tick_s: float = 0.1) -> None:
        """Wait until everything was written, or raise the first error. ``on_tick`` runs here every ``tick_s`` seconds.

        After an error the threads may still be ending: ``join()`` waits for them.
        """
        while True:
            with self._gate.lock:
                ended = self._stage_ended.wait_for(self._is_over, tick_s if on_tick else None)
            if self._gate.error is not None:
                raise self._gate.error
            if ended:
                return
            if on_tick:
                on_tick()

    def fail(self, error: BaseException) -> None:
        """End now, with ``error`` unless another came first. Any thread, never blocks."""
        self._gate.fail(error)

    def join(self) -> None:
        """Wait until no thread of this pipeline is left. Endless if a write to a dead disk is: free the guest first."""
        for thread in self._threads:
            thread.join()

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
        except GateClosed:
            pass
        except BaseException as error:
            self._gate.fail(error)
        finally:
            cpu_s = thread_time()
            with self._gate.lock:
                self.stats.cpu_s += cpu_s
                self._running -= 1
                self._stage_ended.notify_all()

    def _start(self, name: str, body: Callable[[], None]) -> None:
        """One more thread, which is a stage of this pipeline. ResourceError as ``start()``."""
        thread = Thread(partial(self._run, body), name, f"the pipeline's {name}")
        with self._gate.lock:
            self._running += 1
        try:
            thread.start()
        except ResourceError as failure:
            with self._gate.lock:
                self._running -= 1
            self.fail(failure)
            raise
        self._threads.append(thread)

    def _is_over(self) -> bool:
        return not self._running or self._gate.error is not None

    def _abort_endpoints(self) -> None:
        self.source.abort()
        self.sink.abort()

    # -- the hand-overs -----------------------------------------------------------------------------------------------

    def _take_free(self) -> Slot:
        """An empty slot, as soon as one is free: the one that was freed last, for it may be in a cache still."""
        with self._gate.lock:
            self._gate.wait(self._slot_freed, lambda: self.pool.free)
            return self.pool.free.pop()

    def _resize_slots(self, size: int) -> None:
        """Make the slots ``size`` bytes large, and fewer if they are large, once all are back; the reader holds none."""
        count = foreign_slot_count(self._threads_wanted, size)
        with self._gate.lock:
            self._gate.wait(self._slot_freed, lambda: len(self.pool.free) == self.pool.count)
            self.pool.resize(count, size)

    def _publish(self, slot: Slot, *, coded: bool = False) -> None:
        """The reader gives ``slot`` its place in the output order, and to the workers unless it is ``coded`` already."""
        with self._gate.lock:
            self._gate.check()
            self._order.append(slot)
            if coded:
                self._output_ready.notify()
            else:
                self._work.append(slot)
                self._work_ready.notify()

    def _end_input(self) -> None:
        """Nothing more will be published."""
        with self._gate.lock:
            self._input_ended = True
            self._work_ready.notify_all()
            self._output_ready.notify_all()

    def _take_work(self) -> Slot | None:
        """The next slot to code; None: there will be no more."""
        with self._gate.lock:
            self._gate.wait(self._work_ready, lambda: self._work or self._input_ended)
            return self._work.popleft() if self._work else None

    def _deliver(self, slot: Slot) -> None:
        """A worker set ``slot.parts``."""
        with self._gate.lock:
            if self._order and self._order[0] is slot:
                self._output_ready.notify()

    def _take_output(self) -> list[Slot]:
        """All slots at the head of the order whose output is there; empty: the end."""
        with self._gate.lock:
            self._gate.wait(self._output_ready, self._output_or_end)
            ready = []
            while self._order and self._order[0].parts is not None:
                ready.append(self._order.popleft())
            return ready

    def _output_or_end(self) -> bool:
        if self._order:
            return self._order[0].parts is not None
        return self._input_ended

    def _put(self, parts: list[Buffer]) -> None:
        """Write ``parts``, counted and timed."""
        began = perf_counter()
        self.sink.write(parts)
        self.stats.write_s += perf_counter() - began
        self.stats.bytes_out += sum(len(part) for part in parts)

    def _recycle(self, slots: list[Slot]) -> None:
        """What the slots held is written: they may be filled again."""
        for slot in slots:
            slot.parts = None
        with self._gate.lock:
            self.pool.free.extend(slots)
            self._slot_freed.notify()
