"""Rounds of servers under two loads as one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.catalogue import (
    AIO_ECHO,
    ALL_ON,
    DRIFTGATE,
    POLLED_ECHO,
    QUEUE_ECHO,
    SYNC_ECHO,
    UNMEASURED,
    UNOBSERVED,
    ServerSpec,
)
from bench.report.results import Column, Results, Row, Table, Values
from bench.report.setting import results_of
from bench.rounds import Bench
from bench.rounds import Results as Rounds
from bench.sample import Sample

MEASURED: dict[Column, Callable[[Sample], float | None]] = {
    Column("rate_64", "64 in flight", "requests/s", spread=True): lambda s: s.many.burst.requests_per_second,
    Column("p50_64", "p50, 64 in flight", "ms", ".2f"): lambda s: s.many.burst.p50_ms,
    Column("p99_64", "p99, 64 in flight", "ms", ".2f"): lambda s: s.many.burst.p99_ms,
    Column("rate_1", "1 in flight", "requests/s"): lambda s: s.one.burst.requests_per_second,
    Column("p50_1", "p50, 1 in flight", "ms", ".3f"): lambda s: s.one.burst.p50_ms,
    Column("p99_1", "p99, 1 in flight", "ms", ".3f"): lambda s: s.one.burst.p99_ms,
    Column("cpu_64", "CPU a request, 64 in flight", "µs", ".1f"): lambda s: s.many.cpu_us_per_request,
    Column("cpu_1", "CPU a request, 1 in flight", "µs", ".1f"): lambda s: s.one.cpu_us_per_request,
    Column("errors", "errors", format=".0f"): lambda s: s.errors,
    Column("server_busy", "of the server's core used", format=".0%"): lambda s: s.many.server_busy,
    Column("load_busy", "of the load's core used", format=".0%"): lambda s: s.many.load_busy,
    Column("others_busy", "of a core taken by others", format=".0%"): lambda s: max(
        s.many.others_busy, s.one.others_busy
    ),
    Column("spans", "spans received", format=",.0f"): lambda s: s.exported.server_spans if s.exported else None,
    Column("spans_lost", "spans lost", format=",.0f"): lambda s: s.exported.lost if s.exported else None,
}

DERIVED = (
    Column("to_sync_echo", "to `grpc.server` echo", "", ".2f", of="rate_64", to=SYNC_ECHO.key),
    Column("to_aio_echo", "to `grpc.aio` echo", "", ".2f", of="rate_64", to=AIO_ECHO.key),
    Column("to_queue_echo", "to queue echo", "", ".2f", of="rate_64", to=QUEUE_ECHO.key),
    Column("to_polled_echo", "to polled echo", "", ".2f", of="rate_64", to=POLLED_ECHO.key),
    Column("to_off", "to all off", "", ".2f", spread=True, of="rate_64", to=UNOBSERVED.key),
    Column("to_unmeasured", "to statistics off", "", ".2f", spread=True, of="rate_64", to=UNMEASURED.key),
    Column("to_one_version", "to one version", "", ".2f", spread=True, of="rate_64", to=DRIFTGATE.key),
    Column("cpu_beyond_off", "beyond all off", "µs", "+.1f", of="cpu_64", to=UNOBSERVED.key, how="difference"),
    Column("all_on_to_it", "driftgate, all on, to it", "", ".2f", True, "rate_64", ALL_ON.key, "inverse"),
    Column("latency_to_all_on", "p50 at 1 in flight, to driftgate's", "", ".2f", True, "p50_1", ALL_ON.key),
)


def servers_table(name: str, title: str, rounds: Rounds, servers: tuple[ServerSpec, ...]) -> Table:
    """A row for each server that was measured in some round."""
    measured = {spec.key: spec for spec in servers if any(spec.key in samples for samples in rounds.rounds)}
    derived = tuple(column for column in DERIVED if column.to in measured)
    return Table(name, title, (*MEASURED, *derived), tuple(_row(rounds, spec) for spec in measured.values()), "server")


def _row(rounds: Rounds, spec: ServerSpec) -> Row:
    samples = [by_key.get(spec.key) for by_key in rounds.rounds]

    def values(figure: Callable[[Sample], float | None]) -> Values:
        return tuple(figure(sample) if sample is not None else None for sample in samples)

    return Row(spec.key, spec.title, {column.key: values(figure) for column, figure in MEASURED.items()})


def of_rounds(
    bench: Bench,
    rounds: Rounds,
    *,
    module: str = "bench",
    name: str = "servers",
    title: str = "One core for the server",
    more: tuple[Table, ...] = (),
    versions: Mapping[str, str] | None = None,
) -> Results:
    """`more`: further tables of the run."""
    workload = bench.workload
    return results_of(
        module,
        (servers_table(name, title, rounds, bench.plan.servers), *more),
        cores=bench.cores,
        rounds=bench.plan.rounds,
        seconds=bench.plan.seconds,
        warm_up_seconds=bench.plan.warm_up_seconds,
        generator=bench.generator.name,
        note=(
            f"64 in flight: 4 connections with 16 streams each; {len(workload.request)}-byte requests, "
            f"{len(workload.requests)} different rows in turn, a linear model of 30 features."
        ),
        failures=rounds.failures,
        versions=versions,
    )
