"""What clients choose freely is an attribute of their spans, where that is wanted, and never a label of a metric."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.admin import until
from support.calls import Ask, Caller, identified, new_parent
from support.gateway import Gateway
from support.load import INFER, infer_request
from support.receiver import OtlpReceiver
from support.spans import Span, requests_and_runs
from zoo import versioned, write_version

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

NAMES = 1000
VERSIONS = 300
LONGEST_NAME = 100
"""Characters; what is longer than a record holds is cut."""
ALPHABET = "abcXYZ0189-_./ {}\"'\\=,é漢"
X = np.zeros((1, 4), np.float32)
CALL_SECONDS = 30.0
TELEMETRY = {"metadata_attributes": ["x-tenant", "X-Region"], "baggage_attributes": ["user.id", "plan"]}


@dataclass
class Desk:
    gateway: Gateway
    receiver: OtlpReceiver

    def spans_of(self, count: int, trace_ids: set[str]) -> list[Span]:
        """The spans of these traces' requests, once there are `count`."""

        def found() -> list[Span]:
            spans, _ = requests_and_runs(self.receiver.spans)
            return [span for span in spans if span.trace_id in trace_ids]

        until(lambda: len(found()) >= count, f"{count} spans have come", 20.0)
        return found()

    def series(self) -> dict[str, set[frozenset[tuple[str, str]]]]:
        """By sample name, all that /metrics has of it."""
        found: dict[str, set[frozenset[tuple[str, str]]]] = {}
        for family in text_string_to_metric_families(self.gateway.get("/metrics")[1]):
            for sample in family.samples:
                found.setdefault(sample.name, set()).add(frozenset(sample.labels.items()))
        return found

    def not_found(self) -> float:
        return self.gateway.metric("driftgate_requests_total", rpc_response_status_code="NOT_FOUND")


@pytest.fixture(scope="module", params=["queue", "public"])
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("labels")
    write_version(folder / "models", "m", 1, versioned(1.0))
    config = {"transport": request.param, "telemetry": TELEMETRY}
    with OtlpReceiver() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.grpc}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "600000",
        }
        with Gateway(folder / "models", folder / "state", config=config, environment=environment) as gateway:
            yield Desk(gateway, receiver)


def refused(desk: Desk, asks: list[Ask]) -> None:
    before = desk.not_found()
    with Caller(desk.gateway.grpc, asks, in_flight=16, channels=4) as caller:
        assert {told.code for told in caller.finish()} == {"NOT_FOUND"}
    until(lambda: desk.not_found() == before + len(asks), "all are counted")


def test_names_of_models_that_are_not_there_are_on_spans_and_in_no_label(desk: Desk) -> None:
    draw = random.Random(13)
    names = {"".join(draw.choices(ALPHABET, k=draw.randint(1, LONGEST_NAME))) for _ in range(NAMES)}
    refused(desk, [Ask("one", identified(infer_request("nobody", X)), new_parent())])
    before = desk.series()
    asks = [Ask("many", identified(infer_request(name, X)), new_parent()) for name in names]
    refused(desk, asks)
    after = desk.series()
    assert after == before
    (labels,) = (
        dict(labels) for labels in after["driftgate_request_refused_total"] if ("error_type" not in dict(labels))
    )
    assert labels == {"rpc_response_status_code": "NOT_FOUND", "driftgate_refusal_reason": "NOT_FOUND"}
    wanted = {ask.parent[0]: ask.model for ask in asks if ask.parent is not None}
    spans = desk.spans_of(len(asks), set(wanted))
    assert {span.trace_id: span.attributes["driftgate.request.model"] for span in spans} == wanted
    assert not any("driftgate.model.name" in span.attributes for span in spans)


def test_versions_that_are_not_there_are_in_no_label(desk: Desk) -> None:
    refused(desk, [Ask("one", identified(infer_request("m", X, "no-such")), new_parent())])
    before = desk.series()
    refused(desk, [Ask("many", identified(infer_request("m", X, secrets.token_hex(8)))) for _ in range(VERSIONS)])
    assert desk.series() == before


def call(desk: Desk, *metadata: tuple[str, str]) -> tuple[Span, dict[str, Any]]:
    """The request's span, and the metadata that came back."""
    trace_id, parent = new_parent()
    sent = (("traceparent", f"00-{trace_id}-{parent}-01"), *metadata)
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(desk.gateway.grpc, options=options) as channel:
        infer: Any = channel.unary_unary(INFER)
        _, answered = infer.with_call(
            infer_request("m", X).SerializeToString(), metadata=sent, timeout=CALL_SECONDS, wait_for_ready=True
        )
        back = dict(answered.initial_metadata())
    (span,) = desk.spans_of(1, {trace_id})
    assert back["traceparent"] == f"00-{trace_id}-{span.span_id}-01"
    return span, back


def test_metadata_that_is_configured_is_on_the_span_and_no_other(desk: Desk) -> None:
    span, _ = call(
        desk, ("x-tenant", "one"), ("x-tenant", "two"), ("x-region", "eu-1"), ("authorization", "Bearer secret")
    )
    found = {key: value for key, value in span.attributes.items() if key.startswith("rpc.request.metadata.")}
    assert found == {"rpc.request.metadata.x-tenant": "one,two", "rpc.request.metadata.x-region": "eu-1"}
    assert "secret" not in str(span)


def test_baggage_that_is_configured_is_on_the_span_decoded_and_comes_back_whole(desk: Desk) -> None:
    baggage = "user.id=J%C3%BCrgen%20K;ttl=5, plan=gold,session=s3cret"
    span, back = call(desk, ("baggage", baggage), ("tracestate", "vendor=a:1,other=b"))
    found = {key: value for key, value in span.attributes.items() if "baggage" in key}
    assert found == {"driftgate.baggage.user.id": "Jürgen K", "driftgate.baggage.plan": "gold"}
    assert "s3cret" not in str(span)
    assert span.trace_state == back["tracestate"] == "vendor=a:1,other=b"
    assert back["baggage"] == baggage


def test_what_a_request_does_not_send_is_not_on_its_span(desk: Desk) -> None:
    span, back = call(desk, ("baggage", "other=1"))
    assert not any("metadata" in key or "baggage" in key for key in span.attributes)
    assert "tracestate" not in back


def test_messages_of_a_stream_have_the_metadata_of_their_stream(desk: Desk) -> None:
    parent = new_parent()
    more = (("x-tenant", "streaming"), ("baggage", "plan=free"))
    asks = [Ask("stream", identified(infer_request("m", X)), parent, more=more) for _ in range(5)]
    with Caller(desk.gateway.grpc, [asks], in_flight=1, channels=1) as caller:
        assert {told.code for told in caller.finish()} == {"OK"}
    spans = desk.spans_of(len(asks), {parent[0]})
    assert {span.attributes["driftgate.request.id"] for span in spans} == {ask.id for ask in asks}
    assert {span.parent_id for span in spans} == {parent[1]}
    assert {span.attributes["rpc.request.metadata.x-tenant"] for span in spans} == {"streaming"}
    assert {span.attributes["driftgate.baggage.plan"] for span in spans} == {"free"}
