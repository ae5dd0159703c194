"""Distances from sketches of two samples beside those of the rows, and verdicts on sketches alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from sketch_samples import DISTRIBUTIONS

from runtime.drift.binned import Apart, BinsMismatch, align
from runtime.drift.cells import numeric_cells
from runtime.drift.correlation import correlation_of
from runtime.drift.distance import SMOOTHING, ks_bracket, psi, wasserstein, wasserstein_error
from runtime.drift.evaluate import DriftReport, Parameters, Sample, evaluate
from runtime.drift.evidence import Evidence
from runtime.drift.of_sketches import (
    PreparedReference,
    category_bins,
    category_pair,
    correlation_of_moments,
    correlations_of_block,
    evidence_bins,
    frequent_pair,
    numeric_bins,
    numeric_pair,
    subjects_of_blocks,
)
from runtime.drift.verdict import Aspect, Decision
from runtime.sketch.block import Block
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.keys import KeyKind, Keys
from runtime.sketch.layout import BlockShape
from runtime.sketch.moments import Moments

WITHOUT_A_MEAN = {"any bits", "subnormals"}
"""Their distances are beyond float64, or below what its bins tell apart."""

CONTINUOUS = ("uniform around zero", "normal", "lognormal", "exponential", "cauchy", "two humps", "wide lognormal")
"""None of their values lies on the bound of a bucket, so that both sides of it need not be told apart."""

NAMES = tuple(f"f{i}" for i in range(8))
NARROW = ("f1",)
"""Of these features buckets are wide beside σ, so that mean and spread are tested, too."""


def rows_of(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two samples of different size; the second one is moved a little."""
    random = np.random.default_rng(seed)
    reference, live = DISTRIBUTIONS[name](random, 5_000), DISTRIBUTIONS[name](random, 700)
    return reference, live * 1.25


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_ks_of_the_rows_lies_in_the_bracket_of_their_sketches(name: str) -> None:
    for seed in range(4):
        with np.errstate(over="ignore"):
            x, y = rows_of(name, seed)
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]
        pair = numeric_pair(ExponentialHistogram.of(x), ExponentialHistogram.of(y))
        _, p, q = align(*pair)
        bracket = ks_bracket(p, q)
        assert bracket.low - 1e-12 <= stats.ks_2samp(x, y, method="asymp").statistic <= bracket.high + 1e-12
        assert [side.total for side in pair] == [x.size, y.size]


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS.keys() - WITHOUT_A_MEAN))
def test_wasserstein_of_the_rows_is_as_near_as_stated(name: str) -> None:
    for seed in range(4):
        x, y = rows_of(name, seed)
        pair = numeric_pair(ExponentialHistogram.of(x), ExponentialHistogram.of(y))
        truth, error = stats.wasserstein_distance(x, y), wasserstein_error(*pair)
        assert abs(wasserstein(*pair) - truth) <= error * (1 + 1e-9) + 1e-9 * truth


@pytest.mark.parametrize("name", CONTINUOUS)
def test_psi_in_the_references_cells_is_that_of_the_rows_in_them(name: str) -> None:
    for seed in range(4):
        x, y = rows_of(name, seed)
        reference, live = numeric_pair(ExponentialHistogram.of(x), ExponentialHistogram.of(y))
        cells = numeric_cells(reference)
        counts = [
            np.bincount(cells.cell[np.searchsorted(cells.boundaries, rows)], minlength=cells.cell.max() + 1)
            for rows in (x, y)
        ]
        p, q = ((c + SMOOTHING) / (c + SMOOTHING).sum() for c in counts)
        truth = special.rel_entr(p, q).sum() + special.rel_entr(q, p).sum()
        assert psi(cells.count(reference), cells.count(live)) == pytest.approx(truth, rel=1e-12)


def test_what_is_in_no_bucket_is_apart() -> None:
    block = Block.create(BlockShape(1, 0))
    block.set_range(0, -10, 10)
    block.set_sentinel(0, -999)
    column = [1, 0, -2, np.nan, np.nan, np.inf, np.inf, np.inf, -np.inf, -999, 11, 12, -11]
    block.observe(np.array(column).reshape(-1, 1))
    bins = numeric_bins(block.histogram(0))
    assert bins.apart == Apart(missing=1, nan=2, positive_infinity=3, negative_infinity=1, out_of_range=3)
    assert (bins.total, bins.rows) == (3, len(column))
    nothing = numeric_bins(ExponentialHistogram())
    assert (nothing.rows, nothing.counts.size) == (0, 0)


def moments_of(values: np.ndarray) -> Moments:
    moments = Moments()
    moments.observe(values)
    return moments


