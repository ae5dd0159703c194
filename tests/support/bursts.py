"""A burst's figures, for what is made of them."""

from __future__ import annotations

from typing import Any

from bench.sample import Burst

FIGURES: dict[str, Any] = {
    "requests": 1000,
    "failed": 0,
    "reply_bytes": 0,
    "requests_per_second": 1.0,
    "p50_ms": 1.0,
    "p90_ms": 1.0,
    "p99_ms": 1.0,
    "p999_ms": 1.0,
    "longest_ms": 1.0,
    "statuses": {0: 1000},
    "distinct_replies": 1,
    "offered": 1000,
}


def burst(**changes: Any) -> Burst:
    return Burst(**FIGURES | changes)
