"""Rounds become rows, ratios and a table."""

import dataclasses

import pytest
from rich.console import Console
from support.bursts import burst

from bench.catalogue import AIO_ECHO, SERVERS, SYNC_ECHO
from bench.rounds import Results
from bench.sample import Measurement, Sample
from bench.table import ratio, render, summarise

DRIFTGATE = next(spec for spec in SERVERS if spec.key == "driftgate")


def sample(rate: float, *, errors: int = 0, load_busy: float = 0.2, others_busy: float = 0.0) -> Sample:
    many = Measurement(
        began_seconds=10.0,
        ended_seconds=12.0,
        burst=burst(requests_per_second=rate, p50_ms=64_000 / rate, p99_ms=128_000 / rate),
        errors=errors,
        server_busy=0.97,
        load_busy=load_busy,
        receiver_busy=0.0,
        others_busy=others_busy,
        requests_per_cpu_second=rate / 0.97,
    )
    one = dataclasses.replace(many, errors=0, burst=dataclasses.replace(many.burst, requests_per_second=rate / 4))
    return Sample(many=many, one=one)


def text_of(results: Results) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render(results, (AIO_ECHO, SYNC_ECHO, DRIFTGATE), "how it was measured"))
    return capture.get()


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """The second round ran on a machine half as fast: it changes no ratio, though it changes each median."""
    rounds = [
        {"driftgate": sample(12_000), "aio-echo": sample(3_000)},
        {"driftgate": sample(6_000), "aio-echo": sample(1_500)},
        {"driftgate": sample(15_000), "aio-echo": sample(3_000)},
    ]

    assert ratio(rounds, "driftgate", "aio-echo") == 4.0


def test_a_ratio_takes_only_rounds_that_have_both() -> None:
    rounds = [
        {"driftgate": sample(12_000), "aio-echo": sample(3_000)},
        {"driftgate": sample(90_000)},
        {"aio-echo": sample(1)},
    ]

    assert ratio(rounds, "driftgate", "aio-echo") == 4.0


def test_there_is_no_ratio_to_a_peer_that_was_not_measured() -> None:
    assert ratio([{"driftgate": sample(12_000)}], "driftgate", "aio-echo") is None


def test_a_row_holds_medians_the_spread_and_the_sum_of_errors() -> None:
    rates = (9_000, 12_000, 10_000)

    row = summarise([{"driftgate": sample(rate, errors=2)} for rate in rates], DRIFTGATE)

    assert row is not None
    assert (row.requests_per_second_64, row.least_64, row.greatest_64) == (10_000, 9_000, 12_000)
    assert row.requests_per_second_1 == 2_500
    assert row.p50_ms_64 == pytest.approx(6.4)
    assert row.p99_ms_64 == pytest.approx(12.8)
    assert row.errors == 6
    assert row.to_aio_echo is None


def test_a_server_never_measured_has_no_row() -> None:
    assert summarise([{"aio-echo": sample(1)}], DRIFTGATE) is None


def test_the_table_shows_ratios_and_what_was_not_compared() -> None:
    lines = text_of(
        Results(rounds=[{"driftgate": sample(12_000), "aio-echo": sample(3_000)}], failures={})
    ).splitlines()

    (own,) = (line for line in lines if DRIFTGATE.title in line)
    assert "12,000" in own
    assert "4.00x" in own
    assert " - " in own  # grpc.server echo did not run


def test_the_table_names_a_server_that_failed_without_breaking_off() -> None:
    text = text_of(Results(rounds=[{"aio-echo": sample(3_000)}], failures={"driftgate": "ended with 1"}))

    (own,) = (line for line in text.splitlines() if DRIFTGATE.title in line)
    assert "failed" in own
    assert AIO_ECHO.title in text


def test_the_table_marks_rates_that_the_load_core_or_other_work_limited() -> None:
    def marks(each: Sample) -> int:
        return text_of(Results(rounds=[{"driftgate": each}], failures={})).count("!")

    assert marks(sample(12_000)) == 0
    assert marks(sample(12_000, load_busy=0.95)) == 1
    assert marks(sample(12_000, others_busy=0.3)) == 1
