"""streamsave saves and restores QEMU/KVM guests as compressed libvirt save images, on all cores, in one process.

::

    import streamsave

    report = streamsave.save("/run/vm.qmp", "vm.save", streamsave.SaveOptions(format="zstd", then="quit"))
    print(report.image_size, report.stopped_s)

    report = streamsave.restore("vm.save", command=["qemu-system-x86_64", "-M", "q35", "-m", "8192"])
    report.process.wait()

    streamsave.save_domain("web", "web.save")  # of libvirt's, which goes on to know what happens to it
    streamsave.restore_domain("web.save")

Names are imported when they are first used: ``import streamsave`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .cancel import Cancellation as Cancellation
    from .codecs.registry import find_codec as find_codec
    from .errors import Aborted as Aborted
    from .errors import StreamsaveError as StreamsaveError
    from .format.metadata import Metadata as Metadata
    from .format.migration import PageContents as PageContents
    from .format.migration import PageKind as PageKind
    from .format.migration import RamBlock as RamBlock
    from .format.migration import StreamMap as StreamMap
    from .libvirt.restore import restore_domain as restore_domain
    from .libvirt.save import save_domain as save_domain
    from .operations.convert import convert as convert
    from .operations.edit import EditReport as EditReport
    from .operations.edit import edit as edit
    from .operations.guest_ram import GuestRam as GuestRam
    from .operations.image import ImageInfo as ImageInfo
    from .operations.image import read_info as read_info
    from .operations.image_stream import ImageStream as ImageStream
    from .operations.image_stream import open_stream as open_stream
    from .operations.inflow import save_stream as save_stream
    from .operations.outflow import restore_stream as restore_stream
    from .operations.reports import ConvertReport as ConvertReport
    from .operations.reports import RestoreReport as RestoreReport
    from .operations.reports import SaveReport as SaveReport
    from .operations.restore import restore as restore
    from .operations.save import save as save
    from .operations.verify import VerifyReport as VerifyReport
    from .operations.verify import verify as verify
    from .options import CompressOptions as CompressOptions
    from .options import RestoreOptions as RestoreOptions
    from .options import SaveOptions as SaveOptions
    from .types import Progress as Progress

_HOMES = {
    "Aborted": "errors",
    "Cancellation": "cancel",
    "CompressOptions": "options",
    "ConvertReport": "operations.reports",
    "EditReport": "operations.edit",
    "GuestRam": "operations.guest_ram",
    "ImageInfo": "operations.image",
    "ImageStream": "operations.image_stream",
    "Metadata": "format.metadata",
    "PageContents": "format.migration",
    "PageKind": "format.migration",
    "Progress": "types",
    "RamBlock": "format.migration",
    "RestoreOptions": "options",
    "RestoreReport": "operations.reports",
    "SaveOptions": "options",
    "SaveReport": "operations.reports",
    "StreamMap": "format.migration",
    "StreamsaveError": "errors",
    "VerifyReport": "operations.verify",
    "convert": "operations.convert",
    "edit": "operations.edit",
    "find_codec": "codecs.registry",
    "open_stream": "operations.image_stream",
    "read_info": "operations.image",
    "restore": "operations.restore",
    "restore_domain": "libvirt.restore",
    "restore_stream": "operations.outflow",
    "save": "operations.save",
    "save_domain": "libvirt.save",
    "save_stream": "operations.inflow",
    "verify": "operations.verify",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
