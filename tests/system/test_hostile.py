"""An image is data from outside. Whoever made it gets no command run, no byte to a terminal, and no memory but a little."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from streamsave.codecs.registry import codecs, find_codec
from streamsave.format.description import GuestDescription, SavedCommand, encode_description
from streamsave.format.header import MAX_DATA_SIZE, POINTER_SIZE, Header, encode_header
from streamsave.format.index import FRAMES, IndexPointer, encode_pointer
from streamsave.format.metadata import Metadata
from streamsave.printable import PrintableBytes, escape
from streamsave.units import GiB, KiB, MiB

from ..kit.cli import streamsave
from ..kit.images import head_of
from ..kit.missing import require_tools

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny.raw.save"
STREAM = GOLDEN.read_bytes()[67148:]
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\x00\r"
"""Clear the screen, set the title, colours in one byte, right to left, and over what stands there."""
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\r", "\x00")


def image_of(
    path: Path,
    payload: bytes = STREAM,
    *,
    codec: str = "raw",
    xml: str = "<domain><name>x</name></domain>",
    pointer: bytes = bytes(POINTER_SIZE),
) -> Path:
    path.write_bytes(head_of(codec, Metadata(xml), pointer) + payload)
    return path


# Terminals


def xml_of(name: str) -> str:
    """As an attacker writes it: with what XML itself allows as a reference."""
    system = f"<os><type arch='{name}' machine='{name}'/></os>"
    return f"<domain type='{name}'><name>{name}</name><uuid>{name}</uuid>{system}</domain>"


NAMES = "&#x9b;31m&#x202e;evil&#xd;&#x85;"


@pytest.mark.parametrize(
    "arguments",
    [["info"], ["verify"], ["info", "--xml"], ["convert", "--format", "gzip"], ["edit"], ["restore", "--qmp", "x\x1b[2J"]],
    ids=lambda a: " ".join(a[:2]).replace("\x1b", ""),
)
def test_nothing_reaches_the_terminal_raw(arguments: list[str], tmp_path: Path) -> None:
    """On a real terminal: names, paths, XML; results and errors."""
    path = image_of(tmp_path / "a\x1b[2J\x9b\u202e.save", xml=xml_of(NAMES) + "<!--\x1b[2J\x07\x9b\u202e-->")
    verb, *options = arguments
    more = [str(tmp_path / "b\x1b[2J.save")] if verb == "convert" else []
    shown = on_a_terminal([sys.executable, "-m", "streamsave.cli", verb, str(path), *more, *options])
    assert shown.strip(), "it said something"
    assert not any(char in shown.replace("\r\n", "\n") for char in OBEYED), repr(shown)


def on_a_terminal(command: Sequence[str]) -> str:
    """What a terminal gets of both outputs."""
    ours, theirs = pty.openpty()
    got = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                got.extend(data)
        except OSError:
            pass  # as Linux ends it

    thread = threading.Thread(target=read)
    thread.start()
    try:
        env = {**os.environ, "EDITOR": "false", "TERM": "dumb"}  # a bar has escapes of its own
        subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, timeout=60, check=False, env=env)
    finally:
        os.close(theirs)
        thread.join(10)
        os.close(ours)
    return got.decode("utf-8", "surrogateescape")


def test_what_qemu_repeats_out_of_a_stream(tmp_path: Path, qemu: str) -> None:
    """QEMU names a section that it does not know; its own message passes through us."""
    name = b"\x1b[2J\x1b]0;owned\x07\xc2\x9b31m"
    section = b"\x01" + struct.pack(">I", 0) + bytes([len(name)]) + name + struct.pack(">II", 0, 4)
    machine = STREAM[8 : 8 + 5 + struct.unpack(">I", STREAM[9:13])[0]]
    path = image_of(tmp_path / "x.save", STREAM[:8] + machine + section + bytes(100))
    command = [qemu, "-nodefaults", "-display", "none", "-machine", machine[5:].decode(), "-m", "16M"]
    shown = on_a_terminal([sys.executable, "-m", "streamsave.cli", "restore", str(path), "--", *command])
    assert "\\x1b]0;owned\\x07\\x9b31m" in shown, shown
    assert not any(char in shown.replace("\r\n", "\n") for char in OBEYED), repr(shown)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_pieces_of_any_size_are_made_printable(size: int) -> None:
    text = "gr\u00fc\u00dfe\tund\n" + ESCAPES
    data = text.encode() + b"\xff\xc2"
    printable = PrintableBytes()
    shown = b"".join(printable.escape(data[at : at + size]) for at in range(0, len(data), size)).decode()
    assert shown == escape(text, keep="\n\t") + "\\udcff"


# Commands


@pytest.fixture
def trap(tmp_path: Path) -> tuple[Path, Path]:
    """An image whose saved command makes a file, and that file."""
    made = tmp_path / "made"
    command = SavedCommand(("sh", "-c", f"touch {made}"), str(tmp_path))
    guest = GuestDescription("x", "", MiB, 1, "pc", "x86_64", "kvm", command)
    return image_of(tmp_path / "trap.save", xml=encode_description(guest)), made


@pytest.mark.parametrize(
    "arguments",
    [
        ("info",), ("info", "--json"), ("verify",), ("restore", "--qmp", "none"), ("restore", "--", "false"),
        ("restore", "--use-saved-command"), ("convert", "--format", "gzip"), ("edit", "--paused"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_is_taken_from_an_image(arguments: tuple[str, ...], trap: tuple[Path, Path], tmp_path: Path) -> None:
    image, made = trap
    verb, *options = arguments
    more = [tmp_path / "new.save"] if verb == "convert" else []
    streamsave(verb, image, *more, *options)
    assert not made.exists()


def test_a_command_that_was_agreed_to(trap: tuple[Path, Path]) -> None:
    """So the trap works."""
    image, made = trap
    streamsave("restore", image, "--use-saved-command", "--yes")
    assert made.exists()


# XML

LAUGHS = "<!DOCTYPE domain [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{'&' + chr(97 + n) + ';'!s}{('&' + chr(97 + n) + ';') * 9}'>" for n in range(20)
)
XMLS = {
    "a billion laughs": LAUGHS + "]><domain><name>&u;</name></domain>",
    "a file": "<!DOCTYPE d [<!ENTITY f SYSTEM 'file:///etc/passwd'>]><domain><name>&f;</name></domain>",
    "the network": "<!DOCTYPE d SYSTEM 'http://127.0.0.1:9/x.dtd'><domain><name>n</name></domain>",
    "parameters": "<!DOCTYPE d [<!ENTITY % p SYSTEM 'file:///etc/passwd'>%p;]><domain><name>n</name></domain>",
    "deep": "<a>" * 500_000,
    "wide": "<domain " + " ".join(f"a{n}='1'" for n in range(300_000)) + "/>",
    "long names": "<domain><name>" + "x" * (12 * MiB) + "</name></domain>",
    "inclusions": "<domain xmlns:x='http://www.w3.org/2001/XInclude'><x:include href='/etc/passwd' parse='text'/></domain>",
}


@pytest.mark.parametrize("what", XMLS)
def test_xml_is_read_without_entities_files_or_network(what: str, tmp_path: Path) -> None:
    path = image_of(tmp_path / "x.save", xml=XMLS[what])
    result, peak = within(["info", path, "--json"])
    assert result.returncode == 0, result.stderr
    assert "root:" not in result.stdout.replace(XMLS[what], "")
    assert peak < 250 * MiB
    result, peak = within(["info", path])
    assert result.returncode == 0, result.stderr
    assert peak < 250 * MiB


# Memory

LIMIT = 900 * MiB
"""Of address space: some 400 MiB are libraries, stacks and buffers that are reserved."""


def within(arguments: Sequence[str | Path], timeout_s: float = 100) -> tuple[subprocess.CompletedProcess[str], int]:
    """A run that cannot have more than ``LIMIT``, and the memory that it really used at its most, in bytes."""
    script = (
        "import os, resource, subprocess, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))\n"
        "status = subprocess.call([sys.executable, '-m', 'streamsave.cli', *sys.argv[1:]])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=open(os.environ['PEAK'], 'w'))\n"
        "sys.exit(status)\n"
    )
    read_fd, write_fd = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PEAK": f"/proc/self/fd/{write_fd}"},
            pass_fds=[write_fd],
        )
        peak = int(os.read(read_fd, 64)) * KiB
    finally:
        os.close(read_fd)
        os.close(write_fd)
    return done, peak


def bomb(name: str, size: int) -> bytes:
    """So many zeros, as the stock tool packs them."""
    codec = find_codec(name)
    require_tools(codec.tool[0])
    with subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as zeros:
        packed = subprocess.run([*codec.tool], stdin=zeros.stdout, capture_output=True, check=True).stdout
    assert len(packed) < size // 50
    return packed


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, codec in codecs().items() if codec.tool])
def test_a_payload_that_swells(name: str, tmp_path: Path) -> None:
    """More than the process may have at all; it never holds more than the few pieces that are under way."""
    path = image_of(tmp_path / "x.save", bomb(name, 1 * GiB), codec=name)
    result, peak = within(["verify", path, "--threads", "2"])
    assert result.returncode in range(10, 20), result.stderr
    assert "MemoryError" not in result.stderr
    assert peak < 300 * MiB, peak
    print(f"{name}: {path.stat().st_size} bytes for 1 GiB, {peak >> 20} MiB at the most")


HUGE = struct.pack("<I", 0xFFFFFFF0)
CRAFTED: dict[str, tuple[str, bytes]] = {
    "zstd: a frame that says 2^60": ("zstd", b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + bytes(100)),
    "zstd: a window of 3 GiB": ("zstd", b"\x28\xb5\x2f\xfd\x00\xad" + bytes(100)),
    "zstd: a skippable frame of 4 GiB": ("zstd", b"\x50\x2a\x4d\x18" + HUGE + bytes(100)),
    "zstd: ours, of 4 GiB": ("zstd", b"\x50\x2a\x4d\x18\x04\0\0\0" + HUGE + b"\x28\xb5\x2f\xfd\xa0" + HUGE + bytes(100)),
    "gzip: a member that says 4 GiB": (
        "gzip",
        b"\x1f\x8b\x08\x04" + bytes(4) + b"\0\xff\x0c\0SS\x08\0" + HUGE * 2 + bytes(99),
    ),
    "gzip: a name without an end": ("gzip", b"\x1f\x8b\x08\x08" + bytes(4) + b"\0\xff" + b"n" * (8 * MiB)),
    "xz: a block that says 2^60": ("xz", b"\xfd7zXZ\0\0\4\xe6\xd6\xb4F\x03\xc0" + b"\xff" * 8 + b"\x7f" + bytes(100)),
    "xz: a filter in its header's checksum": (
        "xz",
        b"\xfd7zXZ\0\0\1\x69\x22\xde\x36" + bytes.fromhex("0301040a381d0000000000007d542101") + bytes(100),
    ),
    "lzop: a block of 4 GiB": ("lzop", b"\x89LZO\0\r\n\x1a\n" + bytes(40) + HUGE * 4),
    "bzip2: nothing but a magic": ("bzip2", b"BZh9" + b"\x31\x41\x59\x26\x53\x59" + b"\xff" * 1000),
    "lz4: a block of 2 GiB": ("lz4", b"\x04\x22\x4d\x18\x64\x70\xb9" + HUGE + bytes(100)),
    "snappy: chunks of 16 MiB": ("snappy", b"\xff\x06\0\0sNaPpY" + b"\x00\xff\xff\xff" * 1000),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_sizes_are_not_believed(what: str, tmp_path: Path) -> None:
    name, payload = CRAFTED[what]
    path = image_of(tmp_path / "x.save", payload, codec=name)
    result, peak = within(["verify", path, "--threads", "2"])
    assert result.returncode in range(10, 20), result.stderr
    assert "MemoryError" not in result.stderr
    assert peak < 300 * MiB, peak


def record(kind: int, body: bytes, flags: int = 0) -> bytes:
    data = struct.pack("<HHQ", kind, flags, len(body)) + body
    return data + struct.pack("<I", zlib.crc32(data))


INDEXES: dict[str, Callable[[], tuple[bytes, IndexPointer | None]]] = {
    "beyond the file": lambda: (b"", IndexPointer(1 << 60, 1 << 60)),
    "as long as a number can be": lambda: (b"", IndexPointer(0, (1 << 64) - 1)),
    "a record of 2^63 bytes": lambda: (struct.pack("<HHQ", 2, 0, 1 << 63) + bytes(100), None),
    "frames without number": lambda: (record(FRAMES, struct.pack("<Q", 1 << 40) + bytes(64)), None),
    "ten million records": lambda: (record(99, b"") * 1_000_000, None),
    "twenty million frames": lambda: (record(FRAMES, struct.pack("<Q", MiB) + b"\1\0\0\0\0\0\0\0" * 4_000_000), None),
    "64 MiB of nothing": lambda: (bytes(64 * MiB), None),
}


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_that_lies(what: str, tmp_path: Path) -> None:
    """It only helps: the image is read without it, or refused, in a little memory."""
    index, pointer = INDEXES[what]()
    pointer = pointer or IndexPointer(len(STREAM), len(index))
    path = image_of(tmp_path / "x.save", STREAM + index, pointer=encode_pointer(pointer))
    for verb in ("info", "verify"):
        result, peak = within([verb, path])
        assert result.returncode == 0 or result.returncode in range(10, 20), result.stderr
        assert "MemoryError" not in result.stderr
        assert peak < 500 * MiB, (verb, peak)


def test_metadata_as_long_as_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "x.save"
    head = encode_header(Header(complete=True, data_size=MAX_DATA_SIZE, was_running=True, format=0))
    path.write_bytes(head + b"<" * (MAX_DATA_SIZE - 1) + b"\0")
    result, peak = within(["info", path])
    assert result.returncode == 0, result.stderr
    assert peak < 250 * MiB
    for size in (MAX_DATA_SIZE + 1, 0xFFFFFFFF):
        path.write_bytes(head[:20] + struct.pack("<I", size) + head[24:] + bytes(100))
        result, peak = within(["info", path])
        assert result.returncode == 14
        assert peak < 100 * MiB
