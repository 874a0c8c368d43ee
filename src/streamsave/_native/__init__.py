"""The compiled module: ``ffi`` and ``lib``. Only ``calls`` uses them."""

from ._ffi import ffi as ffi
from ._ffi import lib as lib
