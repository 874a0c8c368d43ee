from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from streamsave.errors import CorruptImageError
from streamsave.format.description import (
    GuestDescription,
    SavedCommand,
    encode_description,
    parse_description,
    parse_saved_command,
)
from streamsave.format.domain_xml import MAX_XML
from streamsave.units import MiB

from . import golden

COMMAND = SavedCommand(("/usr/bin/qemu-system-x86_64", "-m", "512", "-name", "a <b> & 'c' \"d\""), "/srv/guests")
GUEST = GuestDescription(
    name="web",
    uuid="5b8dd2a7-8c1b-4f0e-9e0a-3a3c9d8b7f61",
    memory_size=512 * MiB,
    vcpu_count=4,
    machine="pc-q35-7.2",
    arch="x86_64",
    accelerator="kvm",
    command=COMMAND,
)
ENTITIES = [f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
BOMB = f'<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">{"".join(ENTITIES)}]><domain>&i;</domain>'


def test_what_libvirt_and_people_read() -> None:
    domain = ET.fromstring(encode_description(GUEST))
    assert (domain.tag, domain.get("type")) == ("domain", "kvm")
    assert [child.tag for child in domain] == ["name", "uuid", "metadata", "memory", "vcpu", "os"]
    memory = domain.find("memory")
    assert memory is not None
    assert (memory.text, memory.get("unit")) == ("524288", "KiB")
    assert domain.findtext("vcpu") == "4"
    os_type = domain.find("os/type")
    assert os_type is not None
    assert (os_type.text, os_type.attrib) == ("hvm", {"arch": "x86_64", "machine": "pc-q35-7.2"})
    arguments = [element.text for element in domain.iter("{urn:streamsave:guest:1}argument")]
    assert arguments == list(COMMAND.arguments)


def test_it_is_read_again() -> None:
    assert parse_description(encode_description(GUEST)) == GUEST
    without = replace(GUEST, command=None)
    assert parse_description(encode_description(without)) == without
    assert parse_saved_command(encode_description(without)) is None


@pytest.mark.parametrize(
    "argument", ["", " ", "\t", "a\nb", "a\r\nb", "\x01", "\udcff\udc80", "\udcc3", "]]>", "\ufffe", "\U0001f600", "&#0;"]
)
def test_every_argument_survives(argument: str) -> None:
    command = SavedCommand((argument, "x", argument), f"/tmp/{argument}")
    assert parse_saved_command(encode_description(replace(GUEST, command=command))) == command


def test_other_strings_stay_well_formed() -> None:
    found = parse_description(encode_description(replace(GUEST, name="a\0b\x1b\udcffc", machine="m\x02", uuid="\n")))
    assert found is not None
    assert (found.name, found.machine, found.uuid) == ("a?b??c", "m?", "?")


def test_the_xml_of_a_libvirt_domain_is_not_ours() -> None:
    xml = (golden.GOLDEN / "tiny.xml").read_text()
    assert parse_description(xml) is None
    assert parse_saved_command(xml) is None


@pytest.mark.parametrize("xml", [BOMB, '<!DOCTYPE d SYSTEM "file:///etc/passwd"><domain/>', "<!DOCTYPE d><domain/>"])
def test_document_types_are_refused_at_once(xml: str) -> None:
    began = time.monotonic()
    with pytest.raises(CorruptImageError, match="document type"):
        parse_saved_command(xml)
    assert parse_description(xml) is None
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "xml",
    ["", "<domain>", "<domain/><domain/>", "no xml", "\ud800", "<a>\x01</a>", f"<a>{'x' * MAX_XML}</a>", "<a>" * 200_000],
)
def test_what_is_not_well_formed(xml: str) -> None:
    with pytest.raises(CorruptImageError, match=r"not well-formed|characters"):
        parse_saved_command(xml)
    assert parse_description(xml) is None


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "nonsense"])
def test_a_declared_encoding_changes_nothing(encoding: str) -> None:
    xml = f'<?xml version="1.0" encoding="{encoding}"?>' + encode_description(replace(GUEST, name="gäst"))
    assert parse_description(xml) == replace(GUEST, name="gäst")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(('unit="KiB">524288', f'unit="KiB">{number}') for number in ("-4", str(1 << 53), "9" * 4000)),
        ("<vcpu>4", "<vcpu>four"),
        ('unit="KiB">524288', 'unit="KiB">' + "9" * 5000),
        ("<domain", "<domain><"),
    ],
)
def test_numbers_that_are_none(old: str, new: str) -> None:
    xml = encode_description(GUEST)
    assert old in xml
    assert parse_description(xml.replace(old, new)) is None


def test_broken_base64_in_the_command() -> None:
    xml = encode_description(replace(GUEST, command=SavedCommand(("\n",), "/")))
    assert ">Cg==<" in xml
    for broken in ("Cg=", "C?g=="):
        with pytest.raises(CorruptImageError, match="base64"):
            parse_saved_command(xml.replace("Cg==", broken))
