"""The exponential histogram: the guarantee is the test, and the state depends on the values only."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ddsketch.mapping import LogarithmicMapping
from hypothesis import given, settings
from hypothesis import strategies as st
from sketch_samples import DISTRIBUTIONS, SEEDS, SHARES, SIZES

from runtime.sketch.buckets import MAX_SCALE, MIN_SCALE, bounds, relative_error
from runtime.sketch.errors import BadValues, Malformed
from runtime.sketch.exponential import ASIDE, HISTOGRAM_BYTES, ExponentialHistogram, aligned
from runtime.sketch.exponential_kernels import index_of
from runtime.sketch.layout import MOST_COUNTED

Array = npt.NDArray[Any]
FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)
LEAST = 5e-324


def of(*values: float) -> ExponentialHistogram:
    return ExponentialHistogram.of(np.array(values, np.float64))


def state(histogram: ExponentialHistogram) -> bytes:
    return histogram.heads.tobytes() + histogram.buckets.tobytes()


def index(value: float) -> int:
    return int(index_of(int(np.float64(value).view(np.int64))))


def exact_quantiles(values: Array, shares: Array) -> Array:
    ordered = np.sort(values.astype(np.float64))
    return ordered[np.floor(shares * (len(values) - 1)).astype(int)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_every_quantile_is_within_the_relative_error_of_the_exact_one(name: str, size: int) -> None:
    for seed in SEEDS:
        values = DISTRIBUTIONS[name](np.random.default_rng([seed, size]), size)
        histogram = ExponentialHistogram.of(values)
        exact = exact_quantiles(values, SHARES)
        off = np.abs(histogram.quantiles(SHARES).astype(np.longdouble) - exact)
        bound = np.abs(exact.astype(np.longdouble)) * histogram.relative_error * (1 + 1e-12)
        bound += np.longdouble(LEAST) / 2  # a subnormal result is rounded
        assert (off <= bound).all(), (seed, exact, off)
        assert (histogram.minimum, histogram.maximum) == (exact[0], exact[-1])
        assert histogram.finite == size


@pytest.mark.parametrize("size", SIZES)
def test_values_within_sixteen_octaves_are_kept_at_the_finest_scale(size: int) -> None:
    values = np.random.default_rng(size).lognormal(0, 1, size)
    assert ExponentialHistogram.of(values).scale == MAX_SCALE


@given(st.floats(min_value=LEAST, allow_infinity=False))
def test_a_value_lies_in_the_bucket_whose_bounds_hold_it(value: float) -> None:
    """Against rational arithmetic: 2^i < value^32 <= 2^(i + 1)."""
    i = index(value)
    power = Fraction(value) ** (1 << MAX_SCALE)
    assert Fraction(2) ** i < power <= Fraction(2) ** (i + 1)


@pytest.mark.parametrize("bound", range(-40_000, 32_768, 997))
def test_the_floats_around_every_kind_of_bound_fall_on_its_two_sides(bound: int) -> None:
    (at,) = bounds(np.array([bound]), MAX_SCALE)
    for value in (np.nextafter(at, 0), at, np.nextafter(at, np.inf)):
        if 0 < value < np.inf:
            i = index(float(value))
            power = Fraction(float(value)) ** (1 << MAX_SCALE)
            assert Fraction(2) ** i < power <= Fraction(2) ** (i + 1)


@pytest.mark.parametrize("scale", range(MIN_SCALE, MAX_SCALE + 1))
def test_powers_of_two_have_the_index_that_opentelemetry_gives_them(scale: int) -> None:
    for exponent in (-1074, -1022, -5, -1, 0, 1, 2, 10, 1023):
        expected = (exponent << scale) - 1 if scale >= 0 else math.ceil(exponent / (1 << -scale)) - 1
        assert index(math.ldexp(1.0, exponent)) >> (MAX_SCALE - scale) == expected


def test_keys_are_those_of_ddsketch_at_its_accuracy() -> None:
    """DDSketch's key k is index k - 1; its reference implementation uses logarithms."""
    mapping = LogarithmicMapping(relative_error(MAX_SCALE))
    for value in (0.001, 0.5, 1.5, 10.0, 100.0, 1000.0, 12345.678, 3e-9, 7e11):
        assert index(value) == mapping.key(value) - 1


