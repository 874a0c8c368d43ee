"""A format of a later libvirt, as another package would add it: one class and one entry point (beside this file).

It is gzip under another number. What a codec of one's own takes is best seen in ``streamsave.codecs``.
"""

from __future__ import annotations

from streamsave.codecs.gzip import Gzip


class Later(Gzip):
    name = "later"
    number = 40
    summary = "an example"
