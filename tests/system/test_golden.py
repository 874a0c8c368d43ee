"""Images that stock ``virsh save`` wrote: every word of them is read as libvirt meant it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from streamsave.errors import UnsupportedImageError
from streamsave.format.save_format import SaveFormat
from streamsave.operations.image import read_info
from streamsave.operations.outflow import restore_stream
from streamsave.operations.restore import restore
from streamsave.units import MiB

from ..conftest import Launch
from ..kit.cli import streamsave
from ..kit.qemu import Guest

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd")
ROW = re.compile(r"^\| tiny\.(\w+)\.save \| \w+ \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| `(\w{64})` \|$", re.MULTILINE)
ROWS = {row[1]: row for row in ROW.finditer((GOLDEN / "README.md").read_text())}
XML, COOKIE = (GOLDEN / "tiny.xml").read_text(), (GOLDEN / "tiny.cookie.xml").read_text()


def golden(name: str) -> Path:
    return GOLDEN / f"tiny.{name}.save"


@pytest.mark.parametrize("name", FORMATS)
def test_header_and_metadata(name: str) -> None:
    info = read_info(golden(name))
    data_size, cookie_offset, payload_offset = (int(ROWS[name][column]) for column in (2, 3, 4))
    header = info.header
    assert (header.complete, header.version, header.was_running, header.byte_order) == (True, 2, True, "little")
    assert (header.data_size, header.cookie_offset, info.payload_offset) == (data_size, cookie_offset, payload_offset)
    assert (info.format, header.format) == (name, SaveFormat[name.upper()])
    assert info.payload_size == golden(name).stat().st_size - payload_offset
    assert info.metadata.xml == XML
    assert info.metadata.cookie == COOKIE
    assert not info.needs_xml
    assert info.description is None


@pytest.mark.parametrize("name", FORMATS)
def test_stream(name: str, tmp_path: Path) -> None:
    path = tmp_path / "stream"
    with path.open("wb") as file:
        report = restore_stream(golden(name), file.fileno())
    stream = path.read_bytes()
    assert hashlib.sha256(stream).hexdigest() == ROWS[name][6]
    assert report.stream_size == len(stream) == int(ROWS[name][5])
    assert report.stream.machine == "pc-q35-7.2"
    assert {block.name: block.size for block in report.stream.ram_blocks}["pc.ram"] == 16 * MiB


@pytest.mark.parametrize("name", FORMATS)
def test_info_shows_it(name: str) -> None:
    shown = streamsave("info", golden(name))
    assert (shown.status, shown.err) == (0, "")
    text = re.sub(r" +", " ", shown.out)
    assert f"format {name} (number {int(SaveFormat[name.upper()])}, header version 2, little-endian)" in text
    assert "complete yes" in text
    assert "saved while running" in text
    assert "from offset 67148" in text
    assert "guest tiny 11111111-2222-3333-4444-666666666666" in text
    assert "machine pc-q35-7.2 x86_64 qemu" in text
    assert "memory 16.0 MiB, 1 vCPU" in text
    assert streamsave("info", golden(name), "--xml").out == XML
    assert streamsave("info", golden(name), "--cookie").out == COOKIE
    event = streamsave("info", golden(name), "--json", "--xml").event
    assert (event["xml"], event["cookie"]) == (XML, COOKIE)


def test_a_format_that_is_not_there_is_named(tmp_path: Path) -> None:
    """libvirt's sparse: an image with its number in the header, for the payload does not even get read."""
    image = tmp_path / "image"
    data = bytearray(golden("gzip").read_bytes())
    data[28:32] = int(SaveFormat.SPARSE).to_bytes(4, "little")
    image.write_bytes(data)
    assert read_info(image).format == "sparse"
    with (
        open(os.devnull, "wb") as nowhere,
        pytest.raises(UnsupportedImageError, match=r"format sparse .*which is no stream.*streamsave convert"),
    ):
        restore_stream(image, nowhere.fileno())
    refused = streamsave("restore", image, "--qmp", tmp_path / "nothing")
    assert refused.status == UnsupportedImageError.exit_status
    assert f"{image}: " in refused.err
    assert "format sparse (number 6), which is no stream: restore it with virsh, or convert" in refused.err
    assert streamsave("info", image).status == 0


@pytest.mark.qemu
@pytest.mark.parametrize("name", FORMATS)
def test_qemu_takes_libvirts_guest_in(name: str, launch: Launch) -> None:
    """The devices of tiny.xml, as libvirt starts them, in whatever QEMU is installed: it has pc-q35-7.2."""
    tiny = Guest(("-cpu", "qemu64"), 16 * MiB, boot_s=0)
    waiting = launch(tiny, incoming=True, machine="pc-q35-7.2,acpi=off")
    waiting.qmp().close()
    report = restore(golden(name), monitor=waiting.monitor)
    assert report.running
    assert waiting.status() == "running"