@pytest.mark.parametrize("coarse", ["reference", "live"])
def test_a_sample_that_was_summarized_more_coarsely_has_not_drifted(coarse: str) -> None:
    """One tiny value makes the buckets of a whole histogram 16 times as wide; counts stay comparable, and moments tell
    what is inside of the buckets. Without these nothing is known."""
    random = np.random.default_rng(1)
    x, y = random.normal(50, 1, 50_000), random.normal(50, 1, 20_000)
    (x if coarse == "reference" else y)[0] = 1e-60
    histograms = ExponentialHistogram.of(x), ExponentialHistogram.of(y)
    assert abs(histograms[0].scale - histograms[1].scale) == 4
    pair = numeric_pair(*histograms, (moments_of(x), moments_of(y)))
    report = look({"a": pair[0]}, {"a": pair[1]})
    assert report.decision is Decision.STABLE
    assert report.of("a").finding.aspect is Aspect.MEAN
    shape = report.of("a").findings[-1]
    assert shape.effects[0].value < 0.01
    pair = numeric_pair(*histograms)
    verdict = look({"a": pair[0]}, {"a": pair[1]}).of("a")
    assert (verdict.decision, verdict.finding.aspect) == (Decision.NOT_ENOUGH_DATA, Aspect.SHAPE)
    assert "may lie inside of bins" in verdict.finding.note


def test_a_prepared_reference_gives_the_pairs_that_are_made_anew() -> None:
    random = np.random.default_rng(2)
    x = {"a": random.normal(50, 1, 5_000), "b": random.lognormal(0, 1, 5_000), "gone": random.normal(size=50)}
    histograms = {name: ExponentialHistogram.of(values) for name, values in x.items()}
    prepared = PreparedReference(histograms, {name: moments_of(values) for name, values in x.items()})
    for smallest in (1.0, 1e-60):
        y = {"a": random.normal(50, 1, 900), "b": random.lognormal(0, 1, 900), "new": random.normal(size=50)}
        y["a"][0] = smallest
        live = {name: ExponentialHistogram.of(values) for name, values in y.items()}
        moments = {name: moments_of(values) for name, values in y.items()}
        ours, theirs = prepared.pairs(live, moments)
        assert (set(ours), set(theirs)) == ({"a", "b", "gone"}, {"a", "b", "new"})
        for name in "ab":
            both = (moments_of(x[name]), moments)
            fresh = numeric_pair(histograms[name], live[name], (both[0], both[1][name]))
            for kept, new in zip((ours[name], theirs[name]), fresh, strict=True):
                assert np.array_equal(kept.edges, new.edges)
                assert np.array_equal(kept.counts, new.counts)
                assert kept.exact == new.exact
        assert prepared.pair("a", live["a"])[0] is ours["a"]  # kept, with what was computed from it


def test_moments_of_other_values_than_those_in_the_buckets_are_refused() -> None:
    histogram = ExponentialHistogram.of(np.arange(10.0))
    with pytest.raises(BinsMismatch, match="10 values in bins, got those of 9"):
        numeric_bins(histogram, moments_of(np.arange(9.0)))
    assert numeric_bins(ExponentialHistogram(), Moments()).exact is None
    huge = np.array([1e200, -1e200])
    assert numeric_bins(ExponentialHistogram.of(huge), moments_of(huge)).exact is None


def look(reference: dict, live: dict, **more: dict) -> DriftReport:
    """Correlations, where given, by side."""
    samples = [Sample(side, subjects, **more.get(side, {})) for side, subjects in (("r", reference), ("l", live))]
    return evaluate(*samples, Parameters(looks=100))


def features(random: np.random.Generator, rows: int, dtype: str = "f4") -> np.ndarray:
    drawn = [
        random.normal(0, 1, rows),
        random.normal(100, 15, rows),
        random.lognormal(0, 1.5, rows),
        random.exponential(3, rows),
        random.poisson(4, rows),
        random.integers(0, 2, rows),
        np.where(random.random(rows) < 0.7, 0, random.gamma(2, 3, rows)),
        np.where(random.random(rows) < 0.02, np.nan, random.normal(-3, 1, rows)),
    ]
    return np.stack(drawn, axis=1).astype(dtype)


def block_of(rows: np.ndarray, prediction: np.ndarray) -> Block:
    """As two workers see it: in parts, then merged."""
    parts = [Block.create(BlockShape(len(NAMES), 0)) for _ in range(2)]
    for part, block in enumerate(parts):
        block.observe(np.ascontiguousarray(rows[part::2]), np.ascontiguousarray(prediction[part::2]))
    parts[0].merge(parts[1])
    return parts[0]


