"""The tests that decide: simulated under their null hypotheses with a look at every block, and under what they seek."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rollout_samples import latencies, plan_of, replications, sparse
from scipy import optimize, stats

from runtime.drift.sequential import BernoulliProcess
from runtime.rollout.counts import ArmCounts, Counts, Mean, Observation
from runtime.rollout.evidence import Evidence, weigh
from runtime.rollout.gates import Gate, LatencyGate, MeanGate
from runtime.rollout.rates import Line, PairedRows, Side, _nearest, pair_log_e, share_log_e

ALPHA = 0.05
NEEDED = math.log(1 / ALPHA)


def kept(count: int, runs: int) -> bool:
    return count <= stats.binom.isf(1e-4, runs, ALPHA)


def test_the_nearest_point_of_the_null_is_the_one_with_the_least_divergence() -> None:
    def divergence(p: float, q: float) -> float:
        return float(stats.entropy([p, 1 - p], [q, 1 - q]))

    for line, c, b, n, m in [
        (Line(), 0.03, 0.01, 50, 950),
        (Line(1.0, 0.005), 0.03, 0.01, 50, 950),
        (Line(2.0, 0.0), 0.5, 0.1, 10, 10),
        (Line(1.5, 0.1), 0.05, 0.4, 30, 500),  # below the line
        (Line(1.0, 0.3), 0.01, 0.02, 30, 500),
        (Line(0.5, 0.2), 0.9, 0.9, 5, 5),
    ]:
        found = optimize.minimize_scalar(
            lambda tb, line=line, c=c, b=b, n=n, m=m: n * divergence(c, line.at(tb)) + m * divergence(b, tb),
            bounds=(1e-9, min(1, (1 - line.margin) / line.ratio) - 1e-9),
            method="bounded",
            options={"xatol": 1e-12},
        )
        tc, tb = _nearest(line, c, b, n, m)
        assert tb == pytest.approx(found.x, abs=1e-5)
        assert tc == pytest.approx(line.at(tb))
        up = n * (c - tc) / (tc * (1 - tc))  # the two slopes agree: what the proof needs
        assert m * (b - tb) / (tb * (1 - tb)) == pytest.approx(-line.ratio * up, rel=1e-6)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("line", [Line(), Line(1.0, 0.02), Line(2.0, 0.01), Line(0.5, 0.0)], ids=str)
def test_the_mean_of_a_block_is_at_most_one_wherever_the_null_holds(side: Side, line: Line) -> None:
    """Exactly: the sum over all outcomes of a small block, for rates on the line and inside the null."""
    past = PairedRows(30, 100, 20, 200) if side is Side.HARM else PairedRows(1, 100, 60, 200)
    n, m = 4, 7
    for b in (0.01, 0.1, 0.3, 0.6):
        for away in (0.0, 0.05):
            c = line.at(b) - away if side is Side.HARM else line.at(b) + away
            if not 0 <= c <= 1:
                continue
            mean = sum(
                float(stats.binom.pmf(i, n, c) * stats.binom.pmf(j, m, b))
                * math.exp(pair_log_e(side, line, past, PairedRows(i, n, j, m)))
                for i in range(n + 1)
                for j in range(m + 1)
            )
            assert mean <= 1 + 1e-9


@pytest.mark.parametrize("clustered", [1.0, 3.0])
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("past", [PairedRows(0, 0, 0, 0), PairedRows(1, 2, 0, 3)], ids=["first", "second"])
def test_so_it_is_of_a_block_that_is_larger_than_all_before_it(
    past: PairedRows, side: Side, clustered: float
) -> None:  # fmt: skip
    n, m = 4, 7
    for line in (Line(), Line(1.0, 0.02), Line(2.0, 0.01), Line(0.5, 0.0)):
        for b in (0.0, 0.01, 0.1, 0.3, 0.6):
            for away in (0.0, 0.05):
                c = line.at(b) - away if side is Side.HARM else line.at(b) + away
                if not 0 <= c <= 1:
                    continue
                mean = sum(
                    float(stats.binom.pmf(i, n, c) * stats.binom.pmf(j, m, b))
                    * math.exp(pair_log_e(side, line, past, PairedRows(i, n, j, m), clustered))
                    for i in range(n + 1)
                    for j in range(m + 1)
                )
                assert mean <= 1 + 1e-9


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("limit", [1e-9, 0.3, 0.99, 1 - 1e-9])
def test_so_it_is_of_a_share(side: Side, limit: float) -> None:
    n = 9
    for past in ((0, 0), (1, 3), (30, 40)):
        for p in (limit, (limit + (side is Side.HARM)) / 2):
            mean = sum(
                float(stats.binom.pmf(i, n, p)) * math.exp(share_log_e(side, limit, past, (i, n))) for i in range(n + 1)
            )
            assert mean <= 1 + 1e-9


def test_a_single_block_that_shows_harm_is_evidence_of_it() -> None:
    """All that is known may come at once: a report of a shadow process, or a look after control was away."""
    assert share_log_e(Side.HARM, 0.99, (0, 0), (337, 374)) > math.log(1 / 0.001)
    assert share_log_e(Side.HARM, 0.99, (2, 2), (337, 374)) > math.log(1 / 0.001)
    assert share_log_e(Side.HARM, 0.99, (0, 0), (372, 374)) <= 0
    errors = Line(1.0, 0.005)
    for past in (PairedRows(0, 0, 0, 0), PairedRows(0, 5, 0, 95)):
        assert pair_log_e(Side.HARM, errors, past, PairedRows(60, 2_000, 190, 19_000)) > math.log(1 / 0.001)
        assert pair_log_e(Side.HARM, errors, past, PairedRows(20, 2_000, 190, 19_000)) <= 0
        assert pair_log_e(Side.HARM, Line(), past, PairedRows(0, 5, 0, 0)) == 0


def test_without_margin_it_is_the_process_of_two_rates() -> None:
    """Where both expect the same: with long pasts, whose half hits do not matter."""
    past = PairedRows(300_000, 10_000_000, 100_000, 10_000_000)
    process = BernoulliProcess((300_000, 100_000), (10_000_000, 10_000_000))
    expected = process.after(9, 200, 20, 2_000).log_e
    assert pair_log_e(Side.HARM, Line(), past, PairedRows(9, 200, 20, 2_000)) == pytest.approx(expected, rel=1e-3)
    assert pair_log_e(Side.SAFE, Line(), past, PairedRows(9, 200, 20, 2_000)) == 0.0


def highest(side: Side, line: Line, hits: list[np.ndarray], rows: tuple[int, int], clustered: float = 1.0) -> float:
    log_e, best, past = 0.0, 0.0, PairedRows(0, 0, 0, 0)
    for c, b in zip(*hits, strict=True):
        log_e += pair_log_e(side, line, past, PairedRows(int(c), rows[0], int(b), rows[1]), clustered)
        past = PairedRows(
            past.candidate_hits + int(c), past.candidate_rows + rows[0],
            past.baseline_hits + int(b), past.baseline_rows + rows[1],
        )  # fmt: skip
        best = max(best, log_e)
    return best


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("line", "base", "rows"),
    [
        (Line(), 0.01, (50, 950)),
        (Line(), 0.3, (5, 20)),
        (Line(1.0, 0.01), 0.01, (50, 950)),
        (Line(1.5, 0.005), 0.05, (200, 800)),
    ],
    ids=str,
)
def test_a_candidate_on_the_line_is_called_neither_harmful_nor_safe_more_often_than_stated(
    side: Side, line: Line, base: float, rows: tuple[int, int]
) -> None:
    """A look at each of 60 blocks, while the baseline's rate goes up and down fourfold and the candidate's with it."""
    runs, blocks = replications(400), 60
    random = np.random.default_rng(rows[0])
    rates = base * 2 ** np.sin(np.arange(blocks) / 5) * (1 if base < 0.2 else 0.5)
    crossed = 0
    for _ in range(runs):
        hits = [random.binomial(rows[0], np.minimum(line.at(rates), 1)), random.binomial(rows[1], rates)]
        crossed += highest(side, line, hits, rows) >= NEEDED
    assert kept(crossed, runs)


def test_requests_that_share_their_fate_keep_the_level_where_the_plan_allows_for_them() -> None:
    """Batches of 8 fail as a whole. Taken for single requests they raise false alarms; divided by 8 they do not."""
    runs, blocks, batch, rows = replications(300), 60, 8, (80, 800)
    random = np.random.default_rng(8)
    naive = aware = 0
    for _ in range(runs):
        hits = [batch * random.binomial(n // batch, 0.02, blocks) for n in rows]
        naive += highest(Side.HARM, Line(), hits, rows) >= NEEDED
        aware += highest(Side.HARM, Line(), hits, rows, batch) >= NEEDED
    assert kept(aware, runs)
    assert naive > 2 * ALPHA * runs


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("limit", [0.99, 0.7])
def test_a_share_at_its_limit_is_called_neither_more_often_than_stated(side: Side, limit: float) -> None:
    runs, blocks, rows = replications(800), 100, 40
    random = np.random.default_rng(int(limit * 100))
    crossed = 0
    for _ in range(runs):
        log_e, past, best = 0.0, (0, 0), 0.0
        for hits in random.binomial(rows, limit, blocks):
            log_e += share_log_e(side, limit, past, (int(hits), rows))
            past, best = (past[0] + int(hits), past[1] + rows), max(best, log_e)
        crossed += best >= NEEDED
    assert kept(crossed, runs)


def gathered(gate: Gate, looks: list[Counts]) -> list[Evidence]:
    """The gate's evidence, look after look at cumulative counts."""
    plan, evidence, before, found = plan_of(), Evidence(), Counts(), []
    for block in looks:
        after = before.plus(block)
        evidence = weigh(gate, evidence, before, block, after, Observation(0), plan)
        found.append(evidence)
        before = after
    return found


