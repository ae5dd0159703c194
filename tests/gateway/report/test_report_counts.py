"""From bins of any kind to what is drawn: no row is lost or made, and one value flattens nothing."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.drift_answers import fine_bins

from gateway.control.feature_answers import numeric_bins
from gateway.report.axis import Axis, Warp
from gateway.report.cards import card
from gateway.report.counts import (
    CUT,
    NumericCounts,
    beyond,
    fitting_axis,
    in_steps,
    integers,
    numeric_counts,
    step_count,
)
from gateway.report.histogram import axis_note
from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb
from runtime.sketch.exponential import ExponentialHistogram

RANDOM = np.random.default_rng(5)


def counts_of(reference: Any, live: Any) -> NumericCounts:
    found = numeric_counts(fine_bins(np.asarray(reference, float), np.asarray(live, float)))
    assert found is not None
    return found


def bins(*found: tuple[float, float, int, int]) -> list[pb.FeatureBin]:
    return [pb.FeatureBin(low=low, high=high, live=live, reference=ref) for low, high, live, ref in found]


def _gateways_bins(reference: Any, live: Any) -> list[pb.FeatureBin]:
    return numeric_bins(ExponentialHistogram.of(live), ExponentialHistogram.of(reference))


def test_bins_of_the_rest_do_not_stretch_the_axis() -> None:
    """The gateway's first and last bins reach to the extremes; where in them the rows are nobody knows."""
    values = RANDOM.standard_cauchy(50_000)
    found = numeric_counts(_gateways_bins(values, values[:5_000]))
    assert found is not None
    axis = fitting_axis(found)
    assert -30 < axis.low < -3
    assert 3 < axis.high < 30
    before, after = beyond(found, found.reference, axis)
    assert before == pytest.approx((values < axis.low).mean(), abs=0.01)
    assert after == pytest.approx((values > axis.high).mean(), abs=0.01)
    assert re.search(r"Further left, to -[\d,]+: [\d.]+ % of live rows, [\d.]+ % of the reference\.", axis_note(found))


NORMAL = RANDOM.normal(0, 1, 20_000)


@pytest.mark.parametrize(
    ("reference", "live", "warp"),
    [
        (NORMAL, NORMAL + 0.5, Warp.LINEAR),
        (RANDOM.uniform(0, 1, 5_000), RANDOM.uniform(0, 1, 500), Warp.LINEAR),
        (RANDOM.lognormal(0, 2, 5_000), RANDOM.lognormal(0, 2, 500), Warp.LOG),
        (np.exp(NORMAL * 0.3), 1000 * np.exp(NORMAL * 0.3), Warp.LOG),
        (NORMAL, NORMAL * 1000, Warp.BOTH_WAYS),
        (RANDOM.standard_cauchy(20_000), RANDOM.standard_cauchy(900), Warp.BOTH_WAYS),
        (np.append(NORMAL, 1e300), NORMAL, Warp.LINEAR),
    ],
    ids=["shift", "uniform", "decades", "unit", "signed unit", "cauchy", "one outlier"],
)
def test_an_axis_shows_both_samples(reference: Any, live: Any, warp: Warp) -> None:
    counts = counts_of(reference, live)
    axis = fitting_axis(counts)
    assert axis.warp is warp
    for side in counts.sides:
        shares = in_steps(counts, side, axis, step_count(counts))
        assert shares.sum() >= 1 - 2 * CUT - 0.01  # what is drawn
        assert shares.max() < 0.5  # and not as one step
        middle = [axis.place(counts.quantile(side, q)) for q in (0.05, 0.95)]
        assert middle[1] - middle[0] > 0.1


def test_steps_are_the_counts_of_the_values() -> None:
    reference, live = RANDOM.normal(50, 5, 50_000), RANDOM.normal(52, 6, 20_000)
    counts = counts_of(reference, live)
    axis = Axis(30.0, 70.0)
    for values, side in ((reference, counts.reference), (live, counts.live)):
        true = np.histogram(values, 20, (30, 70))[0] / len(values)
        assert np.abs(in_steps(counts, side, axis, 20) - true).max() < 0.006  # buckets are 2 % wide, steps 4 %


def test_bins_that_a_reference_fixed_do_as_well() -> None:
    edges = [-math.inf, *np.quantile(NORMAL, np.linspace(0.05, 0.95, 19)), math.inf]
    found = numeric_counts(bins(*((edges[at], edges[at + 1], 50, 1_000) for at in range(20))))
    assert found is not None
    axis = fitting_axis(found)
    assert axis.low < -1.6 < 1.6 < axis.high
    shares = in_steps(found, found.reference, axis, 20)
    assert shares[9] > 3 * shares[1]  # density, not the equal shares of the bins


@pytest.mark.parametrize(
    ("values", "are"),
    [
        ([0, 1, 1, 0], True),
        ([-2, -1, 0, 3, 7], True),
        ([7.0], True),
        (range(1, 12), True),
        ([0.5, 1, 2], False),
        (range(1, 40), False),
        ([-0.5, 1], False),
        ([0.99, 2, 3], False),
        ([1.99, 4], False),
        ([1000, 1001], False),
        ([1e12, 5], False),
    ],
)
@pytest.mark.parametrize("make", [fine_bins, _gateways_bins], ids=["fine", "gateway's"])
def test_few_integers_are_told_from_other_values(values: Any, are: bool, make: Any) -> None:
    live = np.array([*values], float)
    reference = np.repeat(live, 3)
    found = numeric_counts(make(reference, live))
    assert found is not None
    assert integers(found, live.mean(), reference.mean()) == (sorted(set(map(int, values))) if are else [])
    assert integers(found, live.mean(), None) == []


def test_nothing_to_draw_is_none() -> None:
    nan = pb.FeatureBin(low=math.nan, high=1, live=3)
    assert numeric_counts([]) is None
    assert numeric_counts([*bins((0, 1, 0, 0)), nan, pb.FeatureBin(category="a", live=3)]) is None
    assert numeric_counts(bins((-math.inf, math.inf, 3, 3))) is None


ANY = st.floats(allow_nan=True, allow_infinity=True)
ROWS = st.integers(0, 2**40)


@given(st.lists(st.tuples(ANY, ANY, ROWS, ROWS), max_size=8))
def test_whatever_comes_is_drawn_or_said_to_be_nothing(found: list[tuple[float, float, int, int]]) -> None:
    """Wrong order, overlaps, subnormals, the largest numbers, infinity, NaN: a card, without NaN in its picture."""
    shown = card(pb.Feature(name="f", kind="numeric", bins=bins(*found)), None)
    assert shown.plot is None or "nan" not in str(shown.plot).lower().replace("nan:", "")
    assert shown.plot is None or "inf" not in str(shown.plot).lower()


@given(st.lists(FINITE := st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30), st.lists(FINITE))
def test_any_values_of_two_samples_are_drawn(reference: list[float], live: list[float]) -> None:
    feature = pb.Feature(name="f", bins=fine_bins(np.array(reference), np.array(live, float)))
    shown = card(feature, None)
    assert shown.plot is not None
    assert "nan" not in str(shown.plot).lower()
