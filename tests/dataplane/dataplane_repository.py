"""The repository that the data-plane suite is run on: the whole zoo, and models with versions, labels and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from bad_models import write_bad
from zoo import built, slow, versioned, write_repository, write_version

VERSIONS = {1: 1.0, 2: 2.0, 10: 10.0}
"""Version → k of the model `versions`: y = x + k."""
LABELS = {"stable": 2, "canary": 10}
CRAWL_STEPS = 300_000
"""About a second a run, which a busy machine cannot confuse with none; it is not warmed up."""
QUEUE_REQUESTS = 4
"""Requests that may wait for `crawl` and for `endless`, which run one at a time."""

ONE_AT_A_TIME: dict[str, Any] = {
    "warmup": {"enabled": False},
    # The delay, which does nothing without rows, gives them a thread of their own from the first request.
    "batching": {"max_batch_size": 0, "max_queue_delay_seconds": 0.001, "max_queue_requests": QUEUE_REQUESTS},
}
MANIFESTS: dict[str, dict[str, Any]] = {
    "versions": {"versions": "all", "labels": LABELS, "default": "stable"},
    "newest": {"versions": "all"},
    "narrow": {"batching": {"max_batch_size": 4}},
    "crawl": ONE_AT_A_TIME,
    "endless": ONE_AT_A_TIME,
}


def write_dataplane_repository(root: Path) -> Path:
    """Beside the zoo: versions, newest, narrow, crawl, endless, spare (to be unloaded), broken (never loads)."""
    write_repository(root)
    for version, k in VERSIONS.items():
        write_version(root, "versions", version, versioned(k))
    for version in (2, 9, 10):
        write_version(root, "newest", version, versioned(version))
    write_version(root, "narrow", 1, versioned(0.5))
    write_version(root, "spare", 1, versioned(7.0))
    write_version(root, "crawl", 1, slow(CRAWL_STEPS))
    write_bad(root, "endless")
    write_bad(root, "truncated", model="broken")
    for model, manifest in MANIFESTS.items():
        (root / model / "model.yaml").write_text(yaml.safe_dump(manifest))
    return root


def write_small_repository(root: Path) -> Path:
    """One quick model and one slow one, for gateways that live for a few tests."""
    write_version(root, "add_const", 1, built("add_const"))
    write_version(root, "crawl", 1, slow(CRAWL_STEPS))
    (root / "crawl" / "model.yaml").write_text(yaml.safe_dump(MANIFESTS["crawl"]))
    return root
