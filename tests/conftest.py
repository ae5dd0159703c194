"""Fixtures of all suites."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

settings.register_profile("driftgate", deadline=None)  # that a busy machine is slow is no finding
settings.load_profile("driftgate")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Thousands of tests and what they import are half a million objects, and never garbage: a full collection looked
    at them all for 0.3 s, in the midst of a load, whose clients saw their answers come late."""
    gc.collect()
    gc.freeze()
