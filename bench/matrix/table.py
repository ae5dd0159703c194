"""Rounds to rows, rows to a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich import box
from rich.table import Table

from bench.matrix.case import Case, Claim, Round, Step
from bench.sample import Measurement
from bench.table import DISTURBED, LOAD_BOUND


@dataclass(frozen=True, slots=True)
class Row:
    """One case under one load, over all rounds: medians, the least and the greatest rate.

    `ratio`: the median of the rounds' own ratios to the case that it is held against, with the least and the greatest;
    None for that case itself. `requests` have `rows` rows each. `offered_per_second`: None in a closed loop.
    """

    case: str
    step: str
    title: str
    step_title: str
    rows: int
    in_flight: int
    request_bytes: int
    requests_per_second: float
    least: float
    greatest: float
    ratio: float | None
    least_ratio: float | None
    greatest_ratio: float | None
    offered_per_second: float | None
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    longest_ms: float
    late_p99_ms: float
    cpu_us_per_request: float
    server_busy: float
    load_busy: float
    others_busy: float
    errors: int


@dataclass(frozen=True, slots=True)
class Verdict:
    title: str
    bound: float
    at_least: bool
    median: float
    least: float
    greatest: float
    holds: bool


def rows_of(cases: Sequence[Case], rounds: Sequence[Round]) -> list[Row]:
    """Of each case and step that was ever measured, in the cases' order, steps of a kind together."""
    rows = [
        _row(case, step, rounds)
        for case in cases
        for step in case.steps
        if any(step.key in samples.get(case.key, {}) for samples in rounds)
    ]
    places = {key: place for place, key in enumerate(dict.fromkeys(step.key for case in cases for step in case.steps))}
    return sorted(rows, key=lambda row: places[row.step])


def _row(case: Case, step: Step, rounds: Sequence[Round]) -> Row:
    samples = [by_case[case.key][step.key] for by_case in rounds if step.key in by_case.get(case.key, {})]

    def middle(figure: Callable[[Measurement], float]) -> float:
        return median(map(figure, samples))

    rates = [sample.burst.requests_per_second for sample in samples]
    ratios = _ratios(case.key, case.against, step.key, rounds)
    return Row(
        case=case.key,
        step=step.key,
        title=case.title,
        step_title=step.title,
        rows=step.workload.rows,
        in_flight=step.load.in_flight,
        request_bytes=step.workload.request_bytes,
        requests_per_second=median(rates),
        least=min(rates),
        greatest=max(rates),
        ratio=median(ratios) if ratios else None,
        least_ratio=min(ratios) if ratios else None,
        greatest_ratio=max(ratios) if ratios else None,
        offered_per_second=None if step.share is None else middle(_offered),
        p50_ms=middle(lambda sample: sample.burst.p50_ms),
        p90_ms=middle(lambda sample: sample.burst.p90_ms),
        p99_ms=middle(lambda sample: sample.burst.p99_ms),
        p999_ms=middle(lambda sample: sample.burst.p999_ms),
        longest_ms=max(sample.burst.longest_ms for sample in samples),
        late_p99_ms=middle(lambda sample: sample.burst.late_p99_ms),
        cpu_us_per_request=middle(lambda sample: sample.cpu_us_per_request),
        server_busy=middle(lambda sample: sample.server_busy),
        load_busy=middle(lambda sample: sample.load_busy),
        others_busy=middle(lambda sample: sample.others_busy),
        errors=sum(sample.errors for sample in samples),
    )


def _offered(sample: Measurement) -> float:
    return sample.burst.offered / (sample.ended_seconds - sample.began_seconds)


def _ratios(case: str, against: str, step: str, rounds: Sequence[Round]) -> list[float]:
    """Of the rounds that have both."""
    both = [
        (samples[case][step], samples[against][step])
        for samples in rounds
        if step in samples.get(case, {}) and step in samples.get(against, {})
    ]
    return [own.burst.requests_per_second / other.burst.requests_per_second for own, other in both]


def verdicts(claims: Sequence[Claim], rounds: Sequence[Round]) -> list[Verdict]:
    """Of claims whose cases were measured in a round at least."""
    judged = []
    for claim in claims:
        figures = []
        for samples in rounds:
            try:
                figures.append(claim.figure(samples))
            except KeyError:
                continue
        if figures:
            middle = median(figures)
            judged.append(
                Verdict(
                    claim.title,
                    claim.bound,
                    claim.at_least,
                    middle,
                    min(figures),
                    max(figures),
                    claim.holds(middle),
                )
            )
    return judged


def render(title: str, rows: Sequence[Row], failures: Mapping[str, str], caption: str) -> Table:
    table = Table(title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("case", "load"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "rows a\nreq",
        "req/s",
        "least-\ngreatest",
        "ratio",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "longest\nms",
        "CPU µs\na req",
        "load\ncore",
        "others on\na core",
        "errors",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    step = rows[0].step if rows else ""
    for row in rows:
        if row.step != step:
            table.add_section()
            step = row.step
        table.add_row(*_cells(row))
    for case, why in failures.items():
        table.add_row(case, f"[bold red]failed[/]: {why.splitlines()[0][:80]}")
    return table


def _cells(row: Row) -> list[str]:
    return [
        row.title,
        row.step_title,
        str(row.rows),
        _figure(row.requests_per_second),
        f"{_figure(row.least)}-{_figure(row.greatest)}",
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        *(_milliseconds(ms) for ms in (row.p50_ms, row.p90_ms, row.p99_ms, row.p999_ms, row.longest_ms)),
        _figure(row.cpu_us_per_request),
        f"{row.load_busy:.0%}{' !' if row.load_busy > LOAD_BOUND else ''}",
        f"{row.others_busy:.0%}{' !' if row.others_busy > DISTURBED else ''}",
        f"[bold red]{row.errors:,}[/]" if row.errors else "0",
    ]


def _milliseconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def render_claims(judged: Sequence[Verdict]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("what is claimed", no_wrap=True)
    for heading in ("bound", "median", "least-greatest", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for verdict in judged:
        table.add_row(
            verdict.title,
            f"{'≥' if verdict.at_least else '≤'} {verdict.bound:g}",
            f"{verdict.median:.3f}",
            f"{verdict.least:.3f}-{verdict.greatest:.3f}",
            "[green]holds[/]" if verdict.holds else "[bold red]falls short[/]",
        )
    return table
