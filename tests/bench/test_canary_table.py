"""What a canary costs, as a table: ratios and differences of two servers measured within one round."""

import pytest
from rich.console import Console
from test_cost_table import sample

from bench.canary import canary_cost, render_canary
from bench.catalogue import AIO_ECHO, CANARY, DRIFTGATE
from bench.rounds import Results

ROUNDS = [
    {DRIFTGATE.key: sample(30_000), CANARY.key: sample(27_000)},
    {DRIFTGATE.key: sample(10_000), CANARY.key: sample(8_000)},
    {DRIFTGATE.key: sample(20_000), CANARY.key: sample(19_000)},
    {DRIFTGATE.key: sample(40_000)},  # the other failed
]


def test_the_ratio_is_the_median_of_the_rounds_that_have_both() -> None:
    cost = canary_cost(ROUNDS)
    assert cost is not None
    assert (cost.ratio, cost.least_ratio, cost.greatest_ratio) == pytest.approx((0.9, 0.8, 0.95))
    assert (cost.requests_per_second, cost.requests_per_second_of_one_version) == (19_000, 20_000)
    assert cost.cost_us_per_request == pytest.approx(1e6 / 27_000 - 1e6 / 30_000)


def test_without_both_there_is_no_cost() -> None:
    assert canary_cost([{DRIFTGATE.key: sample(1)}, {AIO_ECHO.key: sample(1)}]) is None
    assert canary_cost([]) is None


def test_the_table_has_both_with_their_ratio() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_canary(Results(ROUNDS, {})))
    rows = [line.split() for line in capture.get().splitlines() if line.strip().startswith("driftgate")]
    assert rows == [
        ["driftgate,", "queue", "20,000", "1.00x", "-", "50.0", "-"],
        ["driftgate,", "90/10", "canary", "19,000", "0.90x", "0.80-0.95", "52.6", "+3.7"],
    ]
