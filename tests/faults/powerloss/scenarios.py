"""What is recorded: every way in which streamsave writes an image, with an older one at its place and without."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from streamsave.endpoints import exchange
from streamsave.format.header import MAGIC_SIZE
from streamsave.libvirt import passage
from streamsave.libvirt.save import save_domain
from streamsave.operations.convert import convert
from streamsave.operations.edit import edit
from streamsave.operations.inflow import save_stream
from streamsave.options import CompressOptions, SaveOptions
from streamsave.units import MiB

from ...fakes.libvirt import FakeDaemon
from ...kit.device import block_device
from ...kit.images import METADATA, made_up_stream, save_bytes
from ...kit.unfinished import without_nameless_files
from .events import COMPLETE, DEVICE, PARTIAL, Created, Named, Recording, Written
from .judge import Expected, Sight
from .recorder import Fault, Recorder, files_of, no_fault, recording

IMAGE: Final = "guest.save"
SOURCE: Final = "source.save"
DEVICE_SIZE: Final = 4 * MiB
THREADS: Final = 2

NOTHING_OR_NEW: Final[frozenset[Sight]] = frozenset({"absent", "new"})
ONE_OF_BOTH: Final[frozenset[Sight]] = frozenset({"earlier", "new"})
IN_PLACE: Final[frozenset[Sight]] = frozenset({"earlier", "incomplete", "new"})


@cache
def new_stream() -> bytes:
    """Of the image that is written: a few chunks."""
    return made_up_stream(500)


@cache
def earlier_stream() -> bytes:
    """Of the one that is there: longer."""
    return made_up_stream(700)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An operation on an image in a folder of its own, or on a device."""

    name: str
    act: Callable[[Path, Path], object]
    """Gets the folder, and the path of the image: in the folder, or of the device."""
    sights: frozenset[Sight]
    prepare: Callable[[Path], None] = lambda folder: None
    """Makes what is in the folder before."""
    on_device: bool = False
    exchanges: bool = True
    """Whether two files can change places there."""
    nameless: bool = True
    """Whether there are files without names."""
    same_stream: bool = False
    """The new image has the stream of the earlier one."""
    guarded: bool = False
    """A guardian watches over it."""
    steady: bool = True
    """It does everything in the same order each time."""
    barriers: int = 3
    """How many fsyncs it cannot do without: payload, header, name; in place the partial header, what follows, the header."""

    @property
    def stream(self) -> bytes:
        return earlier_stream() if self.same_stream else new_stream()

    @property
    def destination(self) -> str:
        return DEVICE if self.on_device else IMAGE


@dataclass(frozen=True)
class Recorded:
    """A scenario that was carried out."""

    scenario: Scenario
    recording: Recording
    error: BaseException | None
    after: dict[str, bytes]
    """What is there now: the recording has to come to the same."""

    @property
    def image(self) -> int:
        """The file that becomes the image: the last one that is created, or what is at the destination."""
        named = [event.names for event in self.recording.events if isinstance(event, Named)]
        created = [file for names in named for _, file in names if file is not None]
        created += [event.file for event in self.recording.events if isinstance(event, Created)]
        return max(created, default=self.recording.before.names.get(self.scenario.destination, 0))

    @property
    def begun(self) -> int:
        """After how many events its head was written."""
        events = enumerate(self.recording.events, 1)
        return next(count for count, event in events if isinstance(event, Written) and event.file == self.image)

    @property
    def magic(self) -> bytes:
        """Of a complete image of its format."""
        (head,) = (event.data for event in self.recording.events[self.begun - 1 : self.begun] if isinstance(event, Written))
        return COMPLETE[PARTIAL.index(head[:MAGIC_SIZE])]

    def expected(self, sights: frozenset[Sight] | None = None) -> Expected:
        """``sights``: other ones than those of the scenario."""
        before = self.recording.before.contents()
        destination = self.scenario.destination
        earlier = before.get(destination, b"")
        return Expected(
            destination=destination,
            sights=self.scenario.sights if sights is None else sights,
            earlier=earlier,
            final=self._final(earlier),
            stream_sha256=hashlib.sha256(self.scenario.stream).hexdigest(),
            others=frozenset(before) - {destination},
        )

    def _final(self, earlier: bytes) -> bytes:
        """The image at the moment at which it became complete; empty: it never did."""
        disk = self.recording.before.copy()
        for event in self.recording.events:
            disk.apply(event)
            if isinstance(event, Written):
                data = bytes(disk.files[event.file])
                if data.startswith(COMPLETE) and data != earlier:
                    return data
        return b""


@contextmanager
def prepared(scenario: Scenario, home: Path) -> Iterator[tuple[Path, Path | None]]:
    """The folder, and the device with an older, longer image on it if there is to be one."""
    folder = home / "images"
    folder.mkdir()
    scenario.prepare(folder)
    if not scenario.on_device:
        yield folder, None
        return
    save_bytes(earlier_stream(), home / "earlier", format="raw", threads=THREADS)
    earlier = (home / "earlier").read_bytes()
    with block_device(home / "backing", earlier + Random(4).randbytes(DEVICE_SIZE - len(earlier))) as device:
        node = home / "device"  # of our own: what takes its name must not take that of the host's
        os.mknod(node, stat.S_IFBLK | 0o600, device.stat().st_rdev)
        yield folder, node


