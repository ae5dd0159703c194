"""Fixtures of all suites."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

settings.register_profile("driftgate", deadline=None)  # that a busy machine is slow is no finding
settings.load_profile("driftgate")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For `pytest -n 2 --dist loadgroup`: what shares a gateway runs in one process.

    All that is run on both transports shares one of each; beside that, no file shares anything with another.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        arguments = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        item.add_marker(pytest.mark.xdist_group(str(arguments.get("transport", item.path.stem))))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Thousands of tests and what they import are half a million objects, and never garbage.

    A full collection looked at them all for 0.3 s, in the midst of a load, whose clients saw their answers come late.
    """
    gc.collect()
    gc.freeze()
