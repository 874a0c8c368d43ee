"""A terminal that is held, or a pipe that nobody reads: the report waits, the guest does not."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..kit.qemu import RunningQemu
from ..kit.unfinished import unfinished_size
from ..kit.waiting import until

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(60)]
SLOW = ("--format", "bzip2", "--threads", "1")
F_SETPIPE_SZ = 1031


@contextmanager
def saving(demo: RunningQemu, image: Path, *options: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A save in mid-stream, with what it shows not read."""
    command = [sys.executable, "-m", "streamsave.cli", "save", "--qmp", str(demo.monitor), str(image), *options]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that takes nothing more: (its reading end, its writing end)."""
    reader_fd, writer_fd = os.pipe()
    try:
        size = fcntl.fcntl(writer_fd, F_SETPIPE_SZ, 4096)
        os.write(writer_fd, b"\n" * size)
        yield reader_fd, writer_fd
    finally:
        os.close(reader_fd)
        os.close(writer_fd)


@contextmanager
def held_terminal() -> Iterator[int]:
    """A terminal after Ctrl-S."""
    master_fd, slave_fd = pty.openpty()
    try:
        termios.tcflow(slave_fd, termios.TCOOFF)
        yield slave_fd
    finally:
        termios.tcflow(slave_fd, termios.TCOON)
        os.close(slave_fd)
        os.close(master_fd)


def in_mid_stream(process: subprocess.Popen[bytes], image: Path) -> None:
    """Wait until the payload has begun: from then on there are looks to be shown, ten a second."""
    until(
        lambda: unfinished_size(process.pid, image.parent) > 1 << 20,
        timeout_s=20,
        what="the payload",
    )


def interrupted(process: subprocess.Popen[bytes], demo: RunningQemu, image: Path) -> None:
    in_mid_stream(process, image)
    threading.Event().wait(0.3)  # for looks to get stuck
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert list(image.parent.iterdir()) == []
    demo.wait_for_ticks()


def test_ctrl_c_frees_the_guest_under_a_held_terminal(demo: RunningQemu, image: Path) -> None:
    with held_terminal() as terminal, saving(demo, image, *SLOW, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        interrupted(process, demo, image)


def test_ctrl_c_frees_the_guest_when_all_that_it_says_goes_to_a_held_terminal(demo: RunningQemu, image: Path) -> None:
    with held_terminal() as terminal, saving(demo, image, *SLOW, stdout=terminal, stderr=terminal) as process:
        interrupted(process, demo, image)


def test_ctrl_c_frees_the_guest_when_nobody_reads_the_events(demo: RunningQemu, image: Path) -> None:
    with full_pipe() as (_, writer), saving(demo, image, *SLOW, "--json", stdout=writer, stderr=subprocess.PIPE) as process:
        interrupted(process, demo, image)
        assert process.stderr is not None
        assert process.stderr.read() == b"streamsave: error: interrupted by SIGINT\n"


def test_a_save_is_done_before_anybody_reads_of_it(demo: RunningQemu, image: Path) -> None:
    with full_pipe() as (reader, writer), saving(demo, image, "--json", "--then", "resume", stdout=writer) as process:
        until(image.exists, timeout_s=20, what="the image")
        demo.wait_for_ticks()
        assert process.poll() is None, "it has yet to tell of it"
        fcntl.fcntl(reader, F_SETPIPE_SZ, 1 << 16)
        assert process.wait(10) == 0
        *_, last = os.read(reader, 1 << 16).splitlines()
        assert json.loads(last)["event"] == "saved"