def looked_at(rows: tuple[np.ndarray, np.ndarray], noise: tuple[np.ndarray, np.ndarray]) -> DriftReport:
    """The prediction is the sum of the first feature and noise."""
    predictions = [side[:, 0] + more for side, more in zip(rows, noise, strict=True)]
    reference, live = (block_of(side, y) for side, y in zip(rows, predictions, strict=True))
    subjects = subjects_of_blocks(reference, live, NAMES)
    spreads = {
        name: correlation_of(rows[0][:1_000, at], predictions[0][:1_000]).spread for at, name in enumerate(NAMES)
    }
    correlations = {
        side: {"correlations": correlations_of_block(block, NAMES, spreads)}
        for side, block in (("r", reference), ("l", live))
    }
    return look(*subjects, **correlations)


@pytest.mark.parametrize("seed", range(10))
def test_sketches_of_identical_distributions_drift_in_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = 20_000, (300, 5_000)[seed % 2]
    report = looked_at(
        tuple(features(random, size) for size in sizes), tuple(random.normal(size=size) for size in sizes)
    )
    assert report.drifted == ()
    assert report.hypotheses == 2 * len(NAMES) + 1 + 2 * len(NARROW)  # distributions, correlations, the NaN of one


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("feature", range(len(NAMES)))
def test_the_verdict_on_sketches_names_the_shifted_feature_first(feature: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = features(random, 20_000), features(random, 5_000)
    moved = rows[1][:, feature]
    if feature in {4, 5}:  # integers, flags
        moved[:] = (
            moved + (random.random(len(moved)) < 0.5) if feature == 4 else moved * (random.random(len(moved)) < 0.5)
        )
    else:
        moved[:] = moved * 1.2 + 0.5 * np.nanstd(moved)
    report = looked_at(rows, (random.normal(size=20_000), random.normal(size=5_000)))
    assert report.verdicts[0].subject == NAMES[feature]
    assert report.drifted == (NAMES[feature],)


def test_a_relation_to_the_prediction_that_is_gone_is_named() -> None:
    random = np.random.default_rng(0)
    rows = features(random, 20_000), features(random, 5_000)
    gone = random.normal(size=5_000) * np.sqrt(2) - rows[1][:, 0]
    report = looked_at(rows, (random.normal(size=20_000), gone))
    assert report.drifted == (NAMES[0],)
    assert report.verdicts[0].finding.aspect is Aspect.CORRELATION


def test_correlation_is_that_of_the_rows_and_none_where_squares_are_too_large() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 1_000))
    moments = Moments()
    moments.observe(x, x + y)
    told, truth = correlation_of_moments(moments, spread=2.0), correlation_of(x, x + y)
    assert (told.rows, told.spread) == (1_000, 2.0)
    assert told.value == pytest.approx(truth.value, rel=1e-12)
    constant, huge = Moments(), Moments()
    constant.observe(np.full(1_000, 7.0), y)
    assert correlation_of_moments(constant, spread=1.0).value == 0.0
    huge.observe(x * 1e200, y)
    assert correlation_of_moments(huge, spread=1.0) is None
    assert correlation_of_moments(Moments(), spread=1.0).rows == 0


def test_names_that_are_not_one_for_each_feature_are_refused() -> None:
    block = Block.create(BlockShape(2, 0))
    for names in (("a",), ("a", "a")):
        with pytest.raises(BinsMismatch, match="a name of its own"):
            subjects_of_blocks(block, block, names)


def test_declared_categories_are_exact() -> None:
    counts = CategoryCounts(["a", "b", "c"])
    counts.observe(Keys.of_texts(["a", "a", "b", "z", None]))
    bins = category_bins(counts)
    assert bins.counts == {"a": 2, "b": 1, "c": 0}
    assert (bins.other, bins.apart, bins.rows) == (1, Apart(missing=1), 5)
    flags = CategoryCounts([0, 1])
    flags.observe(Keys.of_integers(np.array([1, 1, 0])))
    assert category_bins(flags).counts == {"0": 1, "1": 2}


def test_categories_that_only_one_side_declares_are_other_on_both() -> None:
    sides = []
    for declared in (["a", "b", "old"], ["new", "b", "a"]):
        counts = CategoryCounts(declared)
        counts.observe(Keys.of_texts(["a", "a", "b", "old", "new", "z", None]))
        sides.append(counts)
    pair = category_pair(*sides)
    assert [side.counts for side in pair] == [{"a": 2, "b": 1}, {"b": 1, "a": 2}]
    assert [(side.other, side.apart.missing) for side in pair] == [(3, 1), (3, 1)]
    same = category_pair(sides[0], sides[0])
    assert same[0].counts == {"a": 2, "b": 1, "old": 1}


