"""Where values lie on a plot."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.report.axis import MOST_TICKS, Axis, Warp, linear_ticks, tick_text

FINITE = st.floats(-1e307, 1e307)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    warp = draw(st.sampled_from(Warp))
    values = st.floats(1e-300, 1e300) if warp is Warp.LOG else FINITE
    low, high = sorted([draw(values), draw(values)])
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # places of a narrower axis are float64's steps
        high = low + max(abs(low), 1.0)
    near = max(abs(low), abs(high)) * draw(st.floats(1e-9, 0.1))
    return Axis(low, high, warp, max(near, 1e-300))


@given(axes())
def test_ends_are_the_ends_and_ticks_lie_between_them(axis: Axis) -> None:
    assert axis.place(axis.low) == pytest.approx(0, abs=1e-9)
    assert axis.place(axis.high) == pytest.approx(1)
    places = [axis.place(value) for value, _ in axis.ticks()]
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places)
    assert places == sorted(places)
    assert len(places) <= MOST_TICKS + 2


@given(axes(), st.floats(0, 1))
def test_a_place_has_a_value_and_a_value_its_place(axis: Axis, place: float) -> None:
    value = axis.value(place)
    assert axis.place(value) == pytest.approx(place, abs=1e-6)


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis(0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis(-37, 112), ["0", "50", "100"]),
        (Axis(0.2, 9_000, Warp.LOG), ["1", "10", "100", "1k"]),
        (Axis(1e-12, 1e12, Warp.LOG), ["1e-12", "1e-7", "0.01", "1k", "100M"]),
        (Axis(-5_000, 80_000, Warp.BOTH_WAYS, 2.0), ["-100", "0", "100", "10k"]),
        (Axis(2.0, 7.0, Warp.LOG), ["2", "3", "4", "5", "6", "7"]),
    ],
)
def test_ticks_are_round(axis: Axis, labels: list[str]) -> None:
    assert [label for _, label in axis.ticks()] == labels


@given(st.floats(-1e300, 1e300), st.floats(1e-6, 1e6))
def test_linear_ticks_are_evenly_spaced(low: float, width: float) -> None:
    ticks = linear_ticks(low, low + width * max(abs(low), 1))
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)


@pytest.mark.parametrize(
    ("low", "high", "warp"),
    [(1, 1, Warp.LINEAR), (2, 1, Warp.LINEAR), (math.nan, 1, Warp.LINEAR), (0, math.inf, Warp.LINEAR),
     (0, 1, Warp.LOG)],
)  # fmt: skip
def test_what_is_no_axis_is_refused(low: float, high: float, warp: Warp) -> None:
    with pytest.raises(ValueError, match="expected"):
        Axis(low, high, warp)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1_000, "1k"), (1_500, "1,500"), (12_500, "12.5k"), (2.5e6, "2.5M"), (3e9, "3G"), (-2e4, "-20k"),
     (0.00001, "1e-5"), (1e15, "1e+15")],
)  # fmt: skip
def test_ticks_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text
