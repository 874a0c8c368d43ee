"""The codecs: ours, and those that other packages add.

Ours are one line each in ``_OURS``. Another package adds one with an entry point of group ``streamsave.codecs``, which has
the codec's name and leads to a ``Codec`` class or instance::

    [project.entry-points."streamsave.codecs"]
    later = "streamsave_later:Later"

Neither may take a name or a number of ours. An entry point that does, or that does not load, is an error only when somebody
asks for its format: a broken package must not stop a save in another format. The entry points are looked up only when
a name or number is not ours, or when all are wanted, because that look-up costs more than everything else here.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from ..errors import FormatError, UnsupportedImageError
from ..format.header import NAME_SIZE
from ..format.save_format import SaveFormat
from .base import Codec

ENTRY_POINT_GROUP = "streamsave.codecs"

_OURS = (
    "raw",
    "gzip",
    "bzip2",
    "xz",
    "lzop",
    "zstd",
    "lz4",
    "snappy",
)
"""Modules of this package, in the order of libvirt's numbers; each has its codec as ``CODEC``, under its own name."""


def codecs() -> dict[str, Codec]:
    """Every codec that works here, by name: ours in the order of libvirt's numbers, then the others by name."""
    return {**{name: _own(name) for name in _OURS}, **_outside()[0]}


def find_codec(name: str) -> Codec:
    """The codec called ``name``.

    Raises:
        FormatError: there is none; or it is libvirt's ``sparse``; or the package that adds it is broken.

    """
    if name in _OURS:
        return _own(name)
    others, broken = _outside()
    if name in others:
        return others[name]
    known = tuple(codecs())
    words = ", ".join(known)
    if name in broken:
        raise FormatError(f"{broken[name][0]}: mend or remove it, or choose one of {words}", name=name, known=known) from (
            broken[name][1]
        )
    if name == SaveFormat.SPARSE.word:
        raise FormatError(
            "libvirt's format sparse is written by QEMU itself into a seekable file, uncompressed; streamsave writes"
            f" compressed streams: choose one of {words}",
            name=name,
            known=known,
        )
    raise FormatError(f"there is no format {name!r}: choose one of {words}", name=name, known=known)


def codec_by_number(number: int) -> Codec:
    """The codec of an image whose header has libvirt's format ``number``.

    Raises:
        UnsupportedImageError: there is none here; the message names the format where libvirt has one of that number.

    """
    for name in _OURS:
        if _own(name).number == number:
            return _own(name)
    for codec in _outside()[0].values():
        if codec.number == number:
            return codec
    if number == SaveFormat.SPARSE:
        raise UnsupportedImageError(
            f"the image has format {SaveFormat.SPARSE.word} (number {number}), which is no stream: restore it with virsh, or"
            " convert the file to another format first (streamsave convert)"
        )
    raise UnsupportedImageError(
        f"the image has format number {number}, which neither streamsave nor libvirt 11 knows: is it from a later one?"
    )


@cache
def _own(name: str) -> Codec:
    codec: Codec = import_module(f".{name}", __package__).CODEC
    return codec


@cache
def _outside() -> tuple[dict[str, Codec], dict[str, tuple[str, Exception | None]]]:
    """The codecs of other packages, and what is wrong with those that do not work: a text and its cause."""
    from importlib.metadata import entry_points

    taken = {_own(name).number for name in _OURS} | {SaveFormat.SPARSE}
    found: dict[str, Codec] = {}
    broken: dict[str, tuple[str, Exception | None]] = {}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist else "an unknown package"
        label = f"format {entry.name} of {package} ({entry.value})"
        try:
            loaded = entry.load()
            codec = loaded() if isinstance(loaded, type) else loaded
        except Exception as error:  # whatever another package's import may raise
            broken[entry.name] = (f"{label} does not load: {type(error).__name__}: {error}", error)
            continue
        if not isinstance(codec, Codec):
            broken[entry.name] = (f"{label} is not a streamsave codec", None)
        elif codec.name != entry.name:
            broken[entry.name] = (f"{label} calls itself {codec.name}", None)
        elif not codec.name.isascii() or len(codec.name) > NAME_SIZE:
            broken[entry.name] = (f"{label} needs a name of at most {NAME_SIZE} ASCII characters, for images carry it", None)
        elif codec.number is not None and codec.number in taken:
            broken[entry.name] = (f"{label} claims number {codec.number}, which another format has", None)
        elif codec.name not in _OURS:
            taken.add(codec.number)
            found[codec.name] = codec
    return found, broken