def frequent(values: np.ndarray, lg_slots: int = 8) -> FrequentValues:
    sketch = FrequentValues(KeyKind.INTEGER, lg_slots)
    sketch.observe(Keys.of_integers(values))
    return sketch


def zipf(random: np.random.Generator, rows: int, most: int) -> np.ndarray:
    shares = 1 / np.arange(1, most + 1)
    return random.choice(most, rows, p=shares / shares.sum())


def test_frequent_values_that_are_all_told_apart_are_exact() -> None:
    pair = frequent_pair(frequent(np.array([1, 1, 2])), frequent(np.array([2, 3])), missing=(4, 5))
    assert [side.counts for side in pair] == [{"1": 2, "2": 1}, {"2": 1, "3": 1}]
    assert [(side.other, side.apart.missing) for side in pair] == [(0, 4), (0, 5)]


def test_texts_that_were_cut_to_the_same_beginning_are_one_category() -> None:
    sketch = FrequentValues()
    sketch.observe(Keys.of_texts(["x" * 100 + "1", "x" * 100 + "2"]))
    assert frequent_pair(sketch, sketch)[0].counts == {"x" * 62 + "…": 2}


@pytest.mark.parametrize(("most", "rows"), [(300, 3_000), (5_000, 300), (5_000, 50_000), (1_000_000, 5_000)])
def test_frequent_values_of_identical_distributions_have_not_drifted(most: int, rows: int) -> None:
    """The reference has taken from its counts what it needed room for; a short window has not."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        reference, live = frequent(zipf(random, 100_000, most)), frequent(zipf(random, rows, most))
        assert reference.offset > 0
        pair = frequent_pair(reference, live)
        assert len(pair[0].counts) >= 4
        assert [side.total for side in pair] == [100_000, rows]
        assert look({"a": pair[0]}, {"a": pair[1]}).drifted == ()


def test_counts_of_frequent_values_are_nearly_those_of_the_rows() -> None:
    """Of hundreds that each may be short of, a few rows too many at most."""
    random = np.random.default_rng(0)
    x, y = zipf(random, 100_000, 5_000), zipf(random, 20_000, 5_000)
    pair = frequent_pair(frequent(x), frequent(y))
    for side, rows in zip(pair, (x, y), strict=True):
        assert all(0 <= count - (rows == int(name)).sum() <= 5 for name, count in side.counts.items())


def test_upper_bounds_of_more_rows_than_there_are_are_lowered() -> None:
    """Merged from panes with other values each, every count may have been as much more as the panes had offset."""
    random = np.random.default_rng(0)
    whole = frequent(random.integers(0, 40, 400), lg_slots=5)
    for first in range(100, 1_000, 40):
        whole.merge(frequent(random.integers(first, first + 40, 400), lg_slots=5))
    bins, _ = frequent_pair(whole, whole)
    assert bins.total == whole.total
    assert bins.other >= 0


@pytest.mark.parametrize("most", [300, 5_000])
def test_a_value_that_becomes_frequent_is_found(most: int) -> None:
    random = np.random.default_rng(0)
    live = zipf(random, 5_000, most)
    live[: len(live) // 5] = most + 1
    pair = frequent_pair(frequent(zipf(random, 100_000, most)), frequent(live))
    report = look({"a": pair[0]}, {"a": pair[1]})
    assert report.drifted == ("a",)


@pytest.mark.parametrize("most", [150, 300, 5_000])
def test_panes_of_frequent_values_add_no_evidence_without_a_change_and_some_with_one(most: int) -> None:
    """Sketches of panes and of the reference have made room for other values each."""
    random = np.random.default_rng(most)

    def pane(rows: int, moved: float = 0.0, reference: bool = False) -> dict:
        values = zipf(random, rows, most)
        values = np.where(random.random(rows) < moved, 0, values)
        return evidence_bins(frequent={"a": (frequent(values), 3)}, reference=reference)

    evidence = Evidence.of(pane(100_000, reference=True))
    assert len(evidence.counters["a"].cells) >= 4
    for _ in range(60):
        evidence = evidence.after(pane(1_000))
    assert evidence.log_e("a") < np.log(60)
    for _ in range(20):
        evidence = evidence.after(pane(1_000, moved=0.15))
    assert evidence.alarms(1e6) == ("a",)


def test_evidence_is_made_of_all_that_sketches_tell() -> None:
    counts = CategoryCounts(["a"])
    counts.observe(Keys.of_texts(["a", "z"]))
    bins = evidence_bins(
        histograms={"h": ExponentialHistogram.of(np.arange(4.0))}, categories={"c": counts}, rates={"r": (1, 5)}
    )
    assert (bins["h"].total, bins["c"].other, bins["r"].hits) == (4, 1, 1)
    assert Evidence.of(bins).after(bins).coarse == {}
