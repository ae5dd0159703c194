"""Whether all that a server recorded has arrived, or was counted as dropped: what the claim of an export stands on."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as Point

from bench.catalogue import ServerSpec
from bench.process import ServerFailed
from bench.receiver import Received
from bench.sample import Burst, Exported, Measurement
from bench.servers import HOST

SETTLE_SECONDS = 5.0
POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 10.0

REQUESTS = "driftgate_requests_total"
IN_FLIGHT = "driftgate_request_in_flight"
NOT_TAKEN = "otel_sdk_processor_span_processed_total"
NOT_EXPORTED = "otel_sdk_exporter_span_exported_total"
RECORDS_AT = {"driftgate": "/metrics", "triton": "/v2/models/stats"}

OF_REQUESTS = "/requests"
"""How the name of the component ends that exports requests' spans; that of runs' spans is another."""


class Sent:
    """How many requests a server has had: between `least` and `most`, since those that failed, and those under way when
    a load ends, may or may not have reached it.
    """

    def __init__(self) -> None:
        self.least = 0
        self.most = 0

    def add(self, requests: int) -> None:
        self.least += requests
        self.most += requests

    def add_burst(self, burst: Burst) -> None:
        self.least += burst.requests
        self.most += burst.requests + burst.failed + burst.undecided


@dataclass(frozen=True, slots=True)
class Recorded:
    """By what the server says of itself; `dropped`: spans of requests that were not exported, for whatever reason."""

    requests: int
    dropped: int
    in_flight: int


def read_recorded(text: str) -> Recorded:
    """From /metrics. Raises ServerFailed where it does not count requests."""
    points = list(_points(text))
    if not any(point.name == REQUESTS for point in points):
        raise ServerFailed(f"/metrics has no {REQUESTS}")
    dropped = 0.0
    for point in points:
        lost = point.labels.get("error_type")
        of_requests = point.labels.get("otel_component_name", "").endswith(OF_REQUESTS)
        if lost and (point.name == NOT_TAKEN or (point.name == NOT_EXPORTED and of_requests)):
            dropped += point.value
    return Recorded(
        requests=_sum(points, REQUESTS),
        dropped=round(dropped),
        in_flight=_sum(points, IN_FLIGHT),
    )


def read_triton(text: str) -> Recorded:
    """From Triton's statistics extension, /v2/models/stats, which knows nothing of spans: none counts as dropped."""
    statistics = [model["inference_stats"] for model in json.loads(text)["model_stats"]]
    answered = sum(each[kind]["count"] for each in statistics for kind in ("success", "fail"))
    return Recorded(requests=answered, dropped=0, in_flight=0)


def settled(spec: ServerSpec, http_port: int) -> Recorded:
    """Asked until nothing is in flight and the count of requests stands still. Raises ServerFailed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before = _ask(spec, http_port)
    while True:
        time.sleep(POLL_SECONDS)
        now = _ask(spec, http_port)
        if now.requests == before.requests and not now.in_flight:
            return now
        if time.monotonic() > deadline:
            raise ServerFailed(f"{now.in_flight} requests in flight {SETTLE_SECONDS:.0f} s after the load")
        before = now


def objection(spec: ServerSpec, sent: Sent, recorded: Recorded, received: Received) -> str | None:
    """Why what arrived is not all that `spec` owes to a receiver that takes everything; None if it is."""
    if not sent.least <= recorded.requests <= sent.most:
        return f"recorded {recorded.requests:,} requests, of which the load made {sent.least:,} to {sent.most:,}"
    if not received.server_spans:
        return "no span of a request arrived"
    if received.server_spans > recorded.requests:
        return f"{received.server_spans:,} requests' spans arrived of {recorded.requests:,} requests"
    if spec.counts_drops and received.server_spans + recorded.dropped != recorded.requests:
        return (
            f"recorded {recorded.requests:,} requests, of which {received.server_spans:,} spans arrived and "
            f"{recorded.dropped:,} were counted as dropped"
        )
    if spec.exports_metrics and not received.data_points:
        return "no data point of a metric arrived"
    if spec.exports_logs and not received.log_records:
        return "no log record arrived"
    return None


def summed_up(recorded: Recorded, received: Received, many: Measurement) -> Exported:
    in_time = received.between(many.began_seconds, many.ended_seconds)
    return Exported(
        recorded=recorded.requests,
        server_spans=received.server_spans,
        lost=recorded.requests - received.server_spans,
        in_time_64=in_time / many.burst.requests,
        run_spans=received.other_spans,
        data_points=received.data_points,
        log_records=received.log_records,
        exports=received.exports,
        bytes=received.bytes,
    )


def _ask(spec: ServerSpec, http_port: int) -> Recorded:
    path = RECORDS_AT[spec.records]
    try:
        with urllib.request.urlopen(f"http://{HOST}:{http_port}{path}", timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read().decode()
    except (URLError, OSError) as error:
        raise ServerFailed(f"{path} cannot be read: {error}") from error
    return read_triton(text) if spec.records == "triton" else read_recorded(text)


def _points(text: str) -> Iterator[Point]:
    for family in text_string_to_metric_families(text):
        yield from family.samples


def _sum(points: list[Point], name: str) -> int:
    return round(sum(point.value for point in points if point.name == name))
