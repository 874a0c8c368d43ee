"""All mutations."""

from __future__ import annotations

from .durability import DURABILITY
from .guardian import GUARDIAN
from .images import IMAGES
from .payloads import PAYLOADS
from .streams import STREAMS

MUTATIONS = (*DURABILITY, *GUARDIAN, *IMAGES, *PAYLOADS, *STREAMS)