@pytest.mark.parametrize(
    ("value", "key"), [(0.001, -345), (0.5, -34), (1, 0), (1.5, 21), (10, 116), (100, 231), (12345.678, 472)]
)
def test_the_reference_of_ddsketch_gives_the_published_keys(value: float, key: int) -> None:
    assert LogarithmicMapping(0.01).key(value) == key


def test_errors_are_those_of_the_documentation() -> None:
    assert relative_error(5) == pytest.approx(0.01083, abs=5e-6)
    assert relative_error(6) == pytest.approx(0.0054, abs=5e-5)
    alpha = 0.01
    for expected in (0.0199980, 0.0399800, 0.0798324):  # UDDSketch's chain: each collapse squares the base
        alpha = 2 * alpha / (1 + alpha * alpha)
        assert alpha == pytest.approx(expected, abs=5e-8)
    for scale in range(MIN_SCALE, MAX_SCALE):
        fine = relative_error(scale + 1)
        assert relative_error(scale) == pytest.approx(2 * fine / (1 + fine * fine))


@settings(max_examples=150)
@given(st.lists(st.lists(FLOATS, max_size=12), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_order_and_tree_of_merges_gives_the_bytes_of_the_histogram_that_saw_everything(
    parts: list[list[float]], random: Any
) -> None:
    everything = [value for part in parts for value in part]
    random.shuffle(everything)
    whole = of(*everything)
    forest = [of(*part) for part in parts]
    while len(forest) > 1:
        left = forest.pop(random.randrange(len(forest)))
        right = forest.pop(random.randrange(len(forest)))
        left.merge(right)
        forest.append(left)
    assert state(forest[0]) == state(whole)
    one_by_one = ExponentialHistogram()
    for value in everything:
        one_by_one.observe(np.array([value]))
    assert state(one_by_one) == state(whole)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_merged_samples_have_the_bytes_of_the_whole_sample(name: str) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        values = DISTRIBUTIONS[name](rng, 3000)
        merged = ExponentialHistogram()
        for part in rng.permutation(np.array_split(rng.permutation(values), 10)):
            merged.merge(ExponentialHistogram.of(part))
        assert state(merged) == state(ExponentialHistogram.of(values))


def test_what_is_no_finite_number_is_counted_apart_and_moves_no_quantile() -> None:
    histogram = of(1.0, math.nan, math.inf, 2.0, -math.inf, -0.0, -math.nan, math.inf, 0.0)
    assert histogram.aside == {
        "nan": 2, "plus_infinity": 2, "minus_infinity": 1, "missing": 0, "below": 0, "above": 0,
    }  # fmt: skip
    assert (histogram.zero, histogram.finite, histogram.total) == (2, 4, 9)
    assert (histogram.minimum, histogram.maximum) == (0.0, 2.0)
    assert tuple(histogram.aside) == ASIDE


def test_an_empty_histogram_has_no_quantiles() -> None:
    histogram = of(math.nan)
    assert np.isnan([histogram.quantile(0.5), histogram.minimum, histogram.maximum]).all()
    assert len(histogram.cells().counts) == 0


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        of(1.0).quantiles([0.5, 1.1])
    with pytest.raises(ValueError, match="from 0 to 1"):
        of(1.0).quantile(math.nan)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_cells_hold_the_values_in_order(values: list[float]) -> None:
    histogram = of(*values)
    cells = histogram.cells()
    assert int(cells.counts.sum()) == len(values)
    assert (np.diff(cells.positions) > 0).all()
    assert (cells.lower <= cells.upper).all()
    assert (cells.upper[:-1] <= cells.lower[1:]).all()
    ends = cells.cumulative
    ordered = np.sort(values)
    for lower, upper, start, end in zip(cells.lower, cells.upper, ends - cells.counts, ends, strict=True):
        assert (ordered[start:end] >= lower).all()
        assert (ordered[start:end] <= upper).all()


@pytest.mark.parametrize("scale", range(MIN_SCALE, MAX_SCALE + 1))
def test_a_coarsened_histogram_counts_the_same_values_in_wider_buckets(scale: int) -> None:
    fine = ExponentialHistogram.of(np.random.default_rng(scale + 9).normal(size=1000))
    coarse = fine.coarsened(scale)
    assert coarse.scale == min(scale, fine.scale)
    assert (coarse.finite, coarse.minimum, coarse.maximum) == (1000, fine.minimum, fine.maximum)
    expected: dict[int, int] = {}
    for sign in (0, 1):
        low, run = fine.run(sign)
        for offset, count in enumerate(run):
            key = ((low + offset) >> (fine.scale - coarse.scale), sign)
            expected[key] = expected.get(key, 0) + int(count)  # type: ignore[index,call-overload]
    found = {
        (low + offset, sign): int(count)
        for sign in (0, 1)
        for low, run in (coarse.run(sign),)
        for offset, count in enumerate(run)
    }
    assert {key: count for key, count in found.items() if count} == {k: c for k, c in expected.items() if c}
    assert relative_error(coarse.scale) >= relative_error(fine.scale)


def test_a_scale_below_the_least_is_refused() -> None:
    with pytest.raises(ValueError, match="scale of -3 or more"):
        of(1.0).coarsened(MIN_SCALE - 1)


def test_two_histograms_align_over_the_cells_that_either_uses() -> None:
    left, right = of(-3.0, 0.0, 1.0, 1.0), of(1.0, 1e30)
    ours, theirs = aligned(left, right)
    assert ours.scale == theirs.scale == right.scale < left.scale
    assert ours.positions.tolist() == theirs.positions.tolist()
    assert (ours.counts.tolist(), theirs.counts.tolist()) == ([1, 1, 2, 0], [0, 0, 1, 1])


def test_a_full_bucket_stays_full_and_what_it_missed_is_counted() -> None:
    histogram = of(1.0, 1.0, 5.0)
    full = histogram.copy()
    full.heads[0, 0] += MOST_COUNTED - 2
    full.buckets[0, 0, -1] = MOST_COUNTED  # the bucket of 1.0
    assert full.saturated == 0
    full.observe(np.ones(1000))
    assert (int(full.buckets[0, 0, -1]), full.saturated, full.finite) == (MOST_COUNTED, 1000, MOST_COUNTED + 1001)
    assert full.cells().counts.tolist() == [MOST_COUNTED + 1000, 1]  # it alone is full, so they are its own
    full.merge(full.copy())
    assert (full.saturated, full.finite) == (MOST_COUNTED + 2000, 2 * MOST_COUNTED + 2002)
    assert full.cells().counts.tolist() == [2 * MOST_COUNTED + 2000, 2]
    assert full.quantile(0.5) == 1.0
    full.observe(np.array([1e-300]))  # coarsens
    assert full.saturated == MOST_COUNTED + 2000
    assert full.finite == 2 * MOST_COUNTED + 2003


@pytest.mark.parametrize("dtype", ["e", "f", "d", "b", "h", "i", "l", "q", "B", "H", "I", "L", "Q", "?"])
def test_every_dtype_is_counted_as_its_values_are(dtype: str) -> None:
    numbers = np.array([0, 1, 1, 0, 1] if dtype == "?" else [0, 1, 7, 100, 3]).astype(dtype)
    assert state(ExponentialHistogram.of(numbers)) == state(of(*numbers.astype(float)))
    if numbers.dtype.kind in "iu":
        ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
        assert state(ExponentialHistogram.of(ends)) == state(of(*ends.astype(float)))
    if numbers.dtype.kind == "f":
        ends = np.array([np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max, np.nan, -np.inf, -0.0], dtype)
        assert state(ExponentialHistogram.of(ends)) == state(of(*ends.astype(float)))


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([1j]), np.array([1.0], ">f8"), np.array([object()])])
def test_what_is_no_number_of_this_machine_is_refused(values: Array) -> None:
    with pytest.raises(BadValues, match="expected floats, integers or booleans"):
        ExponentialHistogram().observe(values)


def test_state_lies_in_the_memory_that_is_given() -> None:
    memory = bytearray(HISTOGRAM_BYTES)
    ExponentialHistogram(memory).observe(np.array([1.0, -2.0]))
    assert ExponentialHistogram(memory).finite == 2
    assert "finite=2, scale=5" in repr(ExponentialHistogram(memory))
    with pytest.raises(Malformed, match=f"expected {HISTOGRAM_BYTES} bytes or more"):
        ExponentialHistogram(bytearray(10))
