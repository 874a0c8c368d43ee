import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamsave.cli.domain import DomainSummary, summarise_domain
from streamsave.cli.main import main
from streamsave.operations.contents import Contents
from streamsave.units import GiB, KiB, MiB

XML = """<domain type='kvm' id='3'>
  <name>tiny</name>
  <uuid>11111111-2222-3333-4444-555555555555</uuid>
  <metadata><x:memory xmlns:x='u'>5</x:memory><name>not this one</name></metadata>
  <memory unit='MiB'>512</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>
  <name>nor this</name>
</domain>
"""


def test_a_domain_in_a_few_words() -> None:
    assert summarise_domain(XML) == DomainSummary(
        name="tiny", uuid="11111111-2222-3333-4444-555555555555", memory_size=512 * MiB, vcpu_count=2,
        machine="pc-q35-7.2", arch="x86_64", hypervisor="kvm",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        ("<memory>2048</memory>", 2048 * KiB),
        ("<memory unit='KiB'>2048</memory>", 2048 * KiB),
        ("<memory unit='b'>2048</memory>", 2048),
        ("<memory unit='G'> 2\n</memory>", 2 * GiB),
        ("<memory unit='MB'>2</memory>", 2_000_000),
        ("<memory unit='parsecs'>2</memory>", 0),
        ("<memory>-5</memory>", 0),
        ("<memory>\u0665</memory>", 0),
        (f"<memory>{'9' * 5000}</memory>", 0),
        ("<memory unit='b'>9223372036854775807</memory>", (1 << 63) - 1),
        ("<memory unit='b'>9223372036854775808</memory>", 0),
        (f"<memory unit='TiB'>{'9' * 19}</memory>", 0),
        ("<memory/>", 0),
        ("<memory><unit>5</unit></memory>", 0),
    ],
)
def test_memory_has_units(memory: str, size: int) -> None:
    assert summarise_domain(f"<domain>{memory}</domain>").memory_size == size


BOMB = """<!DOCTYPE domain [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]><domain><name>&b;</name></domain>"""


@pytest.mark.parametrize(
    ("xml", "summary"),
    [
        ("", DomainSummary()),
        ("no XML", DomainSummary()),
        (BOMB, DomainSummary()),
        ("<network><name>x</name></network>", DomainSummary()),
        ("<domain type='qemu'><name>cut</name><uuid>12", DomainSummary(name="cut", uuid="12", hypervisor="qemu")),
        ("<domain><name>\udcff</name></domain>", DomainSummary()),
        ("<domain>" * 100_000, DomainSummary()),
    ],
)
def test_a_summary_of_anything(xml: str, summary: DomainSummary) -> None:
    assert summarise_domain(xml) == summary


def image_info(**changes: Any) -> SimpleNamespace:
    header: dict[str, Any] = {
        "complete": True, "version": 2, "byte_order": "little", "format": 5, "was_running": True, "data_size": 69540,
        "own": False,
    }  # fmt: skip
    values: dict[str, Any] = {
        "path": Path("guest.save"), "file_size": 131 * MiB, "metadata": SimpleNamespace(xml=XML, cookie="<cookie/>"),
        "format": "zstd", "payload_offset": 69632, "payload_size": 130 * MiB, "description": None, "oldest_libvirt": "10.4",
        "needs_xml": False, "index": None, "index_problem": "", "metadata_as_saved": None,
    }  # fmt: skip
    for name in header.keys() & changes.keys() - {"format"}:
        header[name] = changes.pop(name)
    header["format"] = header["payload_format"] = changes.pop("number", 5)
    return SimpleNamespace(header=SimpleNamespace(**header), **(values | changes))


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``image.info`` is what ``read_info`` returns; what is in the payload nobody knows."""
    image = SimpleNamespace(info=image_info())
    monkeypatch.setattr("streamsave.operations.image.read_info", lambda _path: image.info)
    unknown = Contents(None, False, -1, -1, -1, "checksums")
    monkeypatch.setattr("streamsave.operations.contents.look_into", lambda _info: unknown)
    return image


def test_for_people(image: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "guest.save"]) == 0
    assert capsys.readouterr() == (
        """\
