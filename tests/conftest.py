"""Hypothesis profiles: ``default`` for every run, ``fuzz`` for ``make fuzz``.

A test that sets ``max_examples`` itself keeps its own number in every profile.
"""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=100, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=10_000)
settings.load_profile("default")
