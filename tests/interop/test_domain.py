"""A domain through streamsave and back, with virsh on the other side, and every way in which it can go wrong."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

import streamsave
from streamsave.errors import GuestError, LibvirtError, UsageError

from ..kit.cli import Run
from ..kit.cli import streamsave as run
from ..kit.waiting import until
from .stack import LinuxDomain

GZIP = streamsave.SaveOptions(format="gzip")
SLOW = ("--format", "gzip", "--level", "9", "--threads", "1")
CANCELLED = "running (save canceled)"


def save(guest: LinuxDomain, image: Path, **options: object) -> streamsave.SaveReport:
    return streamsave.save_domain(guest.name, image, GZIP, connect=guest.stack.uri, **options)  # type: ignore[arg-type]


def restore(guest: LinuxDomain, image: Path, **options: object) -> streamsave.RestoreReport:
    return streamsave.restore_domain(image, connect=guest.stack.uri, **options)  # type: ignore[arg-type]


def slow_save(guest: LinuxDomain, image: Path, *, prefix: tuple[str, ...] = ()) -> Run:
    """A save of some seconds, of which some stream has flowed."""
    run = Run(["save", "--domain", guest.name, "--connect", guest.stack.uri, image, *SLOW, "--json"], prefix)
    first = json.loads(run.first_line())
    assert (first["event"], first["stage"]) == ("progress", "stream"), first
    return run


def test_there_and_back(guest: LinuxDomain, image: Path) -> None:
    """Both commands in both directions, and libvirt knows what happened."""
    saved = run("save", "--domain", guest.name, "--connect", guest.stack.uri, image, "--format", "gzip", "--json")
    assert saved.status == 0, saved.err
    assert saved.event["was_running"] is True
    assert 0 < saved.event["stopped_s"] < saved.event["total_s"]
    assert guest.state == "shut off (saved)"
    assert guest.files() == [image.name]
    restored = run("restore", image, "--connect", guest.stack.uri)
    assert restored.status == 0, restored.err
    assert restored.out.startswith(f"restored {image}: ")
    assert "the guest runs" in restored.out
    assert guest.state == "running (restored)"
    image.unlink()
    guest.assert_as_before()


def test_virsh_restores_what_was_saved(guest: LinuxDomain, image: Path) -> None:
    save(guest, image)
    guest.stack.virsh("restore", image)
    image.unlink()
    guest.assert_as_before()


def test_what_virsh_saved_is_restored(guest: LinuxDomain, image: Path) -> None:
    guest.stack.virsh("save", guest.name, image)
    report = restore(guest, image)
    assert (report.format, report.running) == ("raw", True)
    image.unlink()
    guest.assert_as_before()


def test_xml_and_cookie_are_libvirts_own(guest: LinuxDomain, image: Path) -> None:
    """Byte for byte what virsh's own image of the same domain has."""
    guest.stack.virsh("save", guest.name, image)
    theirs = streamsave.read_info(image).metadata
    dumped = guest.stack.virsh("save-image-dumpxml", image).stdout
    restore(guest, image)
    save(guest, image)
    ours = streamsave.read_info(image)
    assert ours.metadata == theirs
    assert ours.metadata.cookie
    assert not ours.needs_xml
    assert guest.stack.virsh("save-image-dumpxml", image).stdout == dumped
    assert "</domain>" in dumped
    guest.stack.virsh("restore", image)


@pytest.mark.full
def test_virsh_edits_our_header(guest: LinuxDomain, image: Path) -> None:
    save(guest, image)
    edited = guest.folder / "edited.xml"
    xml = streamsave.read_info(image).metadata.xml
    edited.write_text(xml.replace("</name>", "</name><title>edited</title>", 1))
    guest.stack.virsh("save-image-define", image, edited, "--paused")
    info = streamsave.read_info(image)
    assert "<title>edited</title>" in info.metadata.xml
    assert not info.header.was_running
    assert restore(guest, image).running is False
    assert guest.state.startswith("paused")
    assert guest.stack.virsh("desc", guest.name, "--title").stdout.strip() == "edited"
    guest.stack.virsh("resume", guest.name)
    guest.tidy()
    guest.assert_as_before()


