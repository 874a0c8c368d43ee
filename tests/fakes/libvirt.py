"""libvirt's Python binding and the daemon behind it, as far as saving and restoring go: one domain, whose stream is given.

The daemon opens the paths in this process, as the real ones do: for a save the image first and the header again at the end
(``qemuSaveImageCreate``), for a restore once (9.0) or with a look at the metadata before (11.3). ``install`` puts it in
the place of the module ``libvirt``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pytest

from streamsave.format.header import HEADER_SIZE, Header, encode_header, parse_header
from streamsave.format.metadata import Metadata, encode_metadata, parse_metadata
from streamsave.format.save_format import SaveFormat

XML = "<domain type='qemu'>\n  <name>fake</name>\n</domain>\n"
COOKIE = "<cookie>\n  <slirpHelper/>\n</cookie>\n"
RUNNING, PAUSED, SHUT_OFF = 1, 3, 5
INVALID_ARGUMENT, OPERATION_FAILED, NO_DOMAIN = 8, 9, 42


class FakeError(Exception):
    """``libvirt.libvirtError``."""

    def __init__(self, message: str, code: int = OPERATION_FAILED) -> None:
        super().__init__(message)
        self._code = code

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return str(self)


@dataclass
class FakeDaemon:
    """What the daemon knows and does; the tests change it. ``restored`` is what it got: header, metadata, stream."""

    stream: bytes
    state: int = RUNNING
    format: SaveFormat = SaveFormat.RAW
    """What its qemu.conf says."""
    takes_format: bool = True
    """Whether it knows ``image_format`` (11.2)."""
    looks: int = 1
    """How often it looks at an image's metadata before it opens it for good: 0 is 9.0, 1 is 11.3."""
    before_header: Callable[[], None] = lambda: None
    """Called when the whole stream is written."""
    before_connect: Callable[[], None] = lambda: None
    closed: int = 0
    """How often a connection was closed."""
    before_stream: Callable[[], None] = lambda: None
    """Called when it has opened an image for good, and read all but the stream."""
    before_job: Callable[[], None] = lambda: None
    """Called before it answers what its job does."""
    version: int = 11003000
    refusal: str = ""
    restored: list[tuple[Header, Metadata, bytes]] = field(default_factory=list)
    flags: int = 0
    xml: str | None = None
    was: int = RUNNING

    def save(self, path: str, number: SaveFormat) -> None:
        """``virDomainSave``: on any failure the domain is what it was."""
        if self.state == SHUT_OFF:
            raise FakeError("domain is not running")
        self.was, self.state = self.state, PAUSED
        try:
            self._write(path, number)
        except OSError as error:
            self.state = self.was
            raise FakeError(f"failed to write header to domain save file '{path}': {error.strerror}") from error
        self.state = SHUT_OFF

    def _write(self, path: str, number: SaveFormat) -> None:
        data, cookie_offset = encode_metadata(Metadata(XML, COOKIE))
        running = self.was == RUNNING
        header = Header(complete=False, data_size=len(data), was_running=running, format=number, cookie_offset=cookie_offset)
        with open(path, "wb", buffering=0) as file:
            _write_all(file.fileno(), encode_header(header) + data)
            _write_all(file.fileno(), self.stream)
        self.before_header()
        with open(os.open(path, os.O_WRONLY), "wb", buffering=0) as file:
            _write_all(file.fileno(), encode_header(replace(header, complete=True)))

    def read_metadata(self, fd: int) -> tuple[Header, Metadata]:
        """As much of an image as tells what is in it."""
        header = parse_header(_read_all(fd, HEADER_SIZE))
        return header, parse_metadata(_read_all(fd, header.data_size), header.cookie_offset)

    def restore(self, path: str, xml: str | None, flags: int) -> None:
        """``virDomainRestoreFlags``."""
        for _ in range(self.looks):
            self.look(path)
        if self.refusal:
            raise FakeError(self.refusal)
        self.xml, self.flags = xml, flags
        with open(path, "rb", buffering=0) as file:
            header, metadata = self.read_metadata(file.fileno())
            self.before_stream()
            stream = file.read()
        self.restored.append((header, metadata, stream))
        if stream != self.stream:
            raise FakeError("internal error: QEMU unexpectedly closed the monitor: load of migration failed")
        self.state = RUNNING if header.was_running else PAUSED

    def job(self) -> dict[str, int | str]:
        """``virDomainGetJobStats``."""
        self.before_job()
        if self.refusal:
            raise FakeError(self.refusal)
        return {"operation": 3, "memory_total": 16 << 20, "memory_remaining": 1 << 20, "errmsg": ""}

    def look(self, path: str) -> None:
        """``virDomainSaveImageGetXMLDesc``."""
        try:
            with open(path, "rb", buffering=0) as file:
                self.read_metadata(file.fileno())
        except OSError as error:
            raise FakeError(f"Failed to open file '{path}': {error.strerror}") from error

    def connect(self, uri: str | None) -> _Connection:
        """``virConnectOpen``."""
        self.before_connect()
        return _Connection(self, uri or "qemu:///system")

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be ``libvirt`` for as long as the test runs."""
        module: Any = ModuleType("libvirt")
        module.libvirtError = FakeError
        module.VIR_DOMAIN_SAVE_RUNNING, module.VIR_DOMAIN_SAVE_PAUSED, module.VIR_DOMAIN_SAVE_RESET_NVRAM = 2, 4, 8
        module.VIR_DOMAIN_XML_MIGRATABLE = 8
        module.VIR_ERR_INVALID_ARG, module.VIR_ERR_NO_SUPPORT, module.VIR_ERR_ARGUMENT_UNSUPPORTED = INVALID_ARGUMENT, 3, 74
        module.open = self.connect
        monkeypatch.setitem(sys.modules, "libvirt", module)


class _Connection:
    def __init__(self, daemon: FakeDaemon, uri: str) -> None:
        self._daemon = daemon
        self._uri = uri

    def getURI(self) -> str:  # noqa: N802 - the binding's names
        return self._uri

    def getLibVersion(self) -> int:  # noqa: N802
        return self._daemon.version

    def getType(self) -> str:  # noqa: N802
        return "QEMU"

    def lookupByName(self, name: str) -> _Domain:  # noqa: N802
        if name != "fake":
            raise FakeError(f"Domain not found: no domain with matching name '{name}'", NO_DOMAIN)
        return _Domain(self._daemon)

    def saveImageGetXMLDesc(self, path: str, flags: int) -> str:  # noqa: N802
        self._daemon.look(path)
        return XML

    def restoreFlags(self, path: str, xml: str | None, flags: int) -> None:  # noqa: N802
        self._daemon.restore(path, xml, flags)

    def close(self) -> None:
        self._daemon.closed += 1


class _Domain:
    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def name(self) -> str:
        return "fake"

    def state(self) -> list[int]:
        return [self._daemon.state, 0]

    def info(self) -> list[int]:
        return [self._daemon.state, 16 * 1024, 16 * 1024, 1, 0]

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        return XML

    def jobStats(self) -> dict[str, int | str]:  # noqa: N802
        return self._daemon.job()

    def saveParams(self, parameters: dict[str, str], flags: int) -> None:  # noqa: N802
        if "image_format" in parameters and not self._daemon.takes_format:
            raise FakeError("parameter 'image_format' not supported", INVALID_ARGUMENT)
        self._daemon.save(parameters["file"], SaveFormat[parameters["image_format"].upper()])

    def save(self, path: str) -> None:
        self._daemon.save(path, self._daemon.format)


def _write_all(fd: int, data: bytes) -> None:
    with memoryview(data) as view:
        at = 0
        while at < len(view):
            at += os.write(fd, view[at : at + (1 << 20)])


def _read_all(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise FakeError("failed to read qemu header")
        data += more
    return bytes(data)
