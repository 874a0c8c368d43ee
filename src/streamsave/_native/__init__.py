"""The compiled module: ``ffi`` and ``lib``. Only the modules of this package use them."""

from ._ffi import ffi as ffi
from ._ffi import lib as lib
