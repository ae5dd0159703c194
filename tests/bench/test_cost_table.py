"""What observing costs, as a table: ratios and differences of servers measured within one round."""

import dataclasses

import pytest
from rich.console import Console
from support.bursts import burst as a_burst

from bench.catalogue import AIO_ECHO, DRIFTGATE, EXPORTING, OBSERVED, SDK, UNMEASURED, UNOBSERVED
from bench.costs import cost_of, cost_us, is_of_interest, render_costs, statistics_ratio
from bench.rounds import Results
from bench.sample import Exported, Measurement, Sample

EXPORTED = Exported(
    recorded=1000,
    server_spans=1000,
    lost=0,
    in_time_64=0.97,
    run_spans=300,
    data_points=40,
    log_records=2,
    exports=9,
    bytes=1_200_000,
)


def sample(rate: float, exported: Exported | None = None, *, load_busy: float = 0.3) -> Sample:
    """Of a server that has its core to itself: a request costs what the rate leaves it."""
    burst = a_burst(requests_per_second=rate)
    many = Measurement(
        burst=burst,
        began_seconds=10.0,
        ended_seconds=11.0,
        errors=0,
        server_busy=1.0,
        load_busy=load_busy,
        receiver_busy=0.05,
        others_busy=0.0,
        requests_per_cpu_second=rate,
    )
    return Sample(many, many, exported)


ROUNDS = [
    {UNOBSERVED.key: sample(25_000), DRIFTGATE.key: sample(24_000), EXPORTING.key: sample(20_000, EXPORTED)},
    {UNOBSERVED.key: sample(12_500), DRIFTGATE.key: sample(12_000), EXPORTING.key: sample(11_250, EXPORTED)},
    {UNOBSERVED.key: sample(25_000), DRIFTGATE.key: sample(25_500), EXPORTING.key: sample(21_250, EXPORTED)},
]


def text_of(results: Results) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_costs(results, OBSERVED))
    return capture.get()


def test_the_cost_of_a_request_is_the_median_of_the_rounds_own_differences() -> None:
    """By round: 10, 8.89 and 7.06 µs."""
    assert cost_us(ROUNDS, EXPORTING.key) == pytest.approx(1e6 / 11_250 - 1e6 / 12_500)
    assert cost_us(ROUNDS, UNOBSERVED.key) == 0
    assert cost_us(ROUNDS, SDK.key) is None


def test_a_cost_holds_ratios_to_telemetry_off_and_the_sums_of_what_was_exported() -> None:
    cost = cost_of(ROUNDS, EXPORTING)

    assert cost is not None
    assert (cost.least_to_off, cost.to_off, cost.greatest_to_off) == (0.80, 0.85, 0.90)
    assert cost.exported is not None
    assert cost.exported == dataclasses.replace(
        EXPORTED,
        recorded=3000,
        server_spans=3000,
        run_spans=900,
        data_points=120,
        log_records=6,
        exports=27,
        bytes=3_600_000,
    )


def test_without_telemetry_off_there_is_nothing_to_hold_a_cost_against() -> None:
    cost = cost_of([{EXPORTING.key: sample(20_000, EXPORTED)}], EXPORTING)

    assert cost is not None
    assert (cost.to_off, cost.least_to_off, cost.cost_us_per_request) == (None, None, None)
    assert cost.cpu_us_per_request == pytest.approx(50)
    assert not is_of_interest((AIO_ECHO, EXPORTING))
    assert not is_of_interest((AIO_ECHO, UNOBSERVED))
    assert is_of_interest((UNOBSERVED, EXPORTING))


def test_a_server_never_measured_has_no_cost() -> None:
    assert cost_of(ROUNDS, SDK) is None


def test_the_table_shows_ratio_cost_and_what_arrived() -> None:
    lines = text_of(Results(ROUNDS, {})).splitlines()

    (own,) = (line for line in lines if EXPORTING.title in line)
    for shown in ("0.85x", "0.80-0.90", "+8.9", "97%", "3,000", "900", "120", "30%, 5%"):
        assert shown in own
    (off,) = (line for line in lines if UNOBSERVED.title in line)
    assert "1.00x" in off


def test_the_table_names_what_was_lost_and_what_failed() -> None:
    lossy = dataclasses.replace(EXPORTED, server_spans=877, lost=123)
    text = text_of(
        Results([{UNOBSERVED.key: sample(25_000), SDK.key: sample(5_000, lossy)}], {EXPORTING.key: "no span arrived"})
    )

    (own,) = (line for line in text.splitlines() if SDK.title in line)
    assert "123" in own
    (failed,) = (line for line in text.splitlines() if EXPORTING.title in line)
    assert "failed" in failed


def test_the_table_marks_a_load_core_that_generator_and_receiver_filled() -> None:
    def marks(busy: float) -> int:
        return text_of(Results([{EXPORTING.key: sample(20_000, EXPORTED, load_busy=busy)}], {})).count("!")

    assert marks(0.5) == 0
    assert marks(0.95) == 1


def test_statistics_are_held_against_the_same_without_them() -> None:
    rounds = [
        {UNMEASURED.key: sample(off), DRIFTGATE.key: sample(on)} for off, on in ((20_000, 19_000), (10_000, 9_000))
    ]
    assert statistics_ratio(rounds) == pytest.approx((0.925, 0.9, 0.95))
    assert "statistics on to off: 0.93x (0.90 to 0.95)" in text_of(Results(rounds, {}))
    assert statistics_ratio(ROUNDS) is None
