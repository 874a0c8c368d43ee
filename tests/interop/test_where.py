"""Where streamsave and the daemon meet: by a descriptor, by a FIFO, or not at all; and as which user QEMU runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import streamsave
from streamsave.errors import LibvirtError

from ..kit.cli import Result
from ..kit.cli import streamsave as run
from ..kit.waiting import until
from .conftest import HERE
from .stack import LinuxDomain, Stack
from .test_domain import CANCELLED, GZIP, save, slow_save

FIFOS = Path("/run/streamsave")
APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A PID namespace of its own: the daemon does not find our descriptors."""
ALONE = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh", *APART)
"""Nor our FIFOs."""


def test_a_fifo_where_the_daemon_cannot_see_our_descriptors(guest: LinuxDomain, image: Path) -> None:
    saved = run("save", "--domain", guest.name, "--connect", guest.stack.uri, image, "--format", "gzip", prefix=APART)
    assert saved.status == 0, saved.err
    assert guest.state == "shut off (saved)"
    assert list(FIFOS.iterdir()) == []
    restored = run("restore", image, "--connect", guest.stack.uri, prefix=APART)
    assert restored.status == 0, restored.err
    assert list(FIFOS.iterdir()) == []
    image.unlink()
    guest.assert_as_before()


@pytest.mark.full
def test_a_fifo_that_is_left_of_a_kill_goes_with_the_next_run(guest: LinuxDomain, image: Path) -> None:
    saving = slow_save(guest, image, prefix=APART)
    for pid in saving.family():
        if pid != saving.process.pid and b"--domain" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, 9)
    saving.finish()
    until(lambda: guest.state == CANCELLED, timeout_s=10, what="the domain's return")
    assert [path.name[:5] for path in FIFOS.iterdir()] == ["pipe-"]
    cancelled = run("save", "--domain", guest.name, "--connect", guest.stack.uri, "/nowhere/x", prefix=APART)
    assert cancelled.status == 42
    saved = run("save", "--domain", guest.name, "--connect", guest.stack.uri, image, "--format", "gzip", prefix=APART)
    assert saved.status == 0, saved.err
    assert list(FIFOS.iterdir()) == []
    streamsave.restore_domain(image, connect=guest.stack.uri)


def test_a_daemon_that_reaches_neither_is_refused(guest: LinuxDomain, image: Path) -> None:
    _assert_refused(run("save", "--domain", guest.name, "--connect", guest.stack.uri, image, prefix=ALONE))
    assert guest.state != CANCELLED, "a refusal does not even stop the domain"
    guest.stack.virsh("save", guest.name, image)
    _assert_refused(run("restore", image, "--connect", guest.stack.uri, prefix=ALONE))
    streamsave.restore_domain(image, connect=guest.stack.uri)
    image.unlink()
    guest.assert_as_before()


def _assert_refused(result: Result) -> None:
    assert result.status == LibvirtError.exit_status, result.err
    assert "cannot open a pipe of ours (/proc/" in result.error
    assert "/run/streamsave/pipe-" in result.error
    assert "Run streamsave where the daemon runs, in its PID namespace" in result.error


@pytest.mark.full
def test_a_daemon_that_compresses_itself(guest: LinuxDomain, image: Path) -> None:
    """11.2 and later are asked for raw; before, we can only say no."""
    conf = guest.folder / "gzip.conf"
    conf.write_text((HERE / "root.conf").read_text() + 'save_image_format = "gzip"\n')
    guest.stack.up(conf)
    conf.unlink()
    if guest.stack.suite == "bookworm":
        with pytest.raises(LibvirtError, match=r'compresses with gzip itself.*set save_image_format = "raw"'):
            save(guest, image)
        assert guest.state == CANCELLED
    else:
        save(guest, image)
        streamsave.restore_domain(image, connect=guest.stack.uri)
        image.unlink()
    guest.assert_as_before()


def test_the_distributions_own_configuration(stack: Stack) -> None:
    """QEMU as libvirt-qemu, files chowned to it, in a mount namespace of its own."""
    stack.up(Path(os.devnull))
    with stack.guest("distribution") as guest:
        process = Path(f"/proc/{guest.qemu_pid()}")
        assert process.stat().st_uid != 0
        assert (process / "ns" / "mnt").readlink() != Path(f"/proc/{stack.daemon_pid()}/ns/mnt").readlink()
        image = guest.folder / "guest.save"
        streamsave.save_domain(guest.name, image, GZIP, connect=stack.uri)
        assert (image.stat().st_uid, image.stat().st_mode & 0o777) == (0, 0o600)
        streamsave.restore_domain(image, connect=stack.uri)
        image.unlink()
        guest.assert_as_before()
        streamsave.save_domain(guest.name, image, GZIP, connect=stack.uri)
        stack.virsh("restore", image)
        image.unlink()
        guest.assert_as_before()
