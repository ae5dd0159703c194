"""Rounds to rows, rows to one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.table import Table

from bench.catalogue import AIO_ECHO, SYNC_ECHO, ServerSpec
from bench.rounds import Results
from bench.sample import Sample

LOAD_BOUND = 0.9
"""Share of a core above which the load generator, not the server, may have set the rate."""

DISTURBED = 0.1
"""Share of one of the two cores that something else took, above which the machine was not quiet enough."""


@dataclass(frozen=True, slots=True)
class Row:
    """One server over all rounds: medians, the least and the greatest rate, and ratios (None without the peer).

    A ratio is the median of the rounds' own ratios, each of two servers measured within seconds of one another.
    """

    title: str
    requests_per_second_64: float
    least_64: float
    greatest_64: float
    to_sync_echo: float | None
    to_aio_echo: float | None
    p50_ms_64: float
    p99_ms_64: float
    requests_per_cpu_second_64: float
    server_busy_64: float
    others_busy: float
    load_busy_64: float
    requests_per_second_1: float
    p50_ms_1: float
    errors: int


def pairs(rounds: list[dict[str, Sample]], key: str, peer: str) -> list[tuple[Sample, Sample]]:
    """Of the rounds that have both: the server's sample and its peer's."""
    return [(samples[key], samples[peer]) for samples in rounds if key in samples and peer in samples]


def rate_ratio(own: Sample, other: Sample) -> float:
    return own.many.burst.requests_per_second / other.many.burst.requests_per_second


def ratio(rounds: list[dict[str, Sample]], key: str, peer: str) -> float | None:
    """How many times the peer's rate at 64 in flight a server reaches; None if no round has both."""
    ratios = [rate_ratio(own, other) for own, other in pairs(rounds, key, peer)]
    return median(ratios) if ratios else None


def summarise(rounds: list[dict[str, Sample]], spec: ServerSpec) -> Row | None:
    """None if the server was never measured."""
    samples = [by_key[spec.key] for by_key in rounds if spec.key in by_key]
    if not samples:
        return None

    def middle(figure: Callable[[Sample], float]) -> float:
        return median(map(figure, samples))

    rates = [sample.many.burst.requests_per_second for sample in samples]
    return Row(
        title=spec.title,
        requests_per_second_64=median(rates),
        least_64=min(rates),
        greatest_64=max(rates),
        to_sync_echo=ratio(rounds, spec.key, SYNC_ECHO.key),
        to_aio_echo=ratio(rounds, spec.key, AIO_ECHO.key),
        p50_ms_64=middle(lambda sample: sample.many.burst.p50_ms),
        p99_ms_64=middle(lambda sample: sample.many.burst.p99_ms),
        requests_per_cpu_second_64=middle(lambda sample: sample.many.requests_per_cpu_second),
        server_busy_64=middle(lambda sample: sample.many.server_busy),
        others_busy=middle(lambda sample: max(sample.many.others_busy, sample.one.others_busy)),
        load_busy_64=middle(lambda sample: sample.many.load_busy),
        requests_per_second_1=middle(lambda sample: sample.one.burst.requests_per_second),
        p50_ms_1=middle(lambda sample: sample.one.burst.p50_ms),
        errors=sum(sample.errors for sample in samples),
    )


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def load_core(busy: float) -> str:
    return f"{busy:.0%}{' !' if busy > LOAD_BOUND else ''}"


def _cells(row: Row) -> list[str]:
    return [
        row.title,
        f"{row.requests_per_second_64:,.0f}",
        f"{row.least_64:,.0f}-{row.greatest_64:,.0f}",
        times(row.to_sync_echo),
        times(row.to_aio_echo),
        f"{row.p50_ms_64:.2f}",
        f"{row.p99_ms_64:.2f}",
        f"{row.requests_per_second_1:,.0f}",
        f"{row.p50_ms_1:.3f}",
        f"{row.requests_per_cpu_second_64:,.0f}",
        f"{row.others_busy:.0%}{' !' if row.others_busy > DISTURBED else ''}",
        load_core(row.load_busy_64),
        f"[bold red]{row.errors:,}[/]" if row.errors else "0",
    ]


def render(results: Results, servers: tuple[ServerSpec, ...], caption: str) -> Table:
    table = Table(title="One core for the server", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("server", no_wrap=True)
    for heading in (
        "req/s\n@64",
        "least-greatest\n@64",
        "to grpc.\nserver echo",
        "to grpc.\naio echo",
        "p50 ms\n@64",
        "p99 ms\n@64",
        "req/s\n@1",
        "p50 ms\n@1",
        "req/CPU s\n@64",
        "others on\na core",
        "load\ncore @64",
        "errors",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for spec in servers:
        row = summarise(results.rounds, spec)
        if row is not None:
            table.add_row(*_cells(row))
        if spec.key in results.failures:
            table.add_row(spec.title, "[bold red]failed[/]")
    return table
