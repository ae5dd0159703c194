"""Spans in batches: none too large, no run in two without need, templates that follow the table of names."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from span_reference import EXTRA_KEYS, NAMES, Made, expected, in_order, make_records, spans_in

from gateway.telemetry.span_template import MAX_TEMPLATES, host_and_port
from gateway.telemetry.spans import MAX_BYTES, SpanEncoder
from runtime.shm.record import RECORD

RESOURCE = b""


def smallest(link_limit: int, extra_keys: tuple[str, ...] = EXTRA_KEYS) -> int:
    """The least `max_bytes` that an encoder takes."""
    with pytest.raises(ValueError, match="max_bytes: expected") as caught:
        SpanEncoder(RESOURCE, extra_keys=extra_keys, link_limit=link_limit, max_bytes=1)
    found = re.search(r"expected (\d+)", str(caught.value))
    assert found is not None
    return int(found[1])


def bytes_of(made: Made) -> int:
    """Of these spans within a payload."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.extend(made.spans)
    scope_spans = message.resource_spans[0].scope_spans[0]
    return scope_spans.ByteSize()


def of_sampled_runs(sizes: list[int], seed: int) -> np.ndarray:
    records = make_records(sizes, seed)
    records["trace_flags"] |= 1
    return records


@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 9, 60, 200]), min_size=1, max_size=10),
    st.integers(0, 2**32 - 1),
    st.integers(0, 20_000),
)
def test_batches_hold_whole_runs_and_are_never_too_large(sizes: list[int], seed: int, more: int) -> None:
    max_bytes = smallest(link_limit=50) + more
    records = of_sampled_runs(sizes, seed)
    made = expected(1, records, EXTRA_KEYS, 50)
    encoder = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS, link_limit=50, max_bytes=max_bytes)
    batches = encoder.encode(1, [records], NAMES)
    places: dict[bytes, list[int]] = {}
    spans = []
    for number, batch in enumerate(batches):
        assert len(batch.payload) <= max_bytes
        inside = spans_in(batch.payload)
        assert batch.requests + batch.runs == len(inside) > 0
        assert batch.runs == sum(span.name == "driftgate.run" for span in inside)
        assert len(ExportTraceServiceRequest.FromString(batch.payload).SerializeToString()) == len(batch.payload)
        for span in inside:
            places.setdefault(span.span_id, []).append(number)
        spans += inside
    assert spans == [in_order(span) for group in made for span in group.spans]
    for group in made:
        where = {number for span in group.spans for number in places[span.span_id]}
        assert len(where) == 1 or bytes_of(group) > max_bytes - 300


def test_batches_are_filled_before_the_next_begins() -> None:
    records = of_sampled_runs([1] * 400, 3)
    max_bytes = 60_000
    batches = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS, max_bytes=max_bytes).encode(0, [records], NAMES)
    largest = max(bytes_of(made) for made in expected(0, records, EXTRA_KEYS, 128))
    assert len(batches) > 3
    assert all(len(batch.payload) > max_bytes - largest - 300 for batch in batches[:-1])


def test_a_run_too_large_for_a_batch_goes_on_in_the_next_and_has_one_span() -> None:
    records = of_sampled_runs([1, 200, 1], 4)
    batches = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS, max_bytes=40_000).encode(0, [records], NAMES)
    assert [batch.runs for batch in batches] == [1, *[0] * (len(batches) - 2), 2]
    assert sum(batch.requests for batch in batches) == 202


@pytest.mark.parametrize("fill", [0x01, 0x7F, 0xFF])
def test_the_largest_spans_fit_into_the_smallest_batch(fill: int) -> None:
    keys = tuple(f"{number:0>300}" for number in range(60))
    names = ["", "target\x1f" + "m" * 300 + "\x1f9223372036854775807\x1f" + "d" * 300]
    names += [f"{kind}\x1f" + "x" * 300 for kind in ("variant", "refusal")] + ["authority\x1f" + "h" * 300 + ":65535"]
    record = np.full(300, fill, np.uint8).repeat(RECORD.itemsize).view(RECORD)
    record["target"], record["variant"], record["refusal"], record["authority"] = 1, 2, 3, 4
    record["code"], record["reason"], record["peer_family"], record["peer_address"] = 13, 1, 6, 255
    record["request_id"], record["request_id_bytes"], record["state_bytes"] = ord("i"), 255, 0
    record["decoded_ns"], record["extra_bytes"] = 1, 255
    record["text"] = [value for number in range(53) for value in (number, 1, ord("v"))] + [59]
    max_bytes = smallest(128, keys)
    batches = SpanEncoder(RESOURCE, extra_keys=keys, max_bytes=max_bytes).encode(2**63 - 1, [record], names)
    assert sum(batch.requests for batch in batches) == 300
    assert max(len(batch.payload) for batch in batches) <= max_bytes
    assert max(len(span.attributes) for batch in batches for span in spans_in(batch.payload)) == 53 + 26


