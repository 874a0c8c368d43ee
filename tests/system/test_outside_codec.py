"""A format from another package saves and restores a guest, in an image that does not pass itself off as libvirt's."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsave.errors import FormatError, UnsupportedImageError
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.cli import streamsave
from ..kit.qemu import demo_guest

pytestmark = pytest.mark.qemu

OUTSIDE = Path(__file__).parent / "outside"
WITH_IT = {"PYTHONPATH": str(OUTSIDE)}
GUEST = demo_guest(16 * MiB)


def test_guest_goes_through_a_format_of_another_package(launch: Launch, image: Path) -> None:
    guest = launch(GUEST).boot().wait_for_ticks()
    refused = streamsave("save", "--qmp", guest.monitor, image, "--format", "deflated")
    assert refused.status == FormatError.exit_status, "the format is there without its package"
    assert not image.exists()

    saved = streamsave("save", "--qmp", guest.monitor, image, "--format", "deflated", "--level", "9", env=WITH_IT)
    assert (saved.status, saved.err) == (0, "")
    assert "(deflated level 9, ratio " in saved.out
    assert "only streamsave restores it" in saved.out
    assert "virsh" not in saved.out
    assert guest.wait() == 0
    assert image.read_bytes()[:16] == b"StreamsaveImage1"

    shown = streamsave("info", image, env=WITH_IT)
    assert shown.status == 0
    assert "deflated (a format of streamsave's own, header version 2" in shown.out
    assert "\nrestored by   streamsave, no libvirt\n" in shown.out
    fields = streamsave("info", image, "--json", env=WITH_IT).event
    assert (fields["format"], fields["format_number"], fields["readable"]) == ("deflated", None, True)
    assert fields["oldest_libvirt"] == ""

    counter = guest.counter()
    waiting = launch(GUEST, incoming=True, after=guest)
    waiting.qmp().close()
    restored = streamsave("restore", image, "--qmp", waiting.monitor, "--json", env=WITH_IT)
    assert (restored.status, restored.err) == (0, "")
    assert restored.event["format"] == "deflated"
    assert restored.event["parallel"]
    waiting.wait_for_counter(counter + 2)
    assert waiting.console.seamless()

    without_it = streamsave("restore", image, "--qmp", waiting.monitor)
    assert without_it.status == UnsupportedImageError.exit_status
    assert "format 'deflated', which a package added" in without_it.err
    fields = streamsave("info", image, "--json").event
    assert (fields["format"], fields["readable"]) == ("deflated", False)


def test_format_of_another_package_is_listed() -> None:
    assert "deflated" in streamsave("formats", env=WITH_IT).out
    assert "deflated" not in streamsave("formats").out
