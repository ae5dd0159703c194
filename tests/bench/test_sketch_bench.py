"""The benchmark of sketches compares what was measured in the same round, and measures memory by page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import sketches
from bench.sketches import Case, measure
from runtime.sketch.layout import BlockShape


def test_ratios_are_between_cases_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second case always takes three times as long, on a machine that gets slower from round to round."""
    ticks: Iterator[int] = iter([0, 100, 0, 300, 0, 1000, 0, 3000, 0, 5000, 0, 15000])
    monkeypatch.setattr(sketches.time, "perf_counter_ns", lambda: next(ticks))
    first, second = measure([Case("a", 10, lambda: None), Case("b", 10, lambda: None)], 3)
    assert (first.median_ns, first.least_ns, first.greatest_ns, first.ratio) == (100, 10, 500, 1)
    assert (second.median_ns, second.ratio) == (300, 3)


def test_a_block_takes_no_more_memory_than_is_laid_out_and_less_without_negative_values() -> None:
    size = BlockShape(30, 8).size_bytes
    positive, both = (sketches._resident_bytes(sign, 30, 8) for sign in (1, -1))
    assert positive < both <= size + 4096