def record(scenario: Scenario, home: Path, fault: Fault = no_fault) -> Recorded:
    """Carry it out in this process. An error of its own is part of what is recorded."""
    with prepared(scenario, home) as (folder, device), pytest.MonkeyPatch.context() as patch:
        if not scenario.exchanges:
            patch.setattr(exchange, "_renameat2", lambda: None)
        if not scenario.nameless:
            without_nameless_files(patch)
        recorder = Recorder(folder, device, fault=fault)
        failure: BaseException | None = None
        with recording(recorder):
            try:
                scenario.act(folder, device or folder / IMAGE)
            except Exception as error:
                failure = error
        return Recorded(scenario, recorder.recording(), failure, files_of(folder, device))


# What is there before


def earlier_image(folder: Path) -> None:
    save_bytes(earlier_stream(), folder / IMAGE, format="raw", threads=THREADS)


def source_image(folder: Path) -> None:
    save_bytes(new_stream(), folder / SOURCE, format="gzip", threads=THREADS)


def both(folder: Path) -> None:
    earlier_image(folder)
    source_image(folder)


# What they do


def put(name: str, _folder: Path, image: Path | int) -> None:
    """Save the new stream."""
    with tempfile.TemporaryFile() as file:
        file.write(new_stream())
        file.seek(0)
        save_stream(file.fileno(), image, METADATA, CompressOptions(format=name, threads=THREADS), was_running=True)


def put_into_descriptor(name: str, folder: Path, image: Path) -> None:
    with image.open("r+b") as file:
        put(name, folder, file.fileno())


def put_by_libvirt(name: str, folder: Path, image: Path) -> None:
    """A domain of a libvirt that is played in this process."""
    with pytest.MonkeyPatch.context() as patch:
        FakeDaemon(new_stream()).install(patch)
        patch.setattr(passage, "runtime_folder", lambda: folder.with_name("run"))
        save_domain("fake", image, SaveOptions(format=name, threads=THREADS))


def change(source: str, name: str, folder: Path, image: Path) -> None:
    """Convert, from beside the image or in its place."""
    convert(folder / source, image, CompressOptions(format=name, threads=THREADS))


def pause(_folder: Path, image: Path) -> None:
    assert not edit(image, state="paused").rewritten


def lengthen(_folder: Path, image: Path) -> None:
    longer = METADATA.xml.replace("</name>", f"</name><description>{'longer ' * 20_000}</description>")
    assert edit(image, xml=longer).rewritten


def scenarios(*formats: str) -> list[Scenario]:
    """All of them, for images of these formats."""
    return [*(each for name in formats for each in _of_format(name)), *_of_any_format()]


def scenario_named(name: str, *formats: str) -> Scenario:
    """The one that is called so."""
    return next(each for each in scenarios(*formats) if each.name == name)


def _of_format(name: str) -> list[Scenario]:
    save, to = partial(put, name), partial(change, SOURCE, name)
    return [
        Scenario(name=f"save {name}", act=save, guarded=True, sights=NOTHING_OR_NEW),
        Scenario(name=f"save {name} over an image", act=save, guarded=True, prepare=earlier_image, sights=ONE_OF_BOTH),
        Scenario(name=f"save {name} onto a device", act=save, guarded=True, sights=IN_PLACE, on_device=True),
        Scenario(name=f"convert to {name}", act=to, prepare=source_image, sights=NOTHING_OR_NEW),
        Scenario(
            name=f"convert to {name} in place",
            act=partial(change, IMAGE, name),
            prepare=earlier_image,
            sights=ONE_OF_BOTH,
            same_stream=True,
        ),
    ]


def _of_any_format() -> list[Scenario]:
    """Where the format does not matter: what is written, and when, is the same in all of them."""
    in_place = partial(change, IMAGE, "zstd")
    kept: dict[str, Any] = {"prepare": earlier_image, "sights": ONE_OF_BOTH}
    named: dict[str, Any] = {"nameless": False}
    modest: dict[str, Any] = {"exchanges": False, **named}
    return [
        Scenario(
            name="save into a descriptor",
            guarded=True,
            act=partial(put_into_descriptor, "zstd"),
            prepare=earlier_image,
            sights=IN_PLACE,
        ),
        Scenario(
            name="save a domain over an image", steady=False, guarded=True, act=partial(put_by_libvirt, "zstd"), **kept
        ),
        Scenario(name="convert over an image", act=partial(change, SOURCE, "zstd"), prepare=both, sights=ONE_OF_BOTH),
        Scenario(
            name="convert onto a device",
            act=partial(change, SOURCE, "zstd"),
            prepare=source_image,
            sights=IN_PLACE,
            on_device=True,
        ),
        Scenario(name="edit a sector", barriers=1, act=pause, same_stream=True, **kept),
        Scenario(name="edit by a new file", act=lengthen, same_stream=True, **kept),
        Scenario(name="save over an image by a temporary name", guarded=True, act=partial(put, "zstd"), **named, **kept),
        Scenario(name="save over an image without exchange", guarded=True, act=partial(put, "zstd"), **modest, **kept),
        Scenario(name="convert in place without exchange", act=in_place, same_stream=True, **modest, **kept),
    ]
