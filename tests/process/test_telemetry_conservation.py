"""Every request of a mixed load is one span, counted once in every metric, and says what its client saw.

DRIFTGATE_SPANS sets the number of requests. Figures are printed: see them with -s.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.admin import admin_of, until
from support.calls import Caller, Told
from support.gateway import Gateway
from support.predict import client_of
from support.receiver import OtlpReceiver
from support.spans import Span, requests_and_runs
from support.traffic import LABELS, VERSIONS, mixed, set_labels, write_models

from gateway.telemetry.conventions import INFER_METHOD, SERVER_ERRORS, STREAM_METHOD
from gateway.wire.pb.inference import grpc_service_pb2 as pb

pytestmark = [pytest.mark.process, pytest.mark.timeout(1800)]

SPANS = int(os.environ.get("DRIFTGATE_SPANS", "30000"))
SHARE = {"queue": 0.7, "public": 0.3}
WORKERS = 2
LINK_LIMIT = 4
"""Low, so that runs of more requests have links that are left out."""
CLOCK_TOLERANCE_NS = 20_000_000
"""Of two processes that read the same clock: one may be held up between reading it and sending."""
REPLY_TOLERANCE_NS = 500_000_000
"""A run's requests are stamped when the last reply is handed over; a client may have had the first long before."""
CODES_OF_KIND = {
    "answered": {"OK"},
    "unsampled": {"OK"},
    "unknown model": {"NOT_FOUND"},
    "unknown version": {"NOT_FOUND"},
    "wrong input": {"INVALID_ARGUMENT"},
    "no request": {"INVALID_ARGUMENT"},
    "expired": {"OK", "DEADLINE_EXCEEDED"},
    "slow": {"OK", "RESOURCE_EXHAUSTED"},
}

Key = tuple[str, str, int, str]
"""Code, model, version, variant."""


@dataclass
class Evidence:
    """What clients, receiver, /metrics and ModelStatistics tell of one load."""

    transport: str
    told: list[Told]
    requests: list[Span] = field(default_factory=list)
    runs: list[Span] = field(default_factory=list)
    page: str = ""
    statistics: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    dropped_by_receiver: int = 0

    @property
    def sampled(self) -> list[Told]:
        return [told for told in self.told if not told.ask.refuses_sampling]

    def span_of(self) -> dict[str, Span]:
        return {span.span_id: span for span in self.requests}


@pytest.fixture(scope="module", params=list(SHARE))
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("conservation")
    models = write_models(folder / "models")
    with OtlpReceiver() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}",
            "OTEL_SPAN_LINK_COUNT_LIMIT": str(LINK_LIMIT),
        }
        gateway = Gateway(
            models, folder / "state", workers=WORKERS, config={"transport": request.param}, environment=environment
        )
        with gateway:
            with admin_of(gateway.admin) as admin:
                set_labels(admin)
            began = time.monotonic()
            count = int(SPANS * SHARE[request.param])
            with Caller(gateway.grpc, mixed(count)) as caller:
                told = caller.finish()
            seconds = time.monotonic() - began
            assert len(told) == count
            found = Evidence(request.param, told)
            wanted = len(found.sampled)
            until(lambda: exported(gateway) >= wanted, f"{wanted} spans were exported", 60.0)
            print(f"\n{request.param}: {count} requests, {count / seconds:.0f}/s; {wanted} sampled")
            found.page = gateway.get("/metrics")[1]
            with client_of(gateway.grpc) as client:
                found.statistics = list(client.ask("ModelStatistics", pb.ModelStatisticsRequest()).model_stats)
        found.requests, found.runs = requests_and_runs(receiver.spans)
        found.metrics = receiver.metrics
    return found


def exported(gateway: Gateway) -> float:
    """Spans of requests whose fate is known."""
    name = "otlp_grpc_span_exporter/requests"
    ended = gateway.metric("otel_sdk_exporter_span_exported_total", otel_component_name=name)
    return ended + gateway.metric("otel_sdk_processor_span_processed_total", error_type="queue_full")


def samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(page)
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


def code_of(told: Told) -> str:
    """A message of a stream is told no code; of those here only the unknown model is refused."""
    return told.code if told.code != "error" else "NOT_FOUND"


def variant_of(version: str) -> str:
    return version if version in LABELS else "pinned" if version else "default"


def key_of(told: Told) -> Key:
    code, ask = code_of(told), told.ask
    if code == "OK":
        return code, ask.model, told.version, variant_of(ask.version)
    if ask.kind in ("expired", "slow"):  # refused by version 1
        return code, ask.model, 1, variant_of(ask.version)
    if ask.kind == "wrong input":  # refused by the newest, which it was routed to
        return code, ask.model, max(VERSIONS[ask.model]), variant_of(ask.version)
    return code, "", 0, ""


