"""What observing costs: driftgate with telemetry, statistics and another's telemetry, and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.table import Table

from bench.catalogue import DRIFTGATE, OBSERVED, UNMEASURED, UNOBSERVED, ServerSpec
from bench.rounds import Results
from bench.sample import Exported, Sample
from bench.table import load_core, pairs, rate_ratio, ratio, times

CAPTION = (
    "ratio: median, least and greatest of the rounds' own; CPU µs: of the whole process tree, per request; "
    "for observing: the median of\nthe rounds' own differences to all off. "
    "sent in time: spans received while the load ran, per request of it; below 100 % work was put off.\n"
    "spans, lost, data points, log records: over all rounds; "
    "load core: with the receiver, whose part of it stands beside."
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One server beside driftgate with all of it off, at 64 in flight; None where that was not measured.

    Shares and times are medians over the rounds, counts are sums; `exported` None: it exports nothing.
    """

    title: str
    requests_per_second: float
    to_off: float | None
    least_to_off: float | None
    greatest_to_off: float | None
    cpu_us_per_request: float
    cost_us_per_request: float | None
    load_busy: float
    receiver_busy: float
    exported: Exported | None


def cost_us(rounds: list[dict[str, Sample]], key: str) -> float | None:
    """Microseconds of CPU time a request, beyond those of all off: the median of the rounds' own differences."""
    differences = [
        own.many.cpu_us_per_request - off.many.cpu_us_per_request for own, off in pairs(rounds, key, UNOBSERVED.key)
    ]
    return median(differences) if differences else None


def cost_of(rounds: list[dict[str, Sample]], spec: ServerSpec) -> Cost | None:
    """None if the server was never measured."""
    samples = [by_key[spec.key] for by_key in rounds if spec.key in by_key]
    if not samples:
        return None

    def middle(figure: Callable[[Sample], float]) -> float:
        return median(map(figure, samples))

    ratios = [rate_ratio(own, off) for own, off in pairs(rounds, spec.key, UNOBSERVED.key)]
    return Cost(
        title=spec.title,
        requests_per_second=middle(lambda sample: sample.many.burst.requests_per_second),
        to_off=ratio(rounds, spec.key, UNOBSERVED.key),
        least_to_off=min(ratios, default=None),
        greatest_to_off=max(ratios, default=None),
        cpu_us_per_request=middle(lambda sample: sample.many.cpu_us_per_request),
        cost_us_per_request=cost_us(rounds, spec.key),
        load_busy=middle(lambda sample: sample.many.load_busy),
        receiver_busy=middle(lambda sample: sample.many.receiver_busy),
        exported=_together([sample.exported for sample in samples if sample.exported is not None]),
    )


def is_of_interest(servers: tuple[ServerSpec, ...]) -> bool:
    """Whether one of them can be held against all off."""
    return UNOBSERVED in servers and any(spec in servers for spec in OBSERVED if spec is not UNOBSERVED)


def statistics_ratio(rounds: list[dict[str, Sample]]) -> tuple[float, float, float] | None:
    """Rates with statistics to those without, all else alike: median, least and greatest of the rounds' own."""
    ratios = [rate_ratio(own, off) for own, off in pairs(rounds, DRIFTGATE.key, UNMEASURED.key)]
    return (median(ratios), min(ratios), max(ratios)) if ratios else None


def _caption(results: Results) -> str:
    ratios = statistics_ratio(results.rounds)
    if ratios is None:
        return CAPTION
    middle, least, greatest = ratios
    return f"statistics on to off: {middle:.2f}x ({least:.2f} to {greatest:.2f}). {CAPTION}"


def render_costs(results: Results, servers: tuple[ServerSpec, ...]) -> Table:
    table = Table(title="What observing costs", caption=_caption(results), caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("server", no_wrap=True)
    for heading in (
        "req/s\n@64",
        "to\nall off",
        "least-\ngreatest",
        "CPU µs a\nrequest",
        "for\nobserving",
        "sent\nin time",
        "spans of\nrequests",
        "lost",
        "spans\nof runs",
        "data\npoints",
        "log\nrecords",
        "load core,\nreceiver",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for spec in OBSERVED:
        if spec in servers:
            cost = cost_of(results.rounds, spec)
            if cost is not None:
                table.add_row(*_cells(cost))
            if spec.key in results.failures:
                table.add_row(spec.title, "[bold red]failed[/]")
    return table


def _together(exported: list[Exported]) -> Exported | None:
    if not exported:
        return None
    return Exported(
        recorded=sum(each.recorded for each in exported),
        server_spans=sum(each.server_spans for each in exported),
        lost=sum(each.lost for each in exported),
        in_time_64=median(each.in_time_64 for each in exported),
        run_spans=sum(each.run_spans for each in exported),
        data_points=sum(each.data_points for each in exported),
        log_records=sum(each.log_records for each in exported),
        exports=sum(each.exports for each in exported),
        bytes=sum(each.bytes for each in exported),
    )


def _cells(cost: Cost) -> list[str]:
    spread = "-"
    if cost.least_to_off is not None and cost.greatest_to_off is not None:
        spread = f"{cost.least_to_off:.2f}-{cost.greatest_to_off:.2f}"
    cells = [
        cost.title,
        f"{cost.requests_per_second:,.0f}",
        times(cost.to_off),
        spread,
        f"{cost.cpu_us_per_request:.1f}",
        "-" if cost.cost_us_per_request is None else f"{cost.cost_us_per_request:+.1f}",
    ]
    if cost.exported is None:
        return [*cells, *["-"] * 6, load_core(cost.load_busy)]
    exported = cost.exported
    return [
        *cells,
        f"{exported.in_time_64:.0%}",
        f"{exported.server_spans:,}",
        f"[bold red]{exported.lost:,}[/]" if exported.lost else "0",
        f"{exported.run_spans:,}",
        f"{exported.data_points:,}",
        f"{exported.log_records:,}",
        f"{load_core(cost.load_busy)}, {cost.receiver_busy:.0%}",
    ]
