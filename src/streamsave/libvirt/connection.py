"""The connection to libvirt, and the only module that touches its Python binding.

The binding is an optional part of the installation, because it is built against libvirt's own library: it is imported when a
connection is opened. Its calls release the GIL, and one connection takes calls from several threads.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from types import ModuleType, TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

from ..choices import GuestState
from ..errors import LibvirtError, UsageError
from ..format.save_format import SaveFormat
from ..units import KiB

LOCAL_TRANSPORTS = ("", "unix")
SAVE_FILE, SAVE_FORMAT = "file", "image_format"
"""libvirt's names of ``virDomainSaveParams``; the second one since 11.2."""


class Connection:
    """An open connection to the libvirt of this host. A context manager.

    ``uri`` as for ``virsh --connect``; None is libvirt's own default.

    Raises:
        UsageError: the binding is not installed; or the URI leads to another host, or to something else than QEMU.
        LibvirtError: nothing answers there.
    """

    def __init__(self, uri: str | None = None) -> None:
        libvirt = _binding()
        check_local(uri or "")
        with _telling(f"cannot connect to libvirt at {uri or 'its default URI'}"):
            self._connection = libvirt.open(uri)
        self._domains: list[Domain] = []
        try:
            self.uri: str = self._connection.getURI()
            check_local(self.uri)
            self.version: tuple[int, int] = divmod(self._connection.getLibVersion() // 1000, 1000)
            """The daemon's, such as (11, 3)."""
            driver = self._connection.getType()
            if driver != "QEMU":
                raise UsageError(f"{self.uri} is libvirt's driver for {driver}: only domains of QEMU have save images")
        except BaseException:
            self.close()
            raise

    def find_domain(self, name: str) -> Domain:
        """The domain with that name or UUID.

        Raises:
            LibvirtError: there is none.

        """
        look_up = self._connection.lookupByUUIDString if _UUID.fullmatch(name) else self._connection.lookupByName
        with _telling(f"libvirt at {self.uri} does not know the domain {name!r}"):
            domain = Domain(look_up(name))
        self._domains.append(domain)
        return domain

    def read_image(self, path: str) -> None:
        """Let the daemon read the save image ``path``, as ``virsh save-image-dumpxml`` does, and forget about it.

        Raises:
            LibvirtError: it could not.

        """
        with _telling(f"libvirt cannot read {path}"):
            self._connection.saveImageGetXMLDesc(path, 0)

    def restore(self, path: str, *, xml: str | None, state: GuestState | None, reset_nvram: bool) -> None:
        """Restore a domain from the save image ``path``; ``xml`` instead of the image's own. Returns when it is done.

        Raises:
            LibvirtError: libvirt did not.

        """
        libvirt = _binding()
        flags = {None: 0, "running": libvirt.VIR_DOMAIN_SAVE_RUNNING, "paused": libvirt.VIR_DOMAIN_SAVE_PAUSED}[state]
        if reset_nvram:
            flags |= libvirt.VIR_DOMAIN_SAVE_RESET_NVRAM
        with _telling("libvirt did not restore the domain"):
            self._connection.restoreFlags(path, xml, flags)

    def close(self) -> None:
        """Close it; domains that were found are of no use then. May be called twice."""
        for domain in self._domains:
            domain.forget()  # the binding counts who refers to the connection, and domains do
        with _telling("cannot close the connection"), suppress(AttributeError):
            self._connection.close()
            del self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Domain:
    """One domain. Made by ``Connection.find_domain``."""

    def __init__(self, domain: Any) -> None:
        """``domain`` is the binding's."""
        self.name: str = domain.name()
        self._domain = domain

    def forget(self) -> None:
        """It is of no use any more."""
        del self._domain

    def state(self) -> str:
        """What it does now: ``running``, ``paused``, ``shut off``, ...

        Raises:
            LibvirtError: libvirt cannot tell.

        """
        with _telling(f"cannot ask for the state of {self.name}"):
            number = self._domain.state()[0]
        return _STATES[number] if 0 <= number < len(_STATES) else f"state {number}"

    def memory_size(self) -> int:
        """Of its RAM at the most, in bytes.

        Raises:
            LibvirtError: libvirt cannot tell.

        """
        with _telling(f"cannot ask for the memory of {self.name}"):
            return int(self._domain.info()[1]) * KiB

    def xml(self) -> str:
        """Its XML, without secrets.

        Raises:
            LibvirtError: libvirt cannot tell.

        """
        with _telling(f"cannot ask for the XML of {self.name}"):
            return str(self._domain.XMLDesc(_binding().VIR_DOMAIN_XML_MIGRATABLE))

    def job(self) -> dict[str, int]:
        """What libvirt tells of the job under way, by its names (``virDomainGetJobStats``): sizes in bytes, times in ms.

        Raises:
            LibvirtError: libvirt cannot tell.

        """
        with _telling(f"cannot ask for the job of {self.name}"):
            return {name: value for name, value in self._domain.jobStats().items() if isinstance(value, int)}

    def save(self, path: str) -> None:
        """Save it to ``path``, raw if libvirt lets us ask for that (11.2), and end it. Returns when it is done.

        Raises:
            LibvirtError: libvirt did not; a domain that ran runs on.

        """
        libvirt = _binding()
        with _telling(f"libvirt did not save {self.name}"):
            try:
                self._domain.saveParams({SAVE_FILE: path, SAVE_FORMAT: SaveFormat.RAW.word}, 0)
                return
            except libvirt.libvirtError as error:
                unknown = (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED)
                if error.get_error_code() not in unknown:
                    raise
            # Out of the except: an error from here would keep the first one, with its frames, as its context.
            self._domain.save(path)  # as qemu.conf says: the image's header tells how that is


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_STATES = ("no state", "running", "blocked", "paused", "shutting down", "shut off", "crashed", "suspended")
"""virDomainState, in virsh's words."""


def check_local(uri: str) -> None:
    """Pipes do not reach other hosts.

    Raises:
        UsageError: ``uri`` leads to one.

    """
    parts = urlsplit(uri)
    transport = parts.scheme.partition("+")[2]
    if parts.hostname or transport not in LOCAL_TRANSPORTS:
        raise UsageError(
            f"{uri} is a connection to another host (or made to look like one): run streamsave on that host, with its local"
            " URI such as qemu:///system"
        )


class _telling:  # noqa: N801 - a context manager, as a function would be
    """What the binding raises inside, as our own error: ``what`` went wrong.

    Without the binding's frames, not even in a local variable of ours: they would keep the connection open for as long as
    somebody holds the error.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del trace
        if isinstance(error, _binding().libvirtError):
            failure = cast(Any, error)
            text, code = failure.get_error_message() or str(error), failure.get_error_code() or 0
            raise LibvirtError(f"{self._what}: {text}", code=code) from failure.with_traceback(None)


def _binding() -> ModuleType:
    fresh = "libvirt" not in sys.modules
    try:
        import libvirt
    except ImportError as error:
        raise UsageError(
            f"libvirt's Python binding cannot be imported ({error}): install streamsave[libvirt], which needs libvirt-dev"
            " and pkg-config to be built"
        ) from error
    if fresh:  # nobody else uses it here: it must not print what we raise
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
    binding: ModuleType = libvirt
    return binding
