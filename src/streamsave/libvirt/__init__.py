"""libvirt's domains, saved and restored by libvirt itself through pipes of ours: its jobs, states and events stay true."""
