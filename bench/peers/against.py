"""driftgate with all on, against each other server: ratios of one round each, and their median."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from bench.catalogue import ALL_ON, ServerSpec
from bench.inprocess import Limit
from bench.sample import Sample
from bench.table import pairs, rate_ratio


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the rounds."""

    middle: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: list[float]) -> Spread | None:
        return cls(median(figures), min(figures), max(figures)) if figures else None


@dataclass(frozen=True, slots=True)
class Against:
    """One server, and how driftgate with all on compares with it; None where no round has both, or it is itself.

    `rate_ratio`: requests/s at 64 in flight, driftgate's to its. `latency_ratio`: the p50 at 1 in flight, its to
    driftgate's, so that both are above 1 where driftgate is better. `spans_lost`: the share of the spans that its
    requests should have given, None where it exports none. `requests_per_cpu_second`: its own, at 64 in flight.
    """

    title: str
    requests_per_second_64: Spread
    rate_ratio: Spread | None
    p50_ms_1: Spread
    p99_ms_1: Spread
    latency_ratio: Spread | None
    p99_ms_64: float
    requests_per_cpu_second_64: float
    spans_lost: float | None
    load_busy_64: float
    others_busy: float
    errors: int


def against(rounds: list[dict[str, Sample]], spec: ServerSpec) -> Against | None:
    """None if the server was never measured."""
    samples = [by_key[spec.key] for by_key in rounds if spec.key in by_key]
    both = pairs(rounds, ALL_ON.key, spec.key) if spec.key != ALL_ON.key else []
    rates = Spread.of([sample.many.burst.requests_per_second for sample in samples])
    latencies = Spread.of([sample.one.burst.p50_ms for sample in samples])
    tails = Spread.of([sample.one.burst.p99_ms for sample in samples])
    if rates is None or latencies is None or tails is None:
        return None
    return Against(
        title=spec.title,
        requests_per_second_64=rates,
        rate_ratio=Spread.of([rate_ratio(own, peer) for own, peer in both]),
        p50_ms_1=latencies,
        p99_ms_1=tails,
        latency_ratio=Spread.of([peer.one.burst.p50_ms / own.one.burst.p50_ms for own, peer in both]),
        p99_ms_64=median(sample.many.burst.p99_ms for sample in samples),
        requests_per_cpu_second_64=median(sample.many.requests_per_cpu_second for sample in samples),
        spans_lost=spans_lost(samples, spec),
        load_busy_64=median(sample.many.load_busy for sample in samples),
        others_busy=median(max(sample.many.others_busy, sample.one.others_busy) for sample in samples),
        errors=sum(sample.errors for sample in samples),
    )


def spans_lost(samples: list[Sample], spec: ServerSpec) -> float | None:
    """The share over all rounds; None where nothing is exported.

    Of a server that counts its drops only requests' spans are known to the last one: runs' spans have no fixed number.
    """
    exported = [sample.exported for sample in samples if sample.exported is not None]
    owed = spec.spans_of_request * sum(each.recorded for each in exported)
    if not owed:
        return None
    arrived = sum(each.server_spans for each in exported)
    if spec.spans_of_request > 1:
        arrived += sum(each.run_spans for each in exported)
    return 1 - arrived / owed


@dataclass(frozen=True, slots=True)
class InProcess:
    """ONNX Runtime in a loop, `rows` a call; `of_limit`: the rows that driftgate with all on answers, to these."""

    rows: int
    rows_per_second: Spread
    median_us: float
    of_limit: Spread | None


def in_process(limits: list[dict[int, Limit]], rounds: list[dict[str, Sample]], rows: int) -> InProcess | None:
    """`limits[i]`: of round i, by rows a call. None if it was not measured."""
    own = [by_rows[rows] for by_rows in limits if rows in by_rows]
    rates = Spread.of([limit.rows_per_second for limit in own])
    if rates is None:
        return None
    shares = [
        samples[ALL_ON.key].many.burst.requests_per_second / by_rows[rows].rows_per_second
        for by_rows, samples in zip(limits, rounds, strict=True)
        if rows in by_rows and ALL_ON.key in samples
    ]
    return InProcess(rows, rates, median(limit.median_us for limit in own), Spread.of(shares))