@pytest.mark.full
@pytest.mark.parametrize("by", ["virsh", "streamsave"])
def test_we_edit_a_header_for_virsh(guest: LinuxDomain, image: Path, by: str) -> None:
    """An image of ours, or of virsh's own; the new XML is longer than its padding would take."""
    if by == "virsh":
        guest.stack.virsh("save", guest.name, image)
    else:
        save(guest, image)
    edited = guest.folder / "edited.xml"
    longer = f"</name><title>ours</title><description>{'x' * 100_000}</description>"
    edited.write_text(streamsave.read_info(image).metadata.xml.replace("</name>", longer, 1))
    done = run("edit", image, "--xml", edited, "--set-paused")
    assert done.status == 0, done.err
    guest.stack.virsh("restore", image)
    assert guest.state.startswith("paused")
    assert guest.stack.virsh("desc", guest.name, "--title").stdout.strip() == "ours"
    guest.stack.virsh("resume", guest.name)
    guest.tidy()
    guest.assert_as_before()


@pytest.mark.full
def test_a_paused_domain_stays_paused(guest: LinuxDomain, image: Path) -> None:
    guest.stack.virsh("suspend", guest.name)
    report = save(guest, image)
    assert (report.was_running, report.stopped_s) == (False, 0.0)
    assert restore(guest, image).running is False
    assert guest.state.startswith("paused")
    save(guest, image)
    assert restore(guest, image, options=streamsave.RestoreOptions(state="running")).running is True
    image.unlink()
    guest.assert_as_before()


@pytest.mark.full
def test_another_xml(guest: LinuxDomain, image: Path) -> None:
    save(guest, image)
    xml = guest.folder / "other.xml"
    xml.write_text(streamsave.read_info(image).metadata.xml.replace("</name>", "</name><title>other</title>", 1))
    done = run("restore", image, "--connect", guest.stack.uri, "--xml", xml, "--paused")
    assert done.status == 0, done.err
    assert "the guest is paused" in done.out
    assert guest.stack.virsh("desc", guest.name, "--title").stdout.strip() == "other"
    guest.stack.virsh("resume", guest.name)
    guest.tidy()
    guest.assert_as_before()


@pytest.mark.full
def test_progress_and_the_job(guest: LinuxDomain, image: Path) -> None:
    """Our own counters reach the end; meanwhile virsh sees a job with the same memory."""
    looks: list[streamsave.Progress] = []
    jobs: list[str] = []

    def look(progress: streamsave.Progress) -> None:
        looks.append(progress)
        if progress.fraction > 0.2 and not jobs:
            jobs.append(guest.stack.virsh("domjobinfo", guest.name).stdout)

    options = streamsave.SaveOptions(format="gzip", level=9, threads=1)
    streamsave.save_domain(guest.name, image, options, connect=guest.stack.uri, progress=look)
    assert looks[-1].fraction == 1.0
    assert [each.fraction for each in looks] == sorted(each.fraction for each in looks)
    told = [each.job["memory_remaining"] for each in looks if each.job]
    assert len(set(told)) > 1, "libvirt's own figures came along"
    assert told == sorted(told, reverse=True)
    assert "Operation:        Save" in jobs[0]
    assert "Unbounded" in jobs[0]
    restore(guest, image)


def test_virsh_aborts_the_job(guest: LinuxDomain, image: Path) -> None:
    saving = slow_save(guest, image)
    guest.stack.virsh("domjobabort", guest.name)
    result = saving.finish()
    assert result.status == LibvirtError.exit_status
    assert "libvirt did not save" in result.error
    assert "cancel" in result.error
    assert guest.state == CANCELLED
    guest.assert_as_before()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_domain_run_on(guest: LinuxDomain, image: Path, signum: signal.Signals) -> None:
    saving = slow_save(guest, image)
    saving.process.send_signal(signum)
    result = saving.finish()
    assert (result.status, result.err) == (128 + signum, f"streamsave: error: interrupted by {signum.name}\n")
    assert guest.state == CANCELLED
    guest.assert_as_before()


def test_kill_9_lets_the_domain_run_on(guest: LinuxDomain, image: Path) -> None:
    saving = slow_save(guest, image)
    saving.kill()
    until(lambda: guest.state == CANCELLED, timeout_s=2, what="the domain's return")
    until(lambda: not saving.family(), what="the guardian's end")
    guest.assert_as_before()


@pytest.mark.full
def test_a_stalled_consumer_can_be_aborted_and_can_go_on(guest: LinuxDomain, image: Path) -> None:
    """Our process is stopped: libvirt waits. It goes on with us, and the save is as good as any."""
    saving = slow_save(guest, image)
    saving.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    assert guest.state.startswith("paused")
    before = guest.stack.virsh("domjobinfo", guest.name).stdout
    assert "Save" in before
    saving.process.send_signal(signal.SIGCONT)
    assert saving.finish().status == 0
    restore(guest, image)
    image.unlink()
    guest.assert_as_before()