def latency_looks(
    random: np.random.Generator, load: np.ndarray, slowness: float, rows: tuple[int, int]
) -> list[Counts]:
    arms = []
    for factor in load:
        found = []
        for n, slower in zip(rows, (slowness, 1.0), strict=True):
            found.append(ArmCounts(n, 0, sparse(latencies(random, n, slower * factor, 0.0, 1.0))))
        arms.append(Counts(*found))
    return arms


@pytest.mark.parametrize("quantile", [0.5, 0.99])
@pytest.mark.parametrize("loaded", [False, True], ids=["steady", "load makes both slower"])
def test_a_candidate_as_fast_as_the_baseline_is_called_slower_no_more_often_than_stated(
    quantile: float, loaded: bool
) -> None:
    """At a ratio of 1, on the very edge of what is allowed, while load makes both versions twice as slow."""
    runs, blocks = replications(150), 40
    random = np.random.default_rng([int(100 * quantile), loaded])
    load = np.where((np.arange(blocks) // 10) % 2, 2.0 if loaded else 1.0, 1.0)
    crossed = 0
    for _ in range(runs):
        looks = latency_looks(random, load, 1.0, (50, 450))
        found = gathered(LatencyGate(quantile=quantile, ratio=1.0), looks)
        crossed += max(evidence.harm for evidence in found) >= NEEDED
    assert kept(crossed, runs)


def test_a_candidate_as_slow_as_the_ratio_is_called_safe_no_more_often_than_stated() -> None:
    runs, ratio = replications(150), 2 ** (4 / 16)
    random = np.random.default_rng(9)
    crossed = 0
    for _ in range(runs):
        looks = latency_looks(random, np.ones(40), ratio, (50, 450))
        crossed += max(evidence.safe for evidence in gathered(LatencyGate(quantile=0.9, ratio=ratio), looks)) >= NEEDED
    assert kept(crossed, runs)


def test_latency_finds_a_slower_candidate_and_shows_an_equal_one_safe() -> None:
    random = np.random.default_rng(10)
    slower = gathered(LatencyGate(), latency_looks(random, np.ones(10), 2.0, (100, 900)))[-1]
    equal = gathered(LatencyGate(quantile=0.9), latency_looks(random, np.ones(60), 1.0, (100, 900)))[-1]
    assert slower.harm > NEEDED > slower.safe
    assert equal.safe > NEEDED > equal.harm


@pytest.mark.parametrize("side", Side)
def test_means_that_differ_by_the_margin_are_called_neither_more_often_than_stated(side: Side) -> None:
    """Values that are far from normal: exponential, with a mean that changes with time for both versions."""
    runs, blocks, margin = replications(300), 60, 0.1
    random = np.random.default_rng(11)
    crossed = 0
    for _ in range(runs):
        looks = []
        for block in range(blocks):
            common = 0.3 * math.sin(block / 8)
            arms = []
            for n, shift in ((50, margin), (450, 0.0)):
                x = random.exponential(size=n) + shift + common
                arms.append(ArmCounts(n, means=(("score", Mean(n, float(x.mean()), float(x.var() * n))),)))
            looks.append(Counts(*arms))
        last = gathered(MeanGate(name="score", margin=margin), looks)[-1]
        crossed += (last.harm if side is Side.HARM else last.safe) >= NEEDED
    assert kept(crossed, runs)


def test_means_further_apart_than_the_margin_are_harm_and_near_ones_are_safe() -> None:
    def looks(apart: float) -> list[Counts]:
        arms = (ArmCounts(500, means=(("score", Mean(500, mean, 500.0)),)) for mean in (apart, 0.0))
        return [Counts(*arms)]

    gate = MeanGate(name="score", margin=0.5)
    (far,), (near,) = (gathered(gate, looks(apart)) for apart in (-1.0, 0.1))
    assert far.harm > NEEDED > far.safe
    assert near.safe > NEEDED > near.harm
    assert gathered(gate, [Counts()])[-1] == Evidence()


def test_means_merge_like_the_rows_they_are_of() -> None:
    x = np.random.default_rng(12).normal(3, 2, 1000)
    parts = [Mean(len(p), float(p.mean()), float(p.var() * len(p))) for p in np.array_split(x, 7)]
    merged = Mean()
    for part in parts:
        merged = merged.plus(part)
    assert merged.rows == 1000
    assert (merged.mean, merged.deviation) == (pytest.approx(x.mean()), pytest.approx(x.std(ddof=1)))
    assert Mean().plus(Mean()) == Mean()


def test_counts_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="hits"):
        PairedRows(2, 1, 0, 1)
    with pytest.raises(ValueError, match="hits"):
        share_log_e(Side.HARM, 0.9, (0, 0), (2, 1))
