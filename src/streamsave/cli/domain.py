"""A domain XML in a few words, for ``info``: the guest's name, uuid, memory, vCPUs and machine, whoever wrote the XML.

The XML is data from outside. It is read event by event, nothing in it is carried out, and a document type declaration (the
way to entities) ends the reading; so does everything that is not well-formed, with what was found until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

UNITS: Final = {
    "b": 1, "bytes": 1, "KB": 10**3, "K": 2**10, "KiB": 2**10, "MB": 10**6, "M": 2**20, "MiB": 2**20,
    "GB": 10**9, "G": 2**30, "GiB": 2**30, "TB": 10**12, "T": 2**40, "TiB": 2**40,
}  # fmt: skip
"""libvirt's words for units (formatdomain: memory allocation)."""

NAME: Final = ("domain", "name")
UUID: Final = ("domain", "uuid")
MEMORY: Final = ("domain", "memory")
VCPU: Final = ("domain", "vcpu")
OS_TYPE: Final = ("domain", "os", "type")
WANTED: Final = (NAME, UUID, MEMORY, VCPU, OS_TYPE)


@dataclass(frozen=True, slots=True)
class DomainSummary:
    """What the XML says of the guest; empty or 0 where it says nothing. ``memory_size`` in bytes."""

    name: str = ""
    uuid: str = ""
    memory_size: int = 0
    vcpu_count: int = 0
    machine: str = ""
    arch: str = ""
    hypervisor: str = ""


def summarise_domain(xml: str) -> DomainSummary:
    """Read the summary out of ``xml``. Raises nothing."""
    reading = _Reading()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.characters
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(xml.encode("utf-8", "surrogateescape"), True)
    except (expat.ExpatError, _Refused):
        pass
    text, attributes = reading.text, reading.attributes
    memory_size = _number(text.get(MEMORY, "")) * UNITS.get(attributes.get(MEMORY, {}).get("unit", "KiB"), 0)
    system = attributes.get(OS_TYPE, {})
    return DomainSummary(
        name=text.get(NAME, "").strip(),
        uuid=text.get(UUID, "").strip(),
        memory_size=memory_size if memory_size < 1 << 63 else 0,
        vcpu_count=_number(text.get(VCPU, "")),
        machine=system.get("machine", ""),
        arch=system.get("arch", ""),
        hypervisor=attributes.get(("domain",), {}).get("type", ""),
    )


class _Refused(Exception):
    """A document type declaration."""


def _refuse(*_: object) -> None:
    raise _Refused


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


class _Reading:
    """The first element at each wanted path: its text and its attributes."""

    def __init__(self) -> None:
        self.text: dict[tuple[str, ...], str] = {}
        self.attributes: dict[tuple[str, ...], dict[str, str]] = {}
        self._path: list[str] = []
        self._current: tuple[str, ...] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        self._path.append(name)
        self._current = None
        if len(self._path) > 3:
            return
        path = tuple(self._path)
        if path not in self.attributes and (path in WANTED or path == ("domain",)):
            self.attributes[path] = attributes
            self.text[path] = ""
            self._current = path

    def characters(self, text: str) -> None:
        """Text inside the current element."""
        if self._current is not None:
            self.text[self._current] += text

    def end(self, _name: str) -> None:
        """An element ends."""
        self._path.pop()
        self._current = None
