"""A domain XML, read with care: it comes from an image, or from somebody who edits one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Final, NoReturn

from ..errors import CorruptImageError, UsageError
from ..units import MiB

MAX_XML: Final = 4 * MiB
"""Characters of an XML that is read. A tree takes many times its text's memory, and Linux limits command lines to 2 MiB."""


def parse_domain(xml: str) -> ET.Element:
    """The tree of ``xml``.

    Raises:
        CorruptImageError: not well-formed, larger than ``MAX_XML``, or with a document type, which no domain XML has.

    """
    if len(xml) > MAX_XML:
        raise CorruptImageError(f"the domain XML has {len(xml)} characters; {MAX_XML} are the most that is read")
    try:
        data = xml.encode("utf-8", "surrogateescape")
        return ET.fromstring(data, ET.XMLParser(target=_NoDoctype(), encoding="utf-8"))
    except (ET.ParseError, UnicodeEncodeError) as error:
        raise CorruptImageError(f"the domain XML is not well-formed: {error}") from error


def check_same_guest(before: str, after: str) -> None:
    """``after`` can take the place of ``before`` in an image: libvirt takes no other name or UUID in one either.

    Raises:
        UsageError: it is not well-formed, no domain's, or another guest's.

    """
    try:
        new = parse_domain(after)
    except CorruptImageError as error:
        raise UsageError(f"{error}; nothing was written") from error
    if new.tag != "domain":
        raise UsageError(f"the new XML is a <{new.tag}>, not a <domain>; nothing was written")
    try:
        old = parse_domain(before)
    except CorruptImageError:
        return  # it is being mended
    for tag in ("name", "uuid"):
        was, is_now = _text(old, tag), _text(new, tag)
        if was and was != is_now:
            raise UsageError(
                f"the new XML has the {tag} {is_now or '(none)'}, the image {was}: the {tag} of a saved guest"
                " cannot change, for libvirt would not restore it; nothing was written"
            )


def _text(domain: ET.Element, tag: str) -> str:
    text = domain.findtext(tag, "").strip()
    return text.replace("-", "").lower() if tag == "uuid" else text


class _NoDoctype(ET.TreeBuilder):
    """A document type can define entities, which grow without bound."""

    def doctype(self, *_declaration: object) -> NoReturn:
        """Refuse it."""
        raise CorruptImageError("the domain XML has a document type; no libvirt writes that, so it is not read")
