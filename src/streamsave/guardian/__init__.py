"""The guardian: a small process that frees the guest when the process that saves it dies.

``save`` starts it before it stops the guest, and tells it to go when the guest is free again. If ``save`` dies in between,
by ``kill -9`` or by a crash, the guardian decides by the disk: the image is at its destination, then it exists and ``then``
is carried out; or it is not, then the guest runs on and the temporary file goes. It speaks on the monitor connection that it
inherited, which is free of the race for a new one. A ``restore`` has it end the QEMU that waits for the rest of a stream.

It wakes by the end of its parent, from two sides: the parent's end of a socketpair closes, and its process descriptor
becomes readable. Neither happens while a thread of the parent hangs in a disk, so it also looks for a SIGKILL that the
parent cannot die of yet. Its own death harms nobody. It does not survive the kill of a whole control group.

The child imports next to nothing, so that it is ready in a few hundredths of a second and takes little memory.

``parent`` is the side of the process that is watched, ``child`` the guardian itself, ``plan`` what they agree on.
"""
