"""All mutations."""

from __future__ import annotations

from .durability import DURABILITY
from .images import IMAGES
from .payloads import PAYLOADS
from .streams import STREAMS

MUTATIONS = (*DURABILITY, *IMAGES, *PAYLOADS, *STREAMS)
