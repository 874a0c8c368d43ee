"""cffi's out-of-line build: the declarations, the sources and the module's name, and nothing else."""

from pathlib import Path

from cffi import FFI

HERE = Path("native")  # setup.py runs in the project's root, and wants its sources relative to it
ffibuilder = FFI()
ffibuilder.cdef((HERE / "streamsave.cdef").read_text())
ffibuilder.set_source(
    "streamsave._native._ffi",
    '#include "bits.h"\n#include "bzip2_decode.h"\n#include "bzip2_encode.h"\n#include "lzo.h"\n#include "scan.h"',
    sources=sorted(str(path) for path in HERE.glob("*.c")),
    include_dirs=[str(HERE)],
    depends=sorted(str(path) for path in HERE.glob("*.[ch]")),
    extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra"],
    py_limited_api=True,
)
