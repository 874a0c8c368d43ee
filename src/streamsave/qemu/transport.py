"""The socket of a migration: one end for QEMU, the other for us.

``fd``: a socketpair, whose other end goes over the monitor. ``unix``: a path in a private directory, for monitors that carry
no descriptors. Either way no name is left behind, and QEMU sees at once when we are gone.
"""

from __future__ import annotations

import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..choices import Transport
from ..errors import CommandError, DestinationError, EndpointError, GuestError, MigrationError, SourceError, StreamsaveError
from ..units import MiB
from .monitor import Monitor
from .recovery import migration_status

BUFFER_SIZE: Final = 4 * MiB
"""Of the sending end. 208 KiB, the kernel's default, halves the rate; more than this gains nothing."""
SNDBUFFORCE: Final = 32
RCVBUFFORCE: Final = 33
"""From <asm-generic/socket.h>: as root beyond the system's limit, which is the default size on most systems."""

CONNECT_S = 10.0
LOOK_S = 0.05


def start_outgoing(monitor: Monitor, transport: Transport) -> socket.socket:
    """Start the migration and return the socket from which its stream can be read. The socket is the caller's.

    Raises:
        CommandError: QEMU refused to migrate.
        MigrationError: it gave up before the stream began.
        SourceError: this process cannot make the socket.
        MonitorError: as ``Monitor.execute``.
    """
    if transport == "fd":
        return _by_descriptor(monitor, "migrate", SourceError)
    with _private_path(SourceError) as path, socket.socket(socket.AF_UNIX) as listener:
        with _own_io(path, SourceError):
            listener.bind(str(path))
            listener.listen(1)
        monitor.execute("migrate", {"uri": f"unix:{path}"})
        listener.settimeout(LOOK_S)
        return _connected(monitor, lambda: listener.accept()[0])


def start_incoming(monitor: Monitor, transport: Transport) -> socket.socket:
    """Make a QEMU in ``-incoming defer`` load what is written to the socket that is returned. The socket is the caller's.

    The guest stays paused once it is loaded, whatever its QEMU's options say.

    Raises:
        GuestError: it does not wait for a stream; its guest was not touched.
        CommandError: QEMU refused.
        MigrationError, DestinationError, MonitorError: as ``start_outgoing``.
    """
    run_state = monitor.execute("query-status")["status"]
    if run_state != "inmigrate" or migration_status(monitor) != "none":
        raise GuestError(
            f"QEMU at {monitor.address} does not wait for a stream that it is told of later (run state {run_state});"
            " start it with -incoming defer, and restore into it once",
            status=run_state,
        )
    try:
        sock = _open_incoming(monitor, transport)
    except CommandError as error:
        error.add_note("start QEMU with -incoming defer, and restore into it once")
        raise
    try:
        # In this run state: do not start the guest by yourself. Not before QEMU is ours, for if it waits for somebody else's
        # stream that guest is to run; and early enough, for nothing is loaded before we write.
        monitor.execute("stop")
    except BaseException:
        sock.close()
        raise
    return sock


def _open_incoming(monitor: Monitor, transport: Transport) -> socket.socket:
    if transport == "fd":
        return _by_descriptor(monitor, "migrate-incoming", DestinationError)
    with _private_path(DestinationError) as path:
        monitor.execute("migrate-incoming", {"uri": f"unix:{path}"})
        return _connected(monitor, lambda: _connect(path))


def _by_descriptor(monitor: Monitor, command: str, blame: type[EndpointError]) -> socket.socket:
    with _own_io(None, blame):
        ours, theirs = socket.socketpair()
    name = f"streamsave-{secrets.token_hex(4)}"
    try:
        with theirs:
            _raise_buffers(ours)
            _raise_buffers(theirs)
            monitor.send_fd(theirs.fileno(), name)
        monitor.execute(command, {"uri": f"fd:{name}"})
    except BaseException:
        ours.close()
        _forget_descriptor(monitor, name)
        raise
    return ours


def _forget_descriptor(monitor: Monitor, name: str) -> None:
    """Make QEMU close a descriptor that it was given and did not use: nobody else ever would."""
    try:
        monitor.execute("closefd", {"fdname": name}, timeout_s=CONNECT_S)
    except StreamsaveError:
        pass  # it was used, or never arrived, or QEMU is gone


@contextmanager
def _private_path(blame: type[EndpointError]) -> Iterator[Path]:
    """A path for a socket in a directory that only this user can enter; both are gone afterwards."""
    with _own_io(Path(tempfile.gettempdir()), blame):
        folder = Path(tempfile.mkdtemp(prefix="streamsave-"))
    path = folder / "migration"
    try:
        yield path
    finally:
        with suppress(OSError):  # by their names: there may be no descriptor left to look into the folder
            path.unlink(missing_ok=True)
            folder.rmdir()


@contextmanager
def _own_io(path: Path | None, blame: type[EndpointError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" in {path}: set TMPDIR to a directory with a short path that can be written" if path else ""
        raise blame(f"cannot make a socket for the migration ({error}){where}", path=path) from error


def _connected(monitor: Monitor, attempt: Callable[[], socket.socket]) -> socket.socket:
    """What ``attempt`` returns at last. It is repeated while QEMU does not say that it gave up.

    ``attempt`` raises TimeoutError, FileNotFoundError or ConnectionRefusedError as long as QEMU is not there yet.
    """
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            sock = attempt()
        except (TimeoutError, FileNotFoundError, ConnectionRefusedError):
            pass
        except OSError as error:
            raise MigrationError(f"cannot reach QEMU for the migration: {error}; try the other transport, fd") from error
        else:
            sock.settimeout(None)
            _raise_buffers(sock)
            return sock
        status = monitor.execute("query-migrate", timeout_s=CONNECT_S)
        if status.get("status") == "failed" or time.monotonic() > deadline:
            said = status.get("error-desc", "it gives no reason")
            raise MigrationError(
                f"QEMU does not connect to a socket in {tempfile.gettempdir()} ({said}): it may run as another user or see"
                " other directories; try the other transport, fd"
            )


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        time.sleep(LOOK_S)
        raise
    return sock


def _raise_buffers(sock: socket.socket) -> None:
    """Both directions, as far as the system allows."""
    for force, plain in ((SNDBUFFORCE, socket.SO_SNDBUF), (RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_SIZE)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_SIZE)