@pytest.mark.full
def test_a_callback_that_raises(guest: LinuxDomain, image: Path) -> None:
    def callback(progress: streamsave.Progress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        save(guest, image, progress=callback)
    assert guest.state == CANCELLED
    guest.assert_as_before()


@pytest.mark.full
def test_cancelled_before_and_during_a_restore(guest: LinuxDomain, image: Path) -> None:
    save(guest, image)
    cancel = streamsave.Cancellation()
    cancel.cancel()
    with pytest.raises(streamsave.Aborted):
        restore(guest, image, cancel=cancel)
    cancel = streamsave.Cancellation()
    with pytest.raises(streamsave.Aborted):
        restore(guest, image, cancel=cancel, progress=lambda _look: cancel.cancel())
    assert guest.state.startswith("shut off")
    restore(guest, image)
    image.unlink()
    guest.assert_as_before()


@pytest.mark.full
def test_kill_9_in_mid_restore_leaves_the_image_and_no_domain(guest: LinuxDomain, image: Path) -> None:
    saved = run("save", "--domain", guest.name, "--connect", guest.stack.uri, image, "--format", "bzip2")
    assert saved.status == 0, saved.err
    restoring = Run(["restore", image, "--connect", guest.stack.uri, "--threads", "1", "--json"])
    restoring.first_line()
    restoring.kill()
    until(lambda: guest.state.startswith("shut off"), timeout_s=10, what="the domain's end")
    restore(guest, image)
    image.unlink()
    guest.assert_as_before()


@pytest.mark.parametrize("cut", [0.5, 0.999])
def test_a_cut_image_leaves_no_domain(guest: LinuxDomain, image: Path, cut: float) -> None:
    save(guest, image)
    whole = image.read_bytes()
    image.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(streamsave.StreamsaveError, match="the file ends inside"):
        restore(guest, image)
    assert guest.state.startswith("shut off")
    image.write_bytes(whole)
    restore(guest, image)


def test_libvirt_refuses_a_restore(guest: LinuxDomain, image: Path) -> None:
    """The domain runs already: libvirt looks at the metadata, and never at the stream."""
    save(guest, image)
    restore(guest, image)
    with pytest.raises(LibvirtError, match=r"already active|already exists"):
        restore(guest, image)
    image.unlink()
    guest.assert_as_before()


def test_what_cannot_be_saved(guest: LinuxDomain, image: Path) -> None:
    with pytest.raises(LibvirtError, match="does not know the domain 'nobody'"):
        streamsave.save_domain("nobody", image, connect=guest.stack.uri)
    with pytest.raises(UsageError, match="another host"):
        streamsave.save_domain(guest.name, image, connect="qemu+ssh://localhost/system")
    with pytest.raises(UsageError, match="libvirt's driver for TEST"):
        streamsave.save_domain("test", image, connect="test:///default")
    with pytest.raises(LibvirtError, match="cannot connect to libvirt at qemu\\+unix:///system\\?socket=/nowhere"):
        streamsave.save_domain(guest.name, image, connect="qemu+unix:///system?socket=/nowhere")
    with pytest.raises(streamsave.StreamsaveError, match="the folder /nowhere does not exist"):
        streamsave.save_domain(guest.name, "/nowhere/guest.save", connect=guest.stack.uri)
    guest.assert_as_before()
    save(guest, image)
    with pytest.raises(GuestError, match="is shut off"):
        save(guest, image)
    restore(guest, image)


@pytest.mark.full
def test_two_saves_at_once(guest: LinuxDomain, image: Path) -> None:
    """libvirt lets one of them do it; the other's file is not there."""
    first = slow_save(guest, image)
    with pytest.raises(LibvirtError, match="libvirt did not save"):
        save(guest, image.with_name("second.save"))
    assert first.finish().status == 0
    assert guest.files() == [image.name]
    restore(guest, image)
    image.unlink()
    guest.assert_as_before()


@pytest.mark.full
def test_libvirtd_dies_in_mid_save(guest: LinuxDomain, image: Path) -> None:
    """Its successor finds the domain paused by the save, and lets it run on."""
    saving = slow_save(guest, image)
    os.kill(guest.stack.daemon_pid(), signal.SIGKILL)
    result = saving.finish()
    assert result.status == LibvirtError.exit_status, result.err
    assert guest.files() == []
    guest.stack.up()
    until(lambda: guest.state.startswith("running"), timeout_s=20, what="the domain's return")
    guest.assert_as_before()