def test_clients_got_what_each_kind_of_request_deserves(evidence: Evidence) -> None:
    codes = defaultdict(set)
    for told in evidence.told:
        codes[told.ask.kind].add(code_of(told))
    assert codes.pop("stream") == {"OK", "NOT_FOUND"}
    assert all(found <= CODES_OF_KIND[kind] for kind, found in codes.items()), codes
    assert codes.keys() == CODES_OF_KIND.keys()
    assert codes["slow"] == CODES_OF_KIND["slow"]
    assert "DEADLINE_EXCEEDED" in codes["expired"]


def test_spans_received_are_the_requests_sampled_and_none_is_dropped(evidence: Evidence) -> None:
    assert len(evidence.requests) == len(evidence.sampled)
    ended = {
        labels.get("error_type", ""): value
        for labels, value in samples(evidence.page, "otel_sdk_exporter_span_exported_total")
        if labels["otel_component_name"].endswith("/requests")
    }
    assert ended.pop("") == len(evidence.sampled)
    assert not any(ended.values())
    lost = [*samples(evidence.page, "driftgate_record_dropped_total")]
    lost += [
        item for item in samples(evidence.page, "otel_sdk_processor_span_processed_total") if "error_type" in item[0]
    ]
    assert lost
    assert not any(value for _, value in lost)


def test_ids_are_unique_over_workers(evidence: Evidence) -> None:
    spans = evidence.requests + evidence.runs
    assert len({span.span_id for span in spans}) == len(spans)
    assert len({span.attributes["driftgate.worker"] for span in spans}) == WORKERS
    roots = [span.trace_id for span in evidence.requests if not span.parent_id]
    assert len(set(roots)) == len(roots)


def test_each_span_says_what_its_client_was_told(evidence: Evidence) -> None:
    spans = evidence.span_of()
    wrong = []
    for told in evidence.sampled:
        if told.streamed:
            continue
        assert told.flags == 1, told
        span = spans.pop(told.span_id)
        if differences := told_differently(told, span):
            wrong.append((told, span, differences))
    assert not wrong, (len(wrong), wrong[0])
    streamed = {span.attributes["driftgate.request.id"]: span for span in spans.values()}
    for told in evidence.told:
        if told.streamed:
            span = streamed.pop(told.ask.id)
            assert not told_differently(told, span), (told, span)
    assert not streamed, "spans of no request"


def told_differently(told: Told, span: Span) -> list[str]:
    """Attributes that are not as the client's knowledge has them."""
    ask, code, attributes = told.ask, code_of(told), span.attributes
    trace_id, parent_id = ask.parent or (told.trace_id, "")
    method = STREAM_METHOD if told.streamed else INFER_METHOD
    expected: dict[str, Any] = {
        "name": method,
        "trace_id": trace_id,
        "span_id": told.span_id or span.span_id,
        "parent_id": parent_id,
        "is_error": code in SERVER_ERRORS,
        "flags": 0x101 | (0x200 if parent_id else 0),
    }
    found: dict[str, Any] = {name: getattr(span, name) for name in expected}
    known: dict[str, Any] = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": code,
        "error.type": code if code in SERVER_ERRORS else None,
        "network.peer.address": "127.0.0.1",
        "driftgate.request.id": ask.id or None,
    }
    if code == "OK":
        known |= {
            "driftgate.model.name": ask.model,
            "driftgate.model.version": told.version,
            "driftgate.model.digest": told.digest or attributes["driftgate.model.digest"],
            "driftgate.route.variant": variant_of(ask.version),
            "driftgate.route.reason": "label" if ask.version in LABELS else "version" if ask.version else "default",
            "driftgate.request.rows": ask.request.inputs[0].shape[0],
            "driftgate.request.size": ask.request.ByteSize(),
            "driftgate.refusal.reason": None,
        }
    else:
        known["driftgate.refusal.message"] = told.message
    if code == "NOT_FOUND":
        known["driftgate.request.model"] = ask.model
    if ask.kind == "wrong input":
        known |= {"driftgate.model.name": ask.model, "driftgate.model.version": max(VERSIONS[ask.model])}
    expected |= known
    found |= {key: attributes.get(key) for key in known}
    if (message := found.get("driftgate.refusal.message")) and told.message.startswith(message):
        expected["driftgate.refusal.message"] = message  # cut to what a record holds
    return [f"{key}: expected {expected[key]!r}, got {found[key]!r}" for key in expected if expected[key] != found[key]]


def test_what_a_client_does_not_want_sampled_leaves_no_span_and_says_so(evidence: Evidence) -> None:
    spans = evidence.span_of()
    unsampled = [told for told in evidence.told if told.ask.refuses_sampling]
    assert unsampled
    for told in unsampled:
        assert told.flags == 0
        assert told.ask.parent is not None
        assert told.trace_id == told.ask.parent[0]
        assert told.span_id not in spans


