"""A sample of a guest's own migration stream, while the guest goes on.

QEMU begins a migration of the running guest into a reader of ours, which keeps a piece here and there and drops the rest,
and cancels it before the guest's memory ends. The guest runs all the while: ``downtime-limit`` 0 lets QEMU stop it only once
nothing at all is left to send, and the last tenth of its memory is never read. A guest that does next to nothing, and whose
memory ends with zeros, may get there all the same; then the migration is complete, and ``cont`` lets it run on at once. A
paused guest could not be brought back from there to its state, so it is refused. A guardian does all that too, and puts
QEMU's settings back, if we are killed meanwhile.

(``pause-before-switchover`` would keep it from the end, but QEMU 7.2 waits for ever when it is cancelled in that moment.)
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Final

from .._native.scan import StreamScanner
from ..cancel import Cancellation
from ..errors import GuestError, SourceError
from ..guardian.parent import Guardian
from ..guardian.plan import MIGRATING, STOPPING, GuardianPlan
from ..operations.giving_back import surely
from ..qemu.migration import MigrationSettings, check_savable, start_outgoing
from ..qemu.monitor import Monitor
from ..qemu.recovery import free_guest
from ..units import MiB, format_size
from .sample import PIECE_SIZE, Sample, filled

READ_S: Final = 6.0
"""How long to read at the most: of a very large guest that is its first part only."""
UNREAD: Final = 0.1
"""The part of the guest's memory that is never read."""
LEAST_MEMORY: Final = 32 * MiB
PARAMETERS: Final = {"downtime-limit": 0}


def sample_guest(monitor: str | Path | socket.socket, size: int, cancel: Cancellation) -> Sample:
    """``size`` bytes of the stream of the guest behind ``monitor``, which runs on.

    Raises:
        GuestError: the guest does not run, cannot be migrated now, or is too small for a part of it to be left unread.
        MonitorError, MigrationError, SourceError: QEMU does not go along.
        Aborted: ``cancel`` was used.

    """
    address = None if isinstance(monitor, socket.socket) else monitor
    with Monitor(monitor, cancel=cancel) as qmp, cancel.waking(qmp.interrupt):
        guest = check_savable(qmp)
        if not guest.was_running:
            raise GuestError(
                f"the guest at {qmp.address} is {guest.run_state}: only of one that runs a sample can be taken;"
                " let it run, or save it and name the image",
                status=guest.run_state,
            )
        settings = MigrationSettings(qmp, PARAMETERS)
        undo = settings.undo_commands()
        plan = GuardianPlan(kind="piped", was_running=True, then="resume", undo=undo)
        with Guardian(qmp.fileno(), -1, plan, cancel=cancel) as guardian:

            def hand_over() -> None:
                qmp.close()
                guardian.hand_over()

            try:
                settings.neutralise()
                guardian.say(STOPPING)  # QEMU may get ahead of us
                guardian.say(MIGRATING)
                with start_outgoing(qmp, "fd") as sock, cancel.waking(lambda _error: _shut(sock)):
                    return _read(sock, size, cancel)
            finally:  # without a socket: a QEMU that is at its stream's end, and waits for a reader, answers nobody
                surely(lambda commander: free_guest(commander, was_running=True, undo=undo), qmp, address, hand_over)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _read(sock: socket.socket, size: int, cancel: Cancellation) -> Sample:
    """Keep a piece wherever another part of the memory has passed."""
    scanner, data, view = StreamScanner(), bytearray(), memoryview(bytearray(MiB))
    wanted, kept, left = max(1, size // PIECE_SIZE), 0, 0
    began_s, passed, fraction = perf_counter(), 0, 0.0
    while fraction < 1 - UNREAD and perf_counter() - began_s < READ_S:
        try:
            got = sock.recv_into(view)
        except OSError as error:
            raise SourceError(f"reading the migration socket failed: {error}") from error
        finally:
            cancel.check()
        if not got:
            break
        scanner.feed(view[:got])
        passed += got
        if 0 < scanner.ram_size < LEAST_MEMORY:
            raise GuestError(
                f"a guest with {format_size(scanner.ram_size)} of memory is too small: save it, and name the image"
            )
        fraction = scanner.pages_seen * scanner.page_size / scanner.ram_size if scanner.ram_size else 0.0
        if not left and kept < wanted and fraction >= kept / wanted * (1 - UNREAD):
            kept, left = kept + 1, PIECE_SIZE
        taken = min(got, left)
        data += view[:taken]
        left -= taken
    if not data:
        raise GuestError("QEMU ended its stream before there was a sample of it; look at its own messages")
    return Sample(
        data=filled(data),
        origin=f"the memory of the guest, {100 * fraction:.0f} % of which passed",
        stream_size=round(passed / fraction) if fraction else 0,
        source_rate=passed / MiB / (perf_counter() - began_s),
    )
