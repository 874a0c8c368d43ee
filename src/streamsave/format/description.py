"""The descriptive XML: what an image says of a guest that libvirt does not manage.

It is a domain XML with what every domain has and no devices: libvirt can show it (``virsh save-image-dumpxml``) but needs
``--xml`` to restore. The QEMU command line that ran stands under ``<metadata>``, where libvirt keeps what it does not know,
in a namespace of ours. It is data from outside when it is read again, shown and used only when asked for.
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Final, NoReturn

from ..errors import CorruptImageError
from ..units import KiB

NAMESPACE: Final = "urn:streamsave:guest:1"
_GUEST: Final = f"{{{NAMESPACE}}}guest"
_ARGUMENT: Final = f"{{{NAMESPACE}}}argument"
_FOLDER: Final = f"{{{NAMESPACE}}}working-directory"
_NOT_XML: Final = re.compile("[^\t -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot carry, and the line ends, which a parser would change."""


@dataclass(frozen=True, slots=True)
class SavedCommand:
    """The command line of a QEMU, and where it ran. Bytes that are no UTF-8 are surrogates, as in ``sys.argv``."""

    arguments: tuple[str, ...]
    working_directory: str


@dataclass(frozen=True, slots=True)
class GuestDescription:
    """A guest as QMP describes it."""

    name: str
    uuid: str
    memory_size: int
    """Bytes."""
    vcpu_count: int
    machine: str
    """The versioned machine type, such as ``pc-q35-7.2``."""
    arch: str
    accelerator: str
    """libvirt's domain type: ``kvm`` or ``qemu``."""
    command: SavedCommand | None = None


def encode_description(guest: GuestDescription) -> str:
    """The XML of ``guest``, well-formed whatever its strings hold."""
    ET.register_namespace("streamsave", NAMESPACE)
    domain = ET.Element("domain", type=guest.accelerator)
    _add(domain, "name", _NOT_XML.sub("?", guest.name))
    _add(domain, "uuid", guest.uuid)
    ours = ET.SubElement(ET.SubElement(domain, "metadata"), _GUEST)
    if guest.command is not None:
        for argument in guest.command.arguments:
            _add_bytes(ours, _ARGUMENT, argument)
        _add_bytes(ours, _FOLDER, guest.command.working_directory)
    _add(domain, "memory", str(guest.memory_size // KiB), unit="KiB")
    _add(domain, "vcpu", str(guest.vcpu_count))
    _add(ET.SubElement(domain, "os"), "type", "hvm", arch=guest.arch, machine=guest.machine)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def parse_description(xml: str) -> GuestDescription | None:
    """The guest that ``xml`` describes; None if it is not ours, or says nothing that we understand."""
    try:
        domain = _parse(xml)
        ours = domain.find(f"metadata/{_GUEST}")
        if ours is None:
            return None
        os_type = domain.find("os/type")
        return GuestDescription(
            name=domain.findtext("name", ""),
            uuid=domain.findtext("uuid", ""),
            memory_size=int(domain.findtext("memory", "0")) * KiB,
            vcpu_count=int(domain.findtext("vcpu", "0")),
            machine=os_type.get("machine", "") if os_type is not None else "",
            arch=os_type.get("arch", "") if os_type is not None else "",
            accelerator=domain.get("type", ""),
            command=_command(ours),
        )
    except (ValueError, CorruptImageError):
        return None


def parse_saved_command(xml: str) -> SavedCommand | None:
    """The command line in ``xml``; None: there is none.

    Raises:
        CorruptImageError: not well-formed, or with a document type, which no domain XML has.
    """
    ours = _parse(xml).find(f"metadata/{_GUEST}")
    return None if ours is None else _command(ours)


class _NoDoctype(ET.TreeBuilder):
    """A document type can define entities, which grow without bound."""

    def doctype(self, *_declaration: object) -> NoReturn:
        """Refuse it."""
        raise CorruptImageError("the domain XML has a document type; no libvirt writes that, so it is not read")


def _parse(xml: str) -> ET.Element:
    try:
        return ET.fromstring(xml.encode("utf-8", "surrogateescape"), ET.XMLParser(target=_NoDoctype()))
    except ET.ParseError as error:
        raise CorruptImageError(f"the domain XML is not well-formed: {error}") from error


def _command(ours: ET.Element) -> SavedCommand | None:
    arguments = tuple(_text(element) for element in ours.findall(_ARGUMENT))
    folder = ours.find(_FOLDER)
    return SavedCommand(arguments, _text(folder)) if arguments and folder is not None else None


def _add(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _add_bytes(parent: ET.Element, tag: str, text: str) -> None:
    """``text``, or its bytes in base64 where XML cannot carry it."""
    element = ET.SubElement(parent, tag)
    if _NOT_XML.search(text):
        element.set("encoding", "base64")
        element.text = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")
    else:
        element.text = text


def _text(element: ET.Element) -> str:
    text = element.text or ""
    if element.get("encoding") != "base64":
        return text
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
    except binascii.Error as error:
        raise CorruptImageError(f"the saved command line in the domain XML is not valid base64: {error}") from error
