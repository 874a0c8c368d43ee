"""What a caller chooses from, and what holds without a choice: light enough for the command line."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from .units import MiB

Level: TypeAlias = int | Literal["auto"]
"""How much work a codec is to do: one of its levels, or whichever keeps up at the moment."""
AUTO: Final = "auto"
Then: TypeAlias = Literal["quit", "resume", "pause"]
"""What becomes of the guest once its image exists; ``resume`` means back to the state before."""
Transport: TypeAlias = Literal["fd", "unix"]
"""How QEMU gets its end of the socket: a descriptor over the monitor, or a path in a private directory."""
GuestState: TypeAlias = Literal["running", "paused"]
"""What a restored guest does."""
DEFAULT_WINDOW: Final = 128 * MiB
"""How far back zstd data may refer: what ``zstd -d`` allows unless it is told to allow more."""
