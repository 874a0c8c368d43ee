"""The registry: its words, and codecs from other packages, good and bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamsave.codecs import registry
from streamsave.errors import FormatError, UnsupportedImageError
from streamsave.format.save_format import SaveFormat

from .golden import ours

OUTSIDE = Path(__file__).parent / "outside"
NAMES = [codec.name for codec in ours()]
LACKING = [number for number in SaveFormat if number.word not in NAMES]

LONGEST = "a_name_of_24_characters_"
LONG = LONGEST + "s"
REPORT = f"""
import json
LONG = {LONG!r}
from streamsave.codecs.registry import codecs, codec_by_number, find_codec

def ask(name):
    try:
        return type(find_codec(name)).__module__
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}} <- {{type(error.__cause__).__name__}}"

print(json.dumps({{
    "names": list(codecs()),
    "listed zstd": type(codecs()["zstd"]).__module__,
    "number 40": ask(codec_by_number(40).name),
    "number 5": ask(codec_by_number(5).name),
    **{{name: ask(name) for name in ("zstd", "later", "absent", "silent", "path", "liar", "thief", "late", LONG, "größe")}},
}}))
"""


def run_with(path: Path, *arguments: str) -> str:
    """Our interpreter, with what lies in ``path`` installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ours_come_in_libvirts_order() -> None:
    numbers = [codec.number for codec in ours()]
    libvirts = [number for number in numbers if number is not None]
    assert numbers[: len(libvirts)] == libvirts == sorted(libvirts)
    for codec in ours():
        assert codec.number is None or SaveFormat(codec.number).word == codec.name


def test_a_codec_is_found_by_name_and_by_number() -> None:
    for name, codec in registry.codecs().items():
        assert codec.name == name
        assert registry.find_codec(name) is codec
        if codec.number is not None:
            assert registry.codec_by_number(codec.number) is codec


def test_sparse_is_no_compression_and_stays_libvirts_alone() -> None:
    assert LACKING == [SaveFormat.SPARSE]
    with pytest.raises(FormatError, match=r"sparse is written by QEMU itself into a seekable file.*choose one of") as caught:
        registry.find_codec("sparse")
    assert caught.value.name == "sparse"
    assert list(caught.value.known[: len(NAMES)]) == NAMES


@pytest.mark.parametrize("name", ["", "ZSTD", "zst", "gzip ", "base", "registry", "../raw"])
def test_an_unknown_word_is_told_from_those(name: str) -> None:
    with pytest.raises(FormatError, match=f"there is no format .*choose one of {', '.join(NAMES)}") as caught:
        registry.find_codec(name)
    assert caught.value.name == name


@pytest.mark.parametrize("number", LACKING)
def test_a_number_that_only_libvirt_knows_is_named(number: SaveFormat) -> None:
    with pytest.raises(UnsupportedImageError, match=rf"{number.word} \(number {int(number)}\).*convert the file"):
        registry.codec_by_number(number)


@pytest.mark.parametrize("number", [7, 99, 2**32 - 1])
def test_a_number_that_nobody_knows_is_told(number: int) -> None:
    with pytest.raises(UnsupportedImageError, match=f"format number {number}"):
        registry.codec_by_number(number)


def test_another_package_adds_a_codec() -> None:
    told = json.loads(run_with(OUTSIDE, "-c", REPORT))
    assert told["names"] == [*NAMES, "later"]
    assert told["later"] == told["number 40"] == "streamsave_later"


def test_the_contract_covers_it() -> None:
    listed = run_with(OUTSIDE, "-m", "pytest", "--collect-only", "-q", str(Path(__file__).with_name("test_codec.py")))
    assert "test_contract[later-round_trips_every_size]" in listed
    assert "test_golden_frames_decode[later]" not in listed


def test_a_broken_package_matters_only_to_its_own_format(tmp_path: Path) -> None:
    (tmp_path / "bad_codecs.py").write_text(
        "from streamsave.codecs.raw import Raw\n"
        "class Thief(Raw): name, number = 'thief', 5\n"
        "class Sparse(Raw): name, number = 'sparse', 6\n"
        "class Zstd(Raw): name, number = 'zstd', None\n"
        "class First(Raw): name, number = 'first', 41\n"
        "class Late(Raw): name, number = 'late', 41\n"
        "class Silent(Raw):\n    def __init__(self): raise OSError('no hardware')\n"
        f"class Longest(Raw): name, number = {LONGEST!r}, None\n"
        f"class Long(Raw): name, number = {LONG!r}, None\n"
        "class Size(Raw): name, number = 'größe', None\n"
        "instance = type('Instance', (Raw,), {'name': 'instance', 'number': None})()\n"
    )
    metadata = tmp_path / "bad-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    words = {
        "absent": "no_such_module:Codec",
        "silent": "bad_codecs:Silent",
        "path": "os:path",
        "liar": "bad_codecs:Thief",
        "thief": "bad_codecs:Thief",
        "sparse": "bad_codecs:Sparse",
        "zstd": "bad_codecs:Zstd",
        "first": "bad_codecs:First",
        "late": "bad_codecs:Late",
        "instance": "bad_codecs:instance",
        LONGEST: "bad_codecs:Longest",
        LONG: "bad_codecs:Long",
        "größe": "bad_codecs:Size",
        "later": "streamsave_later:Later",
    }
    (metadata / "entry_points.txt").write_text(
        "[streamsave.codecs]\n" + "".join(f"{name} = {value}\n" for name, value in words.items())
    )
    (tmp_path / "streamsave_later.py").write_text((OUTSIDE / "streamsave_later.py").read_text())

    told = json.loads(run_with(tmp_path, "-c", REPORT))

    others = [LONGEST, "first", "instance", "later"]
    assert told["names"] == [*NAMES, *others]
    assert told["zstd"] == told["listed zstd"] == told["number 5"] == "streamsave.codecs.zstd"
    assert told["later"] == "streamsave_later"
    assert told["absent"].startswith(
        "FormatError: format absent of bad (no_such_module:Codec) does not load: ModuleNotFound"
    )
    assert told["absent"].endswith(f"choose one of {', '.join([*NAMES, *others])} <- ModuleNotFoundError")
    assert "does not load: OSError: no hardware" in told["silent"]
    assert "is not a streamsave codec" in told["path"]
    assert "calls itself thief" in told["liar"]
    assert "claims number 5" in told["thief"]
    assert "claims number 41" in told["late"]
    for name in (LONG, "größe"):
        assert "needs a name of at most 24 ASCII characters" in told[name]


def test_finding_one_of_ours_costs_no_search_and_no_library() -> None:
    loaded = run_with(
        OUTSIDE,
        "-c",
        "import sys\n"
        "from streamsave.codecs.registry import find_codec, codec_by_number\n"
        f"for name in {NAMES}:\n"
        "    number = find_codec(name).number\n"
        "    if number is not None: codec_by_number(number)\n"
        "libraries = {'zstandard', 'isal', 'deflate', 'bz2', '_bz2', 'lzma', '_lzma', 'cramjam', 'lz4', 'xxhash'}\n"
        "print(*{'importlib.metadata', *libraries} & {*sys.modules})",
    )
    assert loaded.split() == []
