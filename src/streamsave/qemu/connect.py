"""From an address to a socket on which QMP has greeted, with every way in which that can fail told apart.

Plain blocking socket calls with one time limit for everything. The greeting is looked at and left in the socket, for
whoever speaks QMP on it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import struct
import time
from pathlib import Path

from ..cancel import Cancellation
from ..errors import MonitorBusyError, MonitorConnectError
from ..resources import descriptors

GREETING_SIZE = 4096
"""More than any greeting: those of QEMU have some 150 bytes."""
RETRY_S = 0.02
_CREDENTIALS = struct.Struct("iII")


def open_socket(path: str, deadline: float, cancel: Cancellation) -> socket.socket:
    """Connect to the Unix socket ``path``, before the monotonic time ``deadline``. The socket is the caller's.

    Raises:
        MonitorConnectError: nothing answers there; the message says why, and what to do.
        MonitorBusyError: so many clients wait for the monitor already that no more fit.
        ResourceError: no descriptor is left for it.
        Aborted, TimeLimitError: ``cancel`` was used meanwhile.
    """
    with descriptors("the monitor"):
        sock = socket.socket(socket.AF_UNIX)
    try:
        while True:
            sock.settimeout(_remaining(deadline))
            try:
                sock.connect(path)
            except (BlockingIOError, TimeoutError):  # the queue of waiting clients is full
                if time.monotonic() >= deadline:
                    raise _busy(path) from None
                cancel.check()
                time.sleep(RETRY_S)
            else:
                return sock
    except OSError as error:
        sock.close()
        raise MonitorConnectError(f"cannot connect to the monitor {path}: {_reason(path, error)}", address=path) from error
    except BaseException:
        sock.close()
        raise


def await_greeting(sock: socket.socket, address: str, deadline: float) -> None:
    """Wait until a QMP greeting can be read from ``sock``; it stays there to be read.

    Raises:
        MonitorConnectError: the other side closes at once, or speaks something else.
        MonitorBusyError: it says nothing before the monotonic time ``deadline``.
    """
    while True:
        sock.settimeout(_remaining(deadline))
        try:
            data = sock.recv(GREETING_SIZE, socket.MSG_PEEK)
        except TimeoutError:
            raise _busy(address) from None
        except OSError as error:
            raise _closed(address) from error
        if not data:
            raise _closed(address)
        line, newline, _ = data.partition(b"\n")
        if newline or len(data) == GREETING_SIZE or not data.startswith(b"{"):
            break
        if time.monotonic() >= deadline:
            raise _not_qmp(address, data)
        time.sleep(RETRY_S)  # the rest of the line is on its way
    try:
        greeting = json.loads(line)
    except ValueError:
        raise _not_qmp(address, data) from None
    if not isinstance(greeting, dict) or "QMP" not in greeting:
        raise _not_qmp(address, data)


def check_loop_opens() -> None:
    """Open and close what an event loop will, and what is imported in it: where that fails QEMU would be blamed.

    Raises:
        ResourceError: no descriptors are left for it.
    """
    with descriptors("the monitor"), select.epoll(), open(os.devnull, "rb"):
        for sock in socket.socketpair():
            sock.close()


def hang_up(sock: socket.socket) -> None:
    """Break the connection, and so wake whoever is blocked in it. The socket stays its owner's, to be closed."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed, on either side


def peer_pid(sock: socket.socket) -> int | None:
    """The process that listens at the other end of ``sock``, as the kernel knows it.

    None where that says nothing: it lives in another PID namespace, or the two ends were made by this process itself.
    """
    pid, _uid, _gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return None if pid in (0, os.getpid()) else int(pid)


def _remaining(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)  # 0 would mean: do not wait at all


def _reason(path: str, error: OSError) -> str:
    """What went wrong at ``path``, and what to do."""
    if isinstance(error, FileNotFoundError):
        return f"no such socket; is QEMU running, with -qmp unix:{path},server=on,wait=off?"
    if isinstance(error, PermissionError):
        return "permission denied; run as root, or as the user whose QEMU it is"
    if error.errno is None:  # Python's own: the kernel's address structure has 108 bytes
        return "the path is longer than the 107 bytes that a socket's may have; give a shorter one, a relative one perhaps"
    if isinstance(error, ConnectionRefusedError):
        if not _is_socket(path):
            return "it is not a socket; give the path of QEMU's -qmp socket"
        return "nobody listens there; its QEMU has probably ended and left the socket behind"
    return f"{error.strerror}; give the path of QEMU's -qmp socket"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return True  # gone by now: it was one


def _busy(address: str) -> MonitorBusyError:
    return MonitorBusyError(
        f"the monitor {address} accepts connections but does not greet: another client holds the monitor (QMP serves one at"
        " a time), or it is no QMP monitor; close the other client, or give QEMU a second -qmp socket",
        address=address,
    )


def _closed(address: str) -> MonitorConnectError:
    return MonitorConnectError(
        f"whatever listens at {address} closes the connection at once: it is no QMP monitor, or its QEMU is ending",
        address=address,
    )


def _not_qmp(address: str, data: bytes) -> MonitorConnectError:
    what = "does not speak QMP"
    if b"monitor - type 'help'" in data:
        what = "is a monitor for people (HMP), not for programs"
    return MonitorConnectError(
        f"whatever listens at {address} {what}: it begins with {data[:40]!r}; give the path of a -qmp socket",
        address=address,
    )
