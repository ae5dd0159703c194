"""Histograms of what happens rarely and is timed where it happens: loads and swaps of models."""

from __future__ import annotations

import threading

import numpy as np

from gateway.telemetry.snapshot import Distribution
from runtime.shm.series import Words, bounds_seconds
from runtime.shm.series_layout import SCALE, TIME_BUCKETS, TIME_OFFSET

MAX_MODELS = 1024
OVERFLOW = ""
"""The key of what the first MAX_MODELS models left no room for."""


class DurationRecorder:
    """Durations by model, in the same buckets as those of requests. Thread-safe; of bounded size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bounds = bounds_seconds()
        self._kept: dict[str, _Durations] = {}

    def record(self, seconds: float, model: str) -> None:
        """A duration below 0 counts as 0: a clock was set back."""
        bucket = min(int(np.searchsorted(self._bounds, seconds)), TIME_BUCKETS) - 1
        with self._lock:
            if model not in self._kept and len(self._kept) >= MAX_MODELS:
                model = OVERFLOW
            self._kept.setdefault(model, _Durations()).add(max(seconds, 0.0), bucket)

    def distributions(self) -> dict[str, Distribution]:
        """By model."""
        with self._lock:
            return {model: durations.distribution() for model, durations in self._kept.items()}


class _Durations:
    def __init__(self) -> None:
        self._counts: Words = np.zeros(TIME_BUCKETS, np.uint64)
        self._zero = 0
        self._total = 0.0
        self._minimum = float("inf")
        self._maximum = 0.0

    def add(self, seconds: float, bucket: int) -> None:
        if bucket < 0:
            self._zero += 1
        else:
            self._counts[bucket] += np.uint64(1)
        self._total += seconds
        self._minimum = min(self._minimum, seconds)
        self._maximum = max(self._maximum, seconds)

    def distribution(self) -> Distribution:
        counts = self._counts.copy()
        return Distribution(counts, self._zero, TIME_OFFSET, SCALE, self._total, self._minimum, self._maximum)
