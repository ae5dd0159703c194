"""What holds of a backend's spans, whichever backend it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from receivers_client import SERVICE, Asked
from receivers_seen import SeenSpan

from gateway.telemetry.conventions import INFER_METHOD, RUN_SPAN_NAME

CLOCK_NS = 20_000_000  # the client's clock and the gateway's are one, read and adjusted at different moments
PARTS = ("decode", "queue", "input", "run", "output")


def requests_of(spans: Iterable[SeenSpan]) -> dict[str, SeenSpan]:
    """The gateway's spans of requests, by id."""
    found = [span for span in spans if span.name == INFER_METHOD and "rpc.system.name" in span.attributes]
    assert len({span.span_id for span in found}) == len(found), "an id twice"
    return {span.span_id: span for span in found}


def runs_of(spans: Iterable[SeenSpan]) -> list[SeenSpan]:
    return [span for span in spans if span.name == RUN_SPAN_NAME]


def agree(asked: Sequence[Asked], spans: Sequence[SeenSpan]) -> None:
    """Each sampled request is one span, which says of it what its client knows; others are none."""
    found = requests_of(spans)
    assert {one.span_id for one in asked if one.sampled} == found.keys()
    for one in asked:
        if one.sampled:
            agrees(one, found[one.span_id])


def agrees(one: Asked, span: SeenSpan) -> None:
    said = span.attributes
    assert (span.trace_id, span.parent_id) == (one.trace_id, one.parent_id)
    assert span.kind in {"server", ""}
    assert span.status == "unset"
    assert one.began_ns - CLOCK_NS <= span.began_ns <= span.ended_ns <= one.ended_ns + CLOCK_NS
    assert (said["rpc.method"], said["rpc.response.status_code"]) == (INFER_METHOD, one.code)
    assert said["network.peer.address"] == "127.0.0.1"
    if one.code != "OK":
        assert said["driftgate.refusal.reason"] == one.code
        assert "driftgate.model.name" not in said
        return
    assert said["driftgate.request.id"] == one.request_id
    assert (said["driftgate.model.version"], said["driftgate.model.digest"]) == (one.version, one.digest)
    assert (said["driftgate.request.rows"], said["driftgate.route.reason"]) == (one.rows, "default")
    parts = sum(said[f"driftgate.{part}.duration"] for part in PARTS)
    assert parts == pytest.approx((span.ended_ns - span.began_ns) / 1e9, abs=1e-8)


def joined_by_runs(spans: Sequence[SeenSpan]) -> Counter[int]:
    """Each answered request has its run's span as its child, or as the other end of its link, within its own time.

    Answers how many runs answered how many requests.
    """
    found, sizes = requests_of(spans), Counter[int]()
    answered = {key for key, span in found.items() if span.attributes["rpc.response.status_code"] == "OK"}
    for run in runs_of(spans):
        assert run.kind in {"internal", ""}
        members = {span_id for _, span_id in run.links} or {run.parent_id}
        for span_id in members:
            span = found[span_id]
            assert span.began_ns <= run.began_ns <= run.ended_ns <= span.ended_ns
            assert span.attributes["driftgate.model.digest"] == run.attributes["driftgate.model.digest"]
            assert (run.trace_id, run.span_id) in span.links or (span.trace_id, span.span_id) == (
                run.trace_id, run.parent_id,
            )  # fmt: skip
        assert members <= answered, "a request in two runs, or one that was refused"
        answered -= members
        sizes[run.attributes["driftgate.batch.requests"]] += 1
        assert run.attributes["driftgate.batch.requests"] == len(members)
    assert not answered, "requests without a run"
    return sizes


def children_of_the_client(asked: Sequence[Asked], spans: Sequence[SeenSpan]) -> None:
    """The spans of the client's own SDK are there, in the same traces, as the parents of the gateway's."""
    clients = {span.span_id: span for span in spans if span.service == SERVICE or span.kind == "client"}
    clients = clients or {span.span_id: span for span in spans if not span.attributes and not span.parent_id}
    for one in asked:
        if one.parent_id and one.sampled:
            assert clients[one.parent_id].trace_id == one.trace_id
            assert clients[one.parent_id].began_ns <= one.began_ns