image         guest.save, 131 MiB
complete      yes
format        zstd (number 5, header version 2, little-endian)
payload       130 MiB from offset 69632
saved while   running
guest         tiny  11111111-2222-3333-4444-555555555555
memory        512 MiB, 2 vCPU
machine       pc-q35-7.2 x86_64 kvm
cookie        yes: --cookie prints it
QEMU command  no
restored by   libvirt 10.4 or later, streamsave
index         no
verify        has the codec's checksums only: there is no index
""",
        "",
    )


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["info", "guest.save"]) == 0
    return {line[:14].strip(): line[14:] for line in capsys.readouterr().out.splitlines()}


def test_a_guest_that_libvirt_does_not_know(image: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    image.info = image_info(
        complete=False, was_running=False, byte_order="big", needs_xml=True,
        metadata=SimpleNamespace(xml="<domain/>", cookie=None), description=SimpleNamespace(command=("qemu",)),
    )  # fmt: skip
    found = lines(capsys)
    assert found["complete"] == "no: the save that wrote it never finished; it cannot be restored"
    assert found["format"] == "zstd (number 5, header version 2, big-endian)"
    assert found["saved while"] == "paused"
    assert found["guest"] == "(no name)"
    assert found["memory"] == found["machine"] == "unknown"
    assert found["cookie"] == "no"
    assert found["QEMU command"] == "yes: restore --use-saved-command shows it"
    assert found["restored by"] == (
        "libvirt 10.4 or later (by restore --connect with --xml only: libvirt does not know this guest), streamsave"
    )
    image.info.description.command = None
    assert lines(capsys)["QEMU command"] == "no"


@pytest.mark.parametrize(("number", "word"), [(6, "sparse"), (77, "unknown (77)")])
def test_a_format_that_we_do_not_read(
    number: int, word: str, image: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    image.info = image_info(number=number, format=word, oldest_libvirt="11.2" if number == 6 else "")
    found = lines(capsys)
    assert found["format"].startswith(f"{word} (number {number}, ")
    assert "not streamsave (" in found["restored by"]
    assert found["restored by"].startswith("libvirt 11.2 or later, ") == (number == 6)
    assert main(["info", "guest.save", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["readable"] is False


def test_names_cannot_reach_the_terminal(image: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    image.info = image_info(
        path=Path("a\x1b[2J"),
        metadata=SimpleNamespace(xml="<domain><name>x\u202ey\nrestored by   evil &#155;</name></domain>", cookie=None),
    )
    assert main(["info", "x"]) == 0
    out = capsys.readouterr().out
    assert "image         a\\x1b[2J, " in out
    assert "guest         x\\u202ey\\x0arestored by   evil \\x9b\n" in out
    assert out.count("\n") == 13


def test_for_programs(image: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "guest.save", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "event": "info", "path": "guest.save", "file_size": 131 * MiB, "complete": True, "version": 2,
        "byte_order": "little", "format": "zstd", "format_number": 5, "was_running": True, "data_size": 69540,
        "payload_offset": 69632, "payload_size": 130 * MiB, "xml": XML, "cookie": "<cookie/>", "saved_command": False,
        "oldest_libvirt": "10.4", "needs_xml": False, "readable": True, "name": "tiny",
        "uuid": "11111111-2222-3333-4444-555555555555", "memory_size": 512 * MiB, "vcpu_count": 2,
        "machine": "pc-q35-7.2", "arch": "x86_64", "hypervisor": "kvm",
        "index": False, "index_problem": "", "image_id": None, "root": None, "metadata_as_saved": None,
        "proof": "checksums", "frame_count": None, "chunk_size": None, "stream_size": None, "ratio": None,
            "levels": None,
        "stream_machine": None, "ram_blocks": None, "page_size": None, "page_count": None, "zero_page_count": None,
    }  # fmt: skip


RAW_XML = "<domain>\r\n\x1b[2J\t\u202e\udcff\x85</domain>\n\n"


@pytest.mark.parametrize(("option", "metadata"), [("--xml", {"xml": RAW_XML}), ("--cookie", {"cookie": RAW_XML})])
def test_a_text_byte_for_byte_into_a_file(
    option: str, metadata: dict[str, str], image: SimpleNamespace, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    image.info = image_info(metadata=SimpleNamespace(**({"xml": "x", "cookie": None} | metadata)))
    assert main(["info", "x", option]) == 0
    assert capfdbinary.readouterr().out == RAW_XML.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("option", ["--xml", "--cookie"])
def test_json_has_the_texts_and_wins(option: str, image: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    image.info = image_info(metadata=SimpleNamespace(xml=RAW_XML, cookie=RAW_XML))
    assert main(["info", "x", "--json", option]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["xml"], told["cookie"]) == (RAW_XML, RAW_XML)


def test_a_cookie_that_is_not_there(image: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    image.info = image_info(metadata=SimpleNamespace(xml=XML, cookie=None))
    assert main(["info", "x", "--cookie"]) == 2
    assert "guest.save carries no cookie: only libvirt writes one" in capsys.readouterr().err
    assert main(["info", "x", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cookie"] is None


def test_the_xml_escaped_on_a_terminal(image: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    image.info = image_info(metadata=SimpleNamespace(xml=RAW_XML, cookie=None))
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        assert main(["info", "x", "--xml"]) == 0
    assert terminal.getvalue() == "<domain>\\x0d\n\\x1b[2J\t\\u202e\\udcff\\x85</domain>\n"