def test_times_lie_within_the_clients_and_add_up(evidence: Evidence) -> None:
    spans = evidence.span_of()
    early, late = [], []
    for told in evidence.sampled:
        if not told.streamed:
            span = spans[told.span_id]
            early.append(told.sent_ns - span.start_ns)
            late.append(span.end_ns - told.received_ns)
    for name, values in (("before it was sent", early), ("after its reply came", late)):
        worst = [f"{value / 1e6:.2f}" for value in np.quantile(values, (0.5, 0.99, 0.999, 1))]
        print(f"\n{evidence.transport}: span {name}, ms (p50, p99, p99.9, max): {', '.join(worst)}")
    assert max(early) <= CLOCK_TOLERANCE_NS
    assert max(late) <= REPLY_TOLERANCE_NS
    ran = [span for span in evidence.requests if span.code == "OK"]
    for span in ran:
        assert min(span.seconds) >= 0, span
        assert abs(sum(span.seconds) - (span.end_ns - span.start_ns) / 1e9) < 1e-6, span
    assert all(span.end_ns >= span.start_ns for span in evidence.requests)


def test_each_run_is_linked_with_exactly_its_requests(evidence: Evidence) -> None:
    """Where all requests of a run are sampled: those to model b are not."""
    runs = {span.span_id: span for span in evidence.runs}
    of_run: defaultdict[str, set[str]] = defaultdict(set)
    for span in evidence.requests:
        if span.code == "OK":
            (run_id,) = span.links or ("",)
            of_run[run_id].add(span.span_id)
    alone = of_run.pop("")
    children = {run.parent_id: run for run in evidence.runs if run.parent_id}
    assert children.keys() == alone
    shared = 0
    for run_id, requests in of_run.items():
        run = runs.pop(run_id)
        assert set(run.links) <= requests
        assert len(run.links) == min(len(requests), LINK_LIMIT)
        assert len(run.links) + run.dropped_links == len(requests) <= run.attributes["driftgate.batch.requests"]
        if run.attributes["driftgate.model.name"] != "b":
            assert len(requests) == run.attributes["driftgate.batch.requests"]
        shared += run.dropped_links > 0
    assert shared, "some runs had more requests than links are allowed"
    assert runs.keys() == {run.span_id for run in children.values()}
    assert {run.attributes["driftgate.batch.requests"] for run in children.values()} == {1}
    spans = evidence.span_of()
    for run in children.values():
        request = spans[run.parent_id]
        assert run.trace_id == request.trace_id
        assert request.start_ns <= run.start_ns <= run.end_ns <= request.end_ns


def test_metrics_count_what_clients_saw_by_code_model_version_and_variant(evidence: Evidence) -> None:
    seen = Counter(key_of(told) for told in evidence.told)
    counted: Counter[Key] = Counter()
    for labels, value in samples(evidence.page, "rpc_server_call_duration_seconds_count"):
        key = (
            labels["rpc_response_status_code"],
            labels.get("driftgate_model_name", ""),
            int(labels.get("driftgate_model_version", 0)),
            labels.get("driftgate_route_variant", ""),
        )
        counted[key] += int(value)
    assert counted == seen
    requests = samples(evidence.page, "driftgate_requests_total")
    assert sum(value for _, value in requests) == len(evidence.told)


def test_the_last_metrics_exported_tell_the_same(evidence: Evidence) -> None:
    seen = Counter(key_of(told)[:2] for told in evidence.told)
    counted: Counter[tuple[str, str]] = Counter()
    for point in last(evidence, "rpc.server.call.duration").exponential_histogram.data_points:
        labels = {item.key: item.value.string_value for item in point.attributes}
        counted[labels["rpc.response.status_code"], labels.get("driftgate.model.name", "")] += point.count
        in_buckets = sum(point.positive.bucket_counts) + sum(point.negative.bucket_counts)
        assert point.count == point.zero_count + in_buckets
    assert counted == seen


def test_the_last_metrics_exported_know_of_every_span(evidence: Evidence) -> None:
    ended = {
        (labels["otel.component.name"], labels.get("error.type", "")): point.as_int
        for point in last(evidence, "otel.sdk.exporter.span.exported").sum.data_points
        for labels in [{item.key: item.value.string_value for item in point.attributes}]
    }
    name = "otlp_grpc_span_exporter"
    assert ended[f"{name}/requests", ""] == len(evidence.requests)
    assert ended[f"{name}/runs", ""] == len(evidence.runs)
    assert sum(ended.values()) == len(evidence.requests) + len(evidence.runs)


def last(evidence: Evidence, name: str) -> Any:
    return [metric for metric in evidence.metrics if metric.name == name][-1]


def test_model_statistics_agree(evidence: Evidence) -> None:
    keys = [key_of(told) for told in evidence.told]
    answered = Counter((model, version) for code, model, version, _ in keys if code == "OK")
    refused = Counter((model, version) for code, model, version, _ in keys if code != "OK" and model)
    rows: Counter[tuple[str, int]] = Counter()
    for told in evidence.told:
        if told.version:
            rows[told.ask.model, told.version] += told.ask.request.inputs[0].shape[0]
    found = {(each.name, int(each.version)): each for each in evidence.statistics}
    assert {key: each.inference_stats.success.count for key, each in found.items()} == answered
    assert {key: n for key, each in found.items() if (n := each.inference_stats.fail.count)} == refused
    assert {key: each.inference_count for key, each in found.items()} == rows
