"""How long an example takes on a busy machine says nothing about what it shows."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("streamsave", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("streamsave")
