"""Latency and errors of the gateway's own series as subjects."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.drift.binned import BinsMismatch
from runtime.drift.evaluate import Parameters, Sample, evaluate
from runtime.drift.findings import Thresholds
from runtime.drift.service import ERRORS, LATENCY, service_sample
from runtime.drift.verdict import Decision, Role
from runtime.shm.series import bounds_seconds

BOUNDS = bounds_seconds()


def sample(random: np.random.Generator, requests: int, slower: float = 1.0, errors: float = 0.001) -> Sample:
    seconds = 0.004 * slower * random.lognormal(0, 0.5, requests)
    counts = np.histogram(seconds, BOUNDS)[0].astype(np.uint64)
    failed = int(random.binomial(requests, errors))
    return service_sample("s", BOUNDS, counts, zero=0, errors=failed, requests=requests)


def test_a_slower_service_and_one_that_fails_are_found_and_one_that_is_the_same_is_stable() -> None:
    random = np.random.default_rng(0)
    reference = sample(random, 200_000)
    assert evaluate(reference, sample(random, 20_000)).decision is Decision.STABLE
    slower = evaluate(reference, sample(random, 20_000, slower=1.5))
    assert slower.drifted == (LATENCY,)
    assert slower.of(LATENCY).role is Role.SERVICE
    assert evaluate(reference, sample(random, 20_000, errors=0.05)).drifted == (ERRORS,)


def test_latency_may_move_by_more_than_a_feature_may() -> None:
    random = np.random.default_rng(1)
    pair = sample(random, 200_000), sample(random, 50_000, slower=1.15)
    assert evaluate(*pair).drifted == ()
    assert evaluate(*pair, Parameters(service_thresholds=Thresholds())).drifted == (LATENCY,)


def test_a_burst_counts_as_one() -> None:
    """Of 200 requests 20 came in one slow or broken moment: as many alone would be significant."""
    counts = np.zeros(BOUNDS.size - 1, np.uint64)
    counts[200] = 10_000
    quiet = service_sample("r", BOUNDS, counts, zero=0, errors=0, requests=10_000, burst_requests=1)
    counts[:] = 0
    counts[200], counts[300] = 180, 20
    burst = [
        service_sample("w", BOUNDS, counts, zero=0, errors=20, requests=200, burst_requests=requests)
        for requests in (20, 1)
    ]
    assert evaluate(quiet, burst[0]).drifted == ()
    assert ERRORS in evaluate(quiet, burst[1]).drifted
    assert burst[0].subjects[LATENCY].total == 10


def test_what_is_too_short_for_a_bucket_is_in_the_lowest_bin() -> None:
    counts = np.zeros(BOUNDS.size - 1, np.uint64)
    counts[3] = 7
    bins = service_sample("s", BOUNDS, counts, zero=5, errors=0, requests=12, burst_requests=1).subjects[LATENCY]
    assert bins.total == 12
    assert bins.counts[0] == 5
    assert bins.edges[1] == pytest.approx(BOUNDS[0])
    empty = service_sample("s", BOUNDS, counts * 0, zero=0, errors=0, requests=0)
    assert evaluate(empty, empty).decision is Decision.NOT_ENOUGH_DATA


def test_counts_of_other_buckets_are_refused() -> None:
    for counts, zero in ((np.zeros(3), 0), (np.zeros(BOUNDS.size - 1), -1)):
        with pytest.raises(BinsMismatch, match="expected 512 counts"):
            service_sample("s", BOUNDS, counts, zero=zero, errors=0, requests=0)
