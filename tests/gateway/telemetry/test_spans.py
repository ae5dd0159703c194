"""Spans as OTLP's own messages read them, field by field, for records of every kind."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from span_reference import EXTRA_KEYS, NAMES, expected, in_order, make_records, run_trace, spans_in, whole

from gateway.telemetry.conventions import ATTRIBUTES, RUN_SPAN, RUN_SPAN_NAME, SCHEMA_URL, SPAN
from gateway.telemetry.spans import SpanEncoder
from gateway.version import VERSION
from runtime.shm.record import RECORD, Records
from runtime.shm.ring import RingReader, map_ring
from runtime.shm.ring_layout import WRITTEN, create_ring
from runtime.shm.segment import Segment

RESOURCE = Resource()
RESOURCE.attributes.add(key="service.name").value.string_value = "driftgate"
SIZES = st.lists(st.sampled_from([0, 0, 1, 1, 2, 3, 7, 40, 129, 200]), max_size=8)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = create_ring("spans", 8)
    yield made
    made.close()


def encoder(**options: object) -> SpanEncoder:
    return SpanEncoder(RESOURCE.SerializeToString(), extra_keys=EXTRA_KEYS, **options)  # type: ignore[arg-type]


def encoded(*records: Records, worker: int = 3) -> list[Span]:
    """The spans of records that fit into one batch."""
    batches = encoder().encode(worker, records, NAMES)
    return spans_in(batches[0].payload) if batches else []


def one(record: Records) -> Span:
    """The first span: that of the first request."""
    return encoded(record)[0]


def record_of(**fields: object) -> Records:
    """A sampled request that was answered alone, with these fields."""
    record = np.zeros(1, RECORD)
    record["trace_id"], record["span_id"], record["run_id"] = 1, 2, 3
    record["trace_flags"], record["run_requests"], record["received_unix_ns"] = 1, 1, 10**18
    for number, name in enumerate(("decoded_ns", "queued_ns", "started_ns", "gathered_ns", "ran_ns", "replied_ns")):
        record[name] = (number + 1) * 1000
    for name, value in fields.items():
        if isinstance(value, bytes):
            record[name][0, : len(value)] = np.frombuffer(value, np.uint8)
        else:
            record[name] = value
    return record


def attributes_of(span: Span) -> dict[str, object]:
    known = {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes}
    assert len(known) == len(span.attributes)
    return known


@given(SIZES, SEEDS, st.booleans(), st.integers(0, 300), st.floats(0, 1), st.integers(0, 64))
def test_every_field_of_every_span_is_as_the_record_says(
    sizes: list[int], seed: int, sane: bool, link_limit: int, cut: float, worker: int
) -> None:
    records = make_records(sizes, seed, sane=sane)
    made = expected(worker, records, EXTRA_KEYS, link_limit)
    split = round(cut * len(records))  # anywhere, also within a run
    batches = encoder(link_limit=link_limit).encode(worker, [records[:split], records[split:]], NAMES)
    spans = [span for batch in batches for span in spans_in(batch.payload)]
    assert spans == [in_order(span) for group in made for span in group.spans]
    assert sum(batch.requests for batch in batches) == sum(len(group.requests) for group in made)
    assert sum(batch.runs for batch in batches) == sum(group.run is not None for group in made)
    for batch in batches:
        assert len(ExportTraceServiceRequest.FromString(batch.payload).SerializeToString()) == len(batch.payload)


def test_a_payload_names_its_resource_scope_and_schema_once() -> None:
    (batch,) = encoder().encode(0, [record_of()], NAMES)
    message = ExportTraceServiceRequest.FromString(batch.payload)
    (resource_spans,) = message.resource_spans
    (scope_spans,) = resource_spans.scope_spans
    assert resource_spans.resource == RESOURCE
    assert (scope_spans.scope.name, scope_spans.scope.version) == ("driftgate", VERSION)
    assert (resource_spans.schema_url, scope_spans.schema_url) == (SCHEMA_URL, SCHEMA_URL)
    assert (batch.requests, batch.runs, len(scope_spans.spans)) == (1, 1, 2)


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=40), SEEDS)
def test_attributes_are_those_of_the_conventions_and_of_their_kind(sizes: list[int], seed: int) -> None:
    kinds = {"string": str, "int": int, "double": float}
    for span in encoded(make_records(sizes, seed)):
        place = RUN_SPAN if span.name == RUN_SPAN_NAME else SPAN
        known = {attribute.key: kinds[attribute.kind] for attribute in ATTRIBUTES if place in attribute.on}
        for key, value in attributes_of(span).items():
            assert key in EXTRA_KEYS or type(value) is known[key]


@given(SEEDS)
def test_durations_add_up_to_the_span(seed: int) -> None:
    for span in encoded(make_records([1, 5, 30], seed)):
        known = attributes_of(span)
        if "driftgate.output.duration" in known:
            parts = [
                float(known[f"driftgate.{part}.duration"]) for part in ("decode", "queue", "input", "run", "output")
            ]  # type: ignore[arg-type]
            total_ns = span.end_time_unix_nano - span.start_time_unix_nano
            assert math.isclose(sum(parts), total_ns / 1e9, rel_tol=1e-12)


def test_no_records_and_none_that_are_sampled_give_no_payload() -> None:
    tool = encoder()
    assert tool.encode(0, [], NAMES) == []
    assert tool.encode(0, [record_of()[:0], record_of()[:0]], NAMES) == []
    assert tool.encode(0, [record_of(trace_flags=2)], NAMES) == []


def test_records_in_more_than_two_parts_are_one_sequence() -> None:
    records = make_records([0, 7, 1, 3], 5)
    parts = [records[at : at + 2] for at in range(0, len(records), 2)]
    assert encoded(*parts) == encoded(records)


def test_records_may_be_read_only_and_lie_apart() -> None:
    records = make_records([0, 3, 1], 6)
    wide = np.repeat(records, 2)
    wide.flags.writeable = False
    assert encoded(wide[::2], wide[:0]) == encoded(records)


def test_a_run_across_the_end_of_the_ring_is_one_run(segment: Segment) -> None:
    view = map_ring(segment)
    reader = RingReader(view)
    for _ in range(3):  # five records at a time, in a ring of eight
        records = make_records([1, 4], 7)
        records["trace_flags"] = 1
        for number, record in enumerate(records):
            view.records[(reader.taken + number) % 8] = record
        view.words[WRITTEN] += np.uint64(5)
        reader.look()
        batches = encoder().encode(0, reader.take(8), NAMES)
        reader.release(5)
        assert [(batch.requests, batch.runs) for batch in batches] == [(5, 2)]
        assert spans_in(batches[0].payload)[-1].links[3].span_id == records[4]["span_id"].tobytes()


def test_the_span_of_a_run_of_one_is_the_request_spans_child() -> None:
    request, run = encoded(record_of(text=b"vendor=1", state_bytes=8, trace_flags=3))
    assert (run.trace_id, run.parent_span_id, run.trace_state) == (request.trace_id, request.span_id, "vendor=1")
    assert (run.flags, len(run.links), len(request.links)) == (0x103, 0, 0)


def test_a_shared_run_has_a_trace_of_its_own_though_one_request_is_sampled() -> None:
    request, run = encoded(record_of(run_requests=9, run_id=b"\x01\x02\x03\x04\x05\x06\x07\x08"))
    assert run.trace_id == run_trace(bytes(range(1, 9)))
    assert (run.parent_span_id, run.flags) == (b"", 0x101)
    assert [(link.trace_id, link.span_id) for link in run.links] == [(request.trace_id, request.span_id)]
    assert [(link.trace_id, link.span_id) for link in request.links] == [(run.trace_id, run.span_id)]


def test_links_to_a_run_agree_wherever_its_requests_are_encoded() -> None:
    records = make_records([40], 8)
    records["trace_flags"] = 1
    (run,) = (span for span in encoded(records) if span.name == RUN_SPAN_NAME)
    for part in (records[:1], records[20:]):
        for span in encoded(part, worker=9):
            if span.name != RUN_SPAN_NAME:
                assert [(link.trace_id, link.span_id) for link in span.links] == [(run.trace_id, run.span_id)]


@given(st.binary(max_size=80), st.integers(0, 255))
@example("ü".encode() * 40, 64)
@example(b"x" + "ü".encode() * 40, 64)
def test_an_id_ends_with_a_whole_character(identity: bytes, length: int) -> None:
    record = record_of(request_id=identity[:64], request_id_bytes=length)
    shown = attributes_of(one(record)).get("driftgate.request.id", "")
    assert shown == whole(identity[:64].ljust(64, b"\0")[:length])


@given(st.text(max_size=20).flatmap(lambda text: st.tuples(st.just(text), st.integers(0, 80))))
def test_a_cut_text_is_the_longest_that_is_whole(case: tuple[str, int]) -> None:
    data = case[0].encode()[: min(case[1], 64)]
    shown = attributes_of(one(record_of(request_id=data, request_id_bytes=len(data)))).get("driftgate.request.id", "")
    assert shown == data.decode(errors="ignore")
    assert case[0].startswith(str(shown))


@given(st.one_of(st.ip_addresses(v=6), st.binary(min_size=16, max_size=16).map(ipaddress.IPv6Address)))
@example(ipaddress.IPv6Address("::"))
@example(ipaddress.IPv6Address("::1"))
@example(ipaddress.IPv6Address("1::"))
@example(ipaddress.IPv6Address("2001:db8:0:0:1:0:0:1"))
@example(ipaddress.IPv6Address("2001:0:0:1:0:0:0:1"))
@example(ipaddress.IPv6Address("1:0:3:4:5:6:7:8"))
@example(ipaddress.IPv6Address("::2:3:4:5:6:7:8"))
def test_ipv6_peers_are_written_in_their_shortest_form(address: ipaddress.IPv6Address) -> None:
    known = attributes_of(one(record_of(peer_family=6, peer_port=443, peer_address=address.packed)))
    assert known["network.peer.port"] == 443
    text = str(known["network.peer.address"])
    assert ipaddress.IPv6Address(text) == address
    assert address.ipv4_mapped or text == str(address)


def test_an_ipv4_address_within_ipv6_keeps_its_decimals() -> None:
    packed = ipaddress.IPv6Address("::ffff:192.0.2.128").packed
    known = attributes_of(one(record_of(peer_family=6, peer_address=packed)))
    assert known["network.peer.address"] == "::ffff:192.0.2.128"
    assert "network.peer.port" not in known


@given(st.ip_addresses(v=4))
def test_ipv4_peers_are_dotted_decimals(address: ipaddress.IPv4Address) -> None:
    known = attributes_of(one(record_of(peer_family=4, peer_address=address.packed + b"rest")))
    assert known["network.peer.address"] == str(address)


def test_of_two_texts_for_one_key_the_first_counts() -> None:
    text = b"\x00\x01a\x03\x02bc\x00\x01d\x09\x01e\x02\x09cut"
    known = attributes_of(one(record_of(text=text, extra_bytes=len(text))))
    assert {key: known[key] for key in EXTRA_KEYS if key in known} == {
        EXTRA_KEYS[0]: "a", EXTRA_KEYS[3]: "bc", EXTRA_KEYS[2]: "cut",
    }  # fmt: skip


def test_a_refused_request_has_neither_batch_nor_run() -> None:
    record = record_of(code=8, run_id=bytes(8), run_requests=0, refusal=13, started_ns=0, gathered_ns=0, ran_ns=0)
    (span,) = encoded(record)
    known = attributes_of(span)
    assert known["driftgate.refusal.reason"] == "OVERLOADED"
    assert (span.status.code, "error.type" in known) == (0, False)
    assert not any(word in key for key in known for word in ("batch", "queue", "input", "output", "run.", "rows"))
    assert known["driftgate.decode.duration"] == 1e-6
