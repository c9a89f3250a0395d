from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business, not the property's.
settings.register_profile("spikeloop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spikeloop")
