"""Fixtures of all suites."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("driftgate", deadline=None)  # that a busy machine is slow is no finding
settings.load_profile("driftgate")
