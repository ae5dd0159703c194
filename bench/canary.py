"""What a canary costs: a model whose requests are shared out 90 to 10 over two versions, beside one version alone."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from rich import box
from rich.table import Table

from bench.catalogue import CANARY, DRIFTGATE
from bench.rounds import Results
from bench.sample import Sample
from bench.table import pairs, rate_ratio, times

CAPTION = (
    "both versions are the same model; each request is drawn, and what is ready at once becomes a run of each version\n"
    "ratio: median, least and greatest of the rounds' own; for routing: CPU time of a request beyond one version's"
)


@dataclass(frozen=True, slots=True)
class CanaryCost:
    """At 64 in flight; all but the least and the greatest are medians over the rounds that have both servers."""

    requests_per_second: float
    requests_per_second_of_one_version: float
    ratio: float
    least_ratio: float
    greatest_ratio: float
    cpu_us_per_request: float
    cpu_us_per_request_of_one_version: float
    cost_us_per_request: float


def canary_cost(rounds: list[dict[str, Sample]]) -> CanaryCost | None:
    """None if no round has both servers."""
    both = pairs(rounds, CANARY.key, DRIFTGATE.key)
    if not both:
        return None
    ratios = [rate_ratio(canary, one) for canary, one in both]
    return CanaryCost(
        requests_per_second=median(canary.many.burst.requests_per_second for canary, _ in both),
        requests_per_second_of_one_version=median(one.many.burst.requests_per_second for _, one in both),
        ratio=median(ratios),
        least_ratio=min(ratios),
        greatest_ratio=max(ratios),
        cpu_us_per_request=median(canary.many.cpu_us_per_request for canary, _ in both),
        cpu_us_per_request_of_one_version=median(one.many.cpu_us_per_request for _, one in both),
        cost_us_per_request=median(
            canary.many.cpu_us_per_request - one.many.cpu_us_per_request for canary, one in both
        ),
    )


def render_canary(results: Results) -> Table:
    """No rows if no round has both servers."""
    table = Table(title="What a canary costs", caption=CAPTION, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("server", no_wrap=True)
    for heading in ("req/s\n@64", "to one\nversion", "least-\ngreatest", "CPU µs a\nrequest", "for\nrouting"):
        table.add_column(heading, justify="right", no_wrap=True)
    cost = canary_cost(results.rounds)
    if cost is not None:
        one, one_us = cost.requests_per_second_of_one_version, cost.cpu_us_per_request_of_one_version
        table.add_row(DRIFTGATE.title, f"{one:,.0f}", times(1.0), "-", f"{one_us:.1f}", "-")
        table.add_row(
            CANARY.title,
            f"{cost.requests_per_second:,.0f}",
            times(cost.ratio),
            f"{cost.least_ratio:.2f}-{cost.greatest_ratio:.2f}",
            f"{cost.cpu_us_per_request:.1f}",
            f"{cost.cost_us_per_request:+.1f}",
        )
    return table
