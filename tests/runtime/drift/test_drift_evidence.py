"""Evidence of all subjects: slow, and with one run length."""

from __future__ import annotations

import numpy as np
import pytest
from drift_samples import BinnedDistribution, CategoryDistribution, draw_all, replications
from scipy import stats

from runtime.drift.binned import Bins, BinsMismatch, CategoryBins, RateCounts, grid_bins
from runtime.drift.evidence import COARSE_PANES, Evidence

NORMAL = BinnedDistribution.of(stats.norm.cdf)
SHIFTED = BinnedDistribution.of(stats.norm(0.15, 1).cdf)
COLOURS = CategoryDistribution(("red", "green"), (0.7, 0.3))


def subjects(random: np.random.Generator, rows: int, shifted: bool = False, errors: float = 0.01) -> dict[str, Bins]:
    return {
        "amount": (SHIFTED if shifted else NORMAL).draw(random, rows),
        "colour": COLOURS.draw(random, rows),
        "errors": RateCounts(int(random.binomial(rows, errors)), rows),
    }


def test_a_change_too_small_for_a_window_is_found_when_it_lasts() -> None:
    random = np.random.default_rng(0)
    evidence = Evidence.of(subjects(random, 100_000))
    for _ in range(20):
        evidence = evidence.after(subjects(random, 1_000))
    assert evidence.alarms(1e6) == ()
    for _ in range(60):
        evidence = evidence.after(subjects(random, 1_000, shifted=True))
    assert evidence.alarms(1e6) == ("amount",)
    assert evidence.log_e("amount") > np.log(3e6) > evidence.log_e("colour")


def test_an_error_rate_that_rises_is_found_in_a_pane_or_two() -> None:
    random = np.random.default_rng(1)
    evidence = Evidence.of(subjects(random, 20_000))
    evidence = evidence.after(subjects(random, 1_000, errors=0.06)).after(subjects(random, 1_000, errors=0.06))
    assert evidence.alarms(1e6) == ("errors",)


def test_a_pane_may_lack_subjects_and_bring_others_but_not_other_kinds() -> None:
    random = np.random.default_rng(2)
    evidence = Evidence.of(subjects(random, 1_000))
    after = evidence.after({"other": grid_bins([1.0])})
    assert after.detectors == evidence.detectors
    with pytest.raises(BinsMismatch, match="amount: expected the kind"):
        evidence.after({"amount": CategoryBins({"red": 1})})


@pytest.mark.parametrize("scale", [2, 0, -1])
def test_panes_coarser_than_the_reference_are_no_evidence_and_cost_what_was_there(scale: int) -> None:
    """Counted where the middle of their buckets lies, they would be evidence of a change that is none."""
    random = np.random.default_rng(7)
    reference = {"a": grid_bins(random.normal(size=50_000)), "b": grid_bins(random.normal(size=50_000))}

    def pane(mean: float = 0.0, scale: int = 5) -> dict[str, Bins]:
        a = grid_bins(random.normal(mean, 1, 1_000), scale=scale)
        return {"a": a, "b": grid_bins(random.normal(size=1_000))}

    evidence = Evidence.of(reference)
    naive = evidence.detectors["a"]
    for _ in range(COARSE_PANES):
        evidence = evidence.after(pane(0.3))
        before = evidence.log_e("a")
        evidence = evidence.after(pane(scale=scale))
        assert evidence.log_e("a") == -np.inf < before
    for _ in range(40):
        evidence = evidence.after(pane(scale=scale))
        naive = naive.after(Evidence.of(reference).counters["a"](pane(scale=scale)["a"]))
    assert evidence.coarse == {"a": COARSE_PANES}  # from then on its cells are as coarse
    assert evidence.alarms(600) == ()
    assert evidence.detectors["b"].windows == 2 * COARSE_PANES + 40
    if scale <= 0:
        assert naive.alarm(1 / 600)
    for _ in range(30):
        evidence = evidence.after(pane(mean=1.0, scale=scale))
    assert evidence.alarms(1e6) == ("a",)


def test_one_odd_pane_leaves_the_cells_as_they_are() -> None:
    random = np.random.default_rng(8)
    evidence = Evidence.of({"a": grid_bins(random.normal(size=50_000))})
    cells = evidence.counters["a"].cells
    evidence = evidence.after({"a": grid_bins(random.normal(size=1_000), scale=0)})
    assert (evidence.counters["a"].cells, evidence.coarse) == (cells, {"a": 1})
    for _ in range(40):
        evidence = evidence.after({"a": grid_bins(random.normal(0.25, 1, 1_000))})
    assert evidence.alarms(1e6) == ("a",)


@pytest.mark.parametrize("pane_rows", [50, 1_000, 100_000])
def test_thirty_features_run_at_least_as_long_as_stated_without_drift(pane_rows: int) -> None:
    """30 panes at a stated average run length of 600: at most one run in twenty may alarm."""
    random = np.random.default_rng(pane_rows)
    runs, ended = replications(40) // 10, 0
    for _ in range(runs):
        evidence = Evidence.of(draw_all(random, 10_000))
        for _ in range(30):
            evidence = evidence.after(draw_all(random, pane_rows))
            if evidence.alarms(600):
                ended += 1
                break
    print(f"panes of {pane_rows}: {ended}/{runs} runs with an alarm in 30 panes")
    assert ended <= stats.binom.isf(1e-4, runs, 0.05)
