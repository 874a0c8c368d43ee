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
from typing import Final

from ..errors import CorruptImageError
from ..units import KiB
from .domain_xml import parse_domain

NAMESPACE: Final = "urn:streamsave:guest:1"
_PREFIX: Final = "streamsave"
_GUEST, _ARGUMENT, _FOLDER = "guest", "argument", "working-directory"
_NAMESPACES: Final = {_PREFIX: NAMESPACE}

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
    """Bytes; the XML has KiB."""
    vcpu_count: int
    machine: str
    """The versioned machine type, such as ``pc-q35-7.2``."""
    arch: str
    accelerator: str
    """libvirt's domain type: ``kvm`` or ``qemu``."""
    command: SavedCommand | None = None


def encode_description(guest: GuestDescription) -> str:
    """The XML of ``guest``, well-formed whatever its strings hold.

    The command survives as it is; in the other strings, characters that XML cannot carry become question marks.
    """
    domain = ET.Element("domain", type=_plain(guest.accelerator))
    _add(domain, "name", guest.name)
    _add(domain, "uuid", guest.uuid)
    ours = ET.SubElement(ET.SubElement(domain, "metadata"), f"{_PREFIX}:{_GUEST}", {f"xmlns:{_PREFIX}": NAMESPACE})
    if guest.command is not None:
        for argument in guest.command.arguments:
            _add_exact(ours, _ARGUMENT, argument)
        _add_exact(ours, _FOLDER, guest.command.working_directory)
    _add(domain, "memory", str(guest.memory_size // KiB), unit="KiB")
    _add(domain, "vcpu", str(guest.vcpu_count))
    _add(ET.SubElement(domain, "os"), "type", "hvm", arch=_plain(guest.arch), machine=_plain(guest.machine))
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def parse_description(xml: str) -> GuestDescription | None:
    """The guest that ``xml`` describes; None if it is not ours, or says nothing that we understand."""
    try:
        domain = parse_domain(xml)
        ours = _find_ours(domain)
        if ours is None:
            return None
        memory_size = int(domain.findtext("memory", "0")) * KiB
        if not 0 <= memory_size < 1 << 63:  # a number of thousands of digits is one too
            return None
        os_type = domain.find("os/type")
        return GuestDescription(
            name=domain.findtext("name", ""),
            uuid=domain.findtext("uuid", ""),
            memory_size=memory_size,
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
        CorruptImageError: not well-formed, larger than ``MAX_XML``, or with a document type, which no domain XML has.

    """
    ours = _find_ours(parse_domain(xml))
    return None if ours is None else _command(ours)


def _find_ours(domain: ET.Element) -> ET.Element | None:
    return domain.find(f"metadata/{_PREFIX}:{_GUEST}", _NAMESPACES)


def _command(ours: ET.Element) -> SavedCommand | None:
    arguments = tuple(_exact(element) for element in ours.findall(f"{_PREFIX}:{_ARGUMENT}", _NAMESPACES))
    folder = ours.find(f"{_PREFIX}:{_FOLDER}", _NAMESPACES)
    return SavedCommand(arguments, _exact(folder)) if arguments and folder is not None else None


def _plain(text: str) -> str:
    return _NOT_XML.sub("?", text)


def _add(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = _plain(text)


def _add_exact(parent: ET.Element, tag: str, text: str) -> None:
    """``text``, or its bytes in base64 where XML cannot carry it."""
    element = ET.SubElement(parent, f"{_PREFIX}:{tag}")
    if _NOT_XML.search(text):
        element.set("encoding", "base64")
        element.text = base64.b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")
    else:
        element.text = text


def _exact(element: ET.Element) -> str:
    text = element.text or ""
    if element.get("encoding") != "base64":
        return text
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError) as error:
        raise CorruptImageError(f"the saved command line in the domain XML is not valid base64: {error}") from error
