"""A worker's records: what is written is what happened, for answers and refusals, and never more than the bounds."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shm_records import Desk, desk

from gateway.errors import Status
from gateway.routing.table import DEFAULT, PINNED, Routing
from gateway.telemetry.context import Begun, Tracer
from gateway.telemetry.peers import MAX_REMEMBERED, UNKNOWN, Peers, parse_peer
from gateway.telemetry.recorder import MAX_AUTHORITIES, NOBODY, Recorder, keep_bits
from gateway.telemetry.sampler import Sampler
from runtime.batching.request import Request
from runtime.batching.runner import RunTimes
from runtime.shm.publish import KEEP_ALL, KEEP_SAMPLED
from runtime.shm.record import Records
from runtime.shm.record_layout import Mark, PeerFamily, Reason
from runtime.shm.ring import RingReader
from runtime.shm.series import SeriesKey

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DIGEST = "sha256:" + "5" * 64
NOW = time.monotonic_ns()
TIMES = RunTimes(NOW + 5_000, NOW + 6_000, NOW + 9_000)


@dataclass
class Asked:
    """As a transport hands over a call."""

    trace: Begun | None
    received_ns: int = NOW
    authority: str = ""
    streamed: bool = False
    address: str = "ipv4:127.0.0.1:5000"

    def peer_key(self) -> str:
        return self.address


@dataclass
class Scene:
    desk: Desk
    recorder: Recorder
    reader: RingReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = RingReader(self.desk.ring)

    def records(self) -> Records:
        self.reader.look()
        return np.concatenate(self.reader.take(10_000))

    def name(self, number: int) -> list[str]:
        return self.reader.names.names[number].split("\x1f")


def make_tracer() -> Tracer:
    return Tracer(Sampler(1.0, parent_based=True), ("tracecontext", "baggage"), respond=True)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with desk(1024) as at:
        yield Scene(at, Recorder(at.ring, at.series, make_tracer(), KEEP_ALL, "here:8001"))


def request_of(call: Asked, number: int = 0, routing: Routing = DEFAULT, identity: str = "") -> Request:
    request = Request([b""], [(1,)], (0,), number + 1, "k")
    request.owner, request.routing, request.id = call, routing, identity
    request.arrived_ns, request.decoded_ns, request.queued_ns = NOW, NOW + 1_000 + number, NOW + 2_000
    request.size_bytes = 100 + number
    return request


def test_a_run_leaves_a_record_of_each_request_that_share_what_is_the_runs(scene: Scene) -> None:
    subject = scene.recorder.subject("iris", 3, DIGEST)
    traces = [scene.recorder.tracer.begin([("traceparent", PARENT)]) for _ in range(3)]
    requests = [request_of(Asked(trace), number, identity=f"id {number}") for number, trace in enumerate(traces)]
    scene.recorder.answered(subject, requests, 6, [b"x" * (10 + n) for n in range(3)], TIMES, NOW + 20_000)
    records = scene.records()
    assert records["run_id"].any()
    assert (records["run_id"] == records["run_id"][0]).all()
    for name, expected in (
        ("queued_ns", 2_000), ("started_ns", 5_000), ("gathered_ns", 6_000), ("ran_ns", 9_000), ("replied_ns", 20_000),
        ("run_rows", 6), ("run_requests", 3), ("code", 0), ("reason", Reason.DEFAULT), ("trace_flags", 1),
        ("marks", Mark.PARENT), ("peer_family", PeerFamily.IPV4), ("peer_port", 5000),
    ):  # fmt: skip
        assert records[name].tolist() == [expected] * 3, name
    assert records["decoded_ns"].tolist() == [1_000, 1_001, 1_002]
    assert records["rows"].tolist() == [1, 2, 3]
    assert records["bytes_in"].tolist() == [100, 101, 102]
    assert records["bytes_out"].tolist() == [10, 11, 12]
    for record, trace in zip(records, traces, strict=True):
        assert record["trace_id"].tobytes() == trace.trace_id == bytes.fromhex(PARENT[3:35])
        assert record["span_id"].tobytes() == trace.span_id
        assert record["parent_id"].tobytes() == bytes.fromhex(PARENT[36:52])
        assert scene.name(record["target"]) == ["target", "iris", "3", DIGEST]
        assert scene.name(record["variant"]) == ["variant", "default"]
        assert scene.name(record["authority"]) == ["authority", "here:8001"]
    assert [record["request_id"].tobytes().rstrip(b"\0") for record in records] == [b"id 0", b"id 1", b"id 2"]
    assert abs(int(records["received_unix_ns"][0]) - (NOW + time.time_ns() - time.monotonic_ns())) < 10**9


def test_requests_without_context_have_the_ids_of_the_context_that_goes_back(scene: Scene) -> None:
    """Beside one that came with a context, and in slots of the ring that held an id and a text before."""
    subject = scene.recorder.subject("iris", 3, DIGEST)
    tracer = scene.recorder.tracer
    for _ in range(2):
        full = [tracer.begin([("traceparent", PARENT), ("tracestate", "a=1")]) for _ in range(512)]
        requests = [request_of(Asked(trace), identity="an id") for trace in full]
        scene.recorder.answered(subject, requests, 512, [b""] * 512, TIMES, NOW + 20_000)
    assert {bytes(text)[:3] for text in scene.records()["text"]} == {b"a=1"}
    scene.reader.release(1024)
    begun = [tracer.begin([]) for _ in range(40)]
    begun[20] = tracer.begin([("traceparent", PARENT)])
    scene.recorder.answered(subject, [request_of(Asked(each)) for each in begun], 40, [b""] * 40, TIMES, NOW + 20_000)
    records = scene.records()
    for record, each in zip(records, begun, strict=True):
        trace = tracer.whole(each)
        assert (record["trace_id"].tobytes(), record["span_id"].tobytes()) == (trace.trace_id, trace.span_id)
        assert record["trace_flags"] == 1
        assert [record[name] for name in ("request_id_bytes", "state_bytes", "extra_bytes")] == [0, 0, 0]
    assert records["marks"].tolist() == [0] * 20 + [Mark.PARENT] + [0] * 19
    assert sum(records["parent_id"].any(axis=1)) == 1


def test_a_refusal_says_why_and_how_far_the_request_came(scene: Scene) -> None:
    subject = scene.recorder.subject("iris", 3, DIGEST)
    call = Asked(scene.recorder.tracer.begin([]), streamed=True)
    request = request_of(call, 4, PINNED, "x" * 70)
    scene.recorder.refused(call, Status(8, "the queue is full", reason="OVERLOADED"), 104, request, subject)
    (record,) = scene.records()
    assert (record["code"], record["reason"], record["rows"]) == (8, Reason.VERSION, 5)
    assert scene.name(record["refusal"]) == ["refusal", "OVERLOADED"]
    assert record["marks"] == Mark.STREAM | Mark.ID_CUT
    assert record["request_id_bytes"] == 64
    assert (record["decoded_ns"], record["queued_ns"], record["started_ns"], record["ran_ns"]) == (1004, 2000, 0, 0)
    assert not record["run_id"].any()
    text = record["text"].tobytes()[: record["extra_bytes"]]
    assert text == bytes((1, 17)) + b"the queue is full"
    (series,) = scene.desk.totals().totals()
    assert series.key == SeriesKey("iris", 3, "pinned", 8, "OVERLOADED")


def test_a_name_that_is_the_clients_becomes_no_series(scene: Scene) -> None:
    for number in range(50):
        tracer = scene.recorder.tracer
        call = Asked(tracer.whole(tracer.begin([])))
        call.trace.request_id = f"r{number}"
        call.trace.add(0, f"made-up-{number}")
        scene.recorder.refused(call, Status(5, "no such model", reason="NOT_FOUND"), 10)
    (series,) = scene.desk.totals().totals()
    assert series.key == SeriesKey("", 0, "", 5, "NOT_FOUND")
    assert series.counters["requests"] == 50
    records = scene.records()
    assert records["request_id"][7].tobytes().startswith(b"r7")
    assert b"made-up-7" in records["text"][7].tobytes()
    assert not records["target"].any()


def test_without_a_tracer_requests_are_counted_and_runs_told_apart() -> None:
    with desk() as at:
        recorder = Recorder(at.ring, at.series, None, 0)
        subject = recorder.subject("iris", 3, DIGEST)
        for size in (2, 3):
            requests = [request_of(Asked(None)) for _ in range(size)]
            recorder.answered(subject, requests, size, [b""] * size, TIMES, NOW + 20_000)
        recorder.refused(Asked(None), Status(5, "m", reason="NOT_FOUND"), 3)
        refused, answered = sorted(at.totals().totals(), key=lambda series: series.key.model)
        assert (answered.counters["requests"], answered.counters["runs"]) == (5, 2)
        assert refused.counters["requests"] == 1
        reader = RingReader(at.ring)
        assert (reader.waiting, reader.dropped) == (0, (0, 0))


def test_a_run_larger_than_any_before_is_one_run(scene: Scene) -> None:
    subject = scene.recorder.subject("iris", 3, DIGEST)
    requests = [request_of(Asked(scene.recorder.tracer.begin([]))) for _ in range(700)]
    scene.recorder.answered(subject, requests, 700, [b""] * 700, TIMES, NOW + 20_000)
    assert len(scene.records()) == 700
    (series,) = scene.desk.totals().totals()
    assert (series.counters["runs"], series.counters["run_rows"]) == (1, 700)


def test_requests_of_one_run_count_in_the_series_of_their_own_variant(scene: Scene) -> None:
    subject = scene.recorder.subject("iris", 3, DIGEST)
    routes = [DEFAULT, Routing("canary", Reason.LABEL), DEFAULT, PINNED]
    requests = [request_of(Asked(None), routing=routing) for routing in routes]
    scene.recorder.answered(subject, requests, 4, [b""] * 4, TIMES, NOW + 20_000)
    counts = {series.key.variant: series.counters["requests"] for series in scene.desk.totals().totals()}
    assert counts == {"default": 2, "canary": 1, "pinned": 1}


def test_threads_record_at_once_and_nothing_is_lost() -> None:
    with desk(8192) as at:
        recorder = Recorder(at.ring, at.series, make_tracer(), KEEP_SAMPLED)
        subject = recorder.subject("iris", 3, DIGEST)

        def record() -> None:
            for _ in range(100):
                requests = [request_of(Asked(recorder.tracer.begin([]))) for _ in range(10)]
                recorder.answered(subject, requests, 10, [b""] * 10, TIMES, NOW + 20_000)
                recorder.refused(Asked(recorder.tracer.begin([])), Status(5, "m", reason="NOT_FOUND"), 3)

        threads = [threading.Thread(target=record) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scene = Scene(at, recorder)
        records = scene.records()
        assert len(records) == 4 * 100 * 11
        assert len({record["span_id"].tobytes() for record in records}) == len(records)
        runs, sizes = np.unique(records["run_id"].view(np.uint64), return_counts=True)
        assert sizes[runs != 0].tolist() == [10] * 400


def test_authorities_beyond_the_first_are_not_told_apart(scene: Scene) -> None:
    for number in range(MAX_AUTHORITIES + 10):
        call = Asked(None, authority=f"host{number}:1")
        scene.recorder.refused(call, Status(5, "m", reason="NOT_FOUND"), 3)
    numbers = scene.records()["authority"]
    assert len(set(numbers.tolist())) == MAX_AUTHORITIES
    assert numbers[-10:].tolist() == [0] * 10


@given(st.ip_addresses(), st.integers(0, 0xFFFF))
def test_peers_are_kept_as_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    if isinstance(address, ipaddress.IPv4Address):
        assert parse_peer(f"ipv4:{address}:{port}") == (PeerFamily.IPV4, port, address.packed)
        assert parse_peer(f"ipv6:[::ffff:{address}]:{port}") == (PeerFamily.IPV4, port, address.packed)
    elif address.ipv4_mapped is None:
        plain = str(address).partition("%")[0]
        assert parse_peer(f"ipv6:[{plain}]:{port}") == (PeerFamily.IPV6, port, address.packed)
        assert parse_peer(f"ipv6:%5B{plain}%5D:{port}") == (PeerFamily.IPV6, port, address.packed)


@given(st.text())
def test_what_is_no_peer_is_unknown(text: str) -> None:
    assert parse_peer(f"ipv4:{text}") == UNKNOWN or ":" in text


def test_unix_peers_have_no_address_and_the_memory_is_bounded() -> None:
    peers = Peers()
    assert peers.find("unix:/run/x") == (PeerFamily.UNIX, 0, b"")
    for port in range(MAX_REMEMBERED + 10):
        peers.find(f"ipv4:1.2.3.4:{port}")
    assert len(peers.known) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    ("spans", "access_log", "bits"),
    [(False, "off", 0), (True, "off", 1), (False, "errors", 2), (True, "sampled", 5), (False, "all", 4)],
)
def test_only_what_someone_reads_goes_into_the_ring(spans: bool, access_log: str, bits: int) -> None:
    assert keep_bits(spans=spans, access_log=access_log) == bits


def test_nobody_is_no_label() -> None:
    assert (NOBODY.model, NOBODY.version, NOBODY.number) == ("", 0, 0)
