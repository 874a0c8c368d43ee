"""The words that a caller chooses from: for the options and, without anything heavy, for the command line."""

from __future__ import annotations

from typing import Literal, TypeAlias

Then: TypeAlias = Literal["quit", "resume", "pause"]
"""What becomes of the guest once its image exists; ``resume`` means back to the state before."""
Transport: TypeAlias = Literal["fd", "unix"]
"""How QEMU gets its end of the socket: a descriptor over the monitor, or a path in a private directory."""
GuestState: TypeAlias = Literal["running", "paused"]
"""What a restored guest does."""