def test_the_default_size_is_below_what_receivers_take() -> None:
    records = of_sampled_runs([8] * 1000, 5)
    batches = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS).encode(0, [records], NAMES)
    assert len(batches) > 1
    assert max(len(batch.payload) for batch in batches) <= MAX_BYTES < 3.5 * 2**20
    assert sum(batch.requests for batch in batches) == 8000


def test_a_name_that_comes_later_is_used_from_then_on() -> None:
    records = of_sampled_runs([0], 6)
    records["target"], records["variant"] = 1, 6
    encoder = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS)
    names = [""]
    for known in range(1, len(NAMES) + 1):
        (batch,) = encoder.encode(0, [records], names)
        keys = {attribute.key for attribute in spans_in(batch.payload)[0].attributes}
        assert ("driftgate.model.name" in keys, "driftgate.route.variant" in keys) == (known > 1, known > 6)
        names.extend(NAMES[known : known + 1])


def test_workers_have_names_of_their_own_and_another_table_replaces_the_first() -> None:
    records = of_sampled_runs([0], 7)
    records["target"], records["authority"] = 1, 8
    encoder = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS)
    other = [name.replace("tabular", "other") for name in NAMES]
    for worker, names, model in (
        (0, NAMES, "tabular"),
        (1, other, "other"),
        (0, NAMES, "tabular"),
        (0, other, "other"),
    ):
        (batch,) = encoder.encode(worker, [records], names)
        known = {attribute.key: attribute.value for attribute in spans_in(batch.payload)[0].attributes}
        assert known["driftgate.model.name"].string_value == model
        assert known["driftgate.worker"].int_value == worker


def test_more_templates_than_are_kept_change_nothing() -> None:
    count = MAX_TEMPLATES * 2
    names = ["", *(f"target\x1fm{number}\x1f{number}\x1fd" for number in range(count))]
    records = of_sampled_runs([1] * count, 8)
    records["target"] = np.arange(1, count + 1)
    encoder = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS)
    for part in (records, records[::-1].copy(), records[: count // 4]):
        spans = [span for batch in encoder.encode(0, [part], names) for span in spans_in(batch.payload)]
        shown = [
            attribute.value.int_value for span in spans for attribute in span.attributes
            if attribute.key == "driftgate.model.version"
        ]  # fmt: skip
        assert shown == [int(record["target"]) - 1 for record in part for _ in range(2)]


def test_encoders_in_threads_do_not_disturb_each_other() -> None:
    records = of_sampled_runs([8] * 100, 9)
    (first,) = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS).encode(0, [records], NAMES)
    found: list[bool] = []

    def encode() -> None:
        encoder = SpanEncoder(RESOURCE, extra_keys=EXTRA_KEYS)
        found.append(all(encoder.encode(0, [records], NAMES) == [first] for _ in range(20)))

    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_bytes": 100}, r"max_bytes: expected \d+ \(one span\) to 268435455, got 100"),
        ({"max_bytes": 2**28}, "max_bytes: expected"),
        ({"link_limit": -1}, "link_limit: expected 0 or more, got -1"),
        ({"extra_keys": ["a", "a"]}, "extra_keys: expected each key once"),
        ({"extra_keys": [""]}, "extra_keys: expected keys of 1 to 1024 bytes, got one of 0"),
        ({"extra_keys": ["é" * 513]}, "extra_keys: expected keys of 1 to 1024 bytes, got one of 1026"),
        ({"extra_keys": [str(number) for number in range(257)]}, "extra_keys: expected at most 256, got 257"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        SpanEncoder(RESOURCE, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("localhost:8001", "localhost", 8001),
        ("localhost", "localhost", None),
        ("[::1]:8001", "::1", 8001),
        ("[::1]", "::1", None),
        ("::1", "::1", None),
        ("fe80::1:8001", "fe80::1:8001", None),
        ("host:", "host:", None),
        ("host:0", "host:0", None),
        ("host:65536", "host:65536", None),
        ("host:\u0661", "host:\u0661", None),
        ("unix:/tmp/gateway.sock", "unix:/tmp/gateway.sock", None),
        ("", "", None),
    ],
)
def test_an_authority_is_a_host_and_perhaps_a_port(authority: str, host: str, port: int | None) -> None:
    assert host_and_port(authority) == (host, port)


def test_any_limit_of_links_leaves_room_for_a_span() -> None:
    assert repr(SpanEncoder(RESOURCE, link_limit=2**31 - 1))
