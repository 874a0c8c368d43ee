"""All mutations."""

from __future__ import annotations

from .commits import COMMITS
from .disks import DISKS
from .durability import DURABILITY
from .guardians import GUARDIANS
from .guests import GUESTS
from .images import IMAGES
from .indexes import INDEXES
from .levels import LEVELS
from .natives import NATIVES
from .others import OTHERS
from .payloads import PAYLOADS
from .replacing import REPLACING
from .restores import RESTORES
from .streams import STREAMS

MUTATIONS = (
    *DURABILITY,
    *DISKS,
    *REPLACING,
    *GUESTS,
    *COMMITS,
    *RESTORES,
    *GUARDIANS,
    *IMAGES,
    *INDEXES,
    *PAYLOADS,
    *NATIVES,
    *STREAMS,
    *LEVELS,
    *OTHERS,
)
