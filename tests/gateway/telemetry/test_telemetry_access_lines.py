"""One record, one line: what it says, and that nothing a client sends breaks out of it."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shm_records import records_of

from gateway.telemetry.access_lines import MAX_REMEMBERED, AccessLines, peer_text
from runtime.shm.record_layout import REQUEST_ID_BYTES, TEXT_BYTES, Mark, PeerFamily, Reason
from runtime.shm.ring_layout import SEPARATOR

DIGEST = "sha256:" + 64 * "a"
NAMES = [
    "",
    SEPARATOR.join(("target", "diabetes", "2", DIGEST)),
    SEPARATOR.join(("variant", "stable")),
    SEPARATOR.join(("authority", "models.example:8001")),
    SEPARATOR.join(("refusal", "OVERLOADED")),
]
KEYS = ("driftgate.request.model", "driftgate.refusal.message", "rpc.request.metadata.tenant")
RECEIVED_NS = 1_750_000_000_123_456_789
TRACE, SPAN = bytes(range(1, 17)), bytes(range(1, 9))

ANSWERED: dict[str, Any] = {
    "trace_id": TRACE, "span_id": SPAN, "trace_flags": 1, "received_unix_ns": RECEIVED_NS,
    "decoded_ns": 20_000, "queued_ns": 30_000, "started_ns": 120_000, "gathered_ns": 130_000, "ran_ns": 920_000,
    "replied_ns": 1_234_567, "target": 1, "variant": 2, "authority": 3, "reason": Reason.LABEL,
    "rows": 4, "run_rows": 32, "run_requests": 8, "bytes_in": 300, "bytes_out": 100,
    "peer_family": PeerFamily.IPV4, "peer_port": 5000, "peer_address": bytes((127, 0, 0, 1)),
    "request_id": b"a-1", "request_id_bytes": 3,
}  # fmt: skip
REFUSED: dict[str, Any] = {
    "trace_id": TRACE, "span_id": SPAN, "received_unix_ns": RECEIVED_NS, "replied_ns": 50_000,
    "code": 8, "refusal": 4, "bytes_in": 300,
}  # fmt: skip


def extra(*pairs: tuple[int, str]) -> bytes:
    return b"".join(bytes((number, len(text.encode()))) + text.encode() for number, text in pairs)


def as_json(*rows: dict[str, Any], names: list[str] = NAMES, worker: int = 0) -> list[dict[str, Any]]:
    lines = AccessLines(people=False, attribute_keys=KEYS).lines(worker, records_of(rows), names)
    assert all(line.decode()[:-1].isprintable() for line in lines)
    assert all(line.endswith(b"}\n") for line in lines)
    return [json.loads(line) for line in lines]


def as_text(*rows: dict[str, Any], colour: bool = False) -> list[str]:
    lines = AccessLines(people=True, colour=colour, attribute_keys=KEYS).lines(0, records_of(rows), NAMES)
    return [line.decode() for line in lines]


def test_an_answered_request_says_all_of_it() -> None:
    (line,) = as_json(ANSWERED, worker=3)
    assert line == {
        "time": "2025-06-15T15:06:40.123456+00:00", "level": "info", "logger": "access", "worker": 3,
        "method": "inference.GRPCInferenceService/ModelInfer", "model": "diabetes", "version": 2, "digest": DIGEST,
        "variant": "stable", "reason": "label", "code": "OK", "authority": "models.example:8001",
        "peer": "127.0.0.1:5000", "rows": 4, "bytes_in": 300, "bytes_out": 100,
        "duration_ms": 1.235, "queue_ms": 0.1, "run_ms": 0.8, "batch_rows": 32, "batch_requests": 8,
        "request_id": "a-1", "trace_id": TRACE.hex(), "span_id": SPAN.hex(), "sampled": True,
    }  # fmt: skip


def test_a_refused_request_says_why_and_nothing_of_a_run() -> None:
    text = extra((1, "the queue is full"), (2, "acme"))
    (line,) = as_json({**REFUSED, "text": text, "extra_bytes": len(text)})
    assert (line["level"], line["code"], line["refusal"]) == ("warning", "RESOURCE_EXHAUSTED", "OVERLOADED")
    assert line["driftgate.refusal.message"] == "the queue is full"
    assert line["rpc.request.metadata.tenant"] == "acme"
    assert line["peer"] == ""
    assert line["sampled"] is False
    absent = {"model", "version", "variant", "reason", "queue_ms", "run_ms", "batch_rows", "request_id", "authority"}
    assert not absent & line.keys()


@pytest.mark.parametrize(("code", "level"), [(0, "info"), (1, "warning"), (3, "warning"), (13, "error"), (14, "error")])
def test_the_level_says_whose_fault_it_is(code: int, level: str) -> None:
    assert as_json({"code": code})[0]["level"] == level


def test_a_message_of_a_stream_has_the_streams_method() -> None:
    unary, stream = as_json(ANSWERED, {**ANSWERED, "marks": int(Mark.STREAM | Mark.PARENT)})
    assert unary["method"].endswith("/ModelInfer")
    assert stream["method"].endswith("/ModelStreamInfer")


def test_people_get_one_line_that_can_be_read() -> None:
    answered, refused = as_text(ANSWERED, {**REFUSED, "request_id": b"two words", "request_id_bytes": 9})
    assert answered.partition(" ")[2] == (
        "127.0.0.1:5000 ModelInfer diabetes/2 (stable, label) OK rows=4 bytes=300/100 1.235 ms "
        f"(queue 0.100, run 0.800) batch=32/8 id=a-1 trace={TRACE.hex()} span={SPAN.hex()}\n"
    )
    assert refused.partition(" ")[2] == (
        "- ModelInfer - RESOURCE_EXHAUSTED (OVERLOADED) rows=0 bytes=300/0 0.050 ms "
        f'id="two words" trace={TRACE.hex()} span={SPAN.hex()}\n'
    )


def test_colour_marks_what_went_wrong() -> None:
    answered, refused, failed = as_text(ANSWERED, REFUSED, {**REFUSED, "code": 13}, colour=True)
    assert "\x1b" not in answered
    assert "\x1b[33mRESOURCE_EXHAUSTED (OVERLOADED)\x1b[0m" in refused
    assert "\x1b[31mINTERNAL (OVERLOADED)\x1b[0m" in failed


def test_a_trace_that_never_was_is_left_out() -> None:
    (line,) = as_json({**ANSWERED, "trace_id": bytes(16), "span_id": bytes(8)})
    assert not {"trace_id", "span_id", "sampled"} & line.keys()


def test_an_id_that_was_cut_within_a_character_loses_that_character() -> None:
    data = ("é" * 40).encode()[1 : REQUEST_ID_BYTES + 1]
    (cut,) = as_json({"request_id": data, "request_id_bytes": 64, "marks": int(Mark.ID_CUT)})
    (broken,) = as_json({"request_id": data, "request_id_bytes": 64})
    assert cut["request_id"] == "é" * 31
    assert broken["request_id"] == "\ufffd" + "é" * 31 + "\ufffd"


def test_attributes_stand_behind_the_tracestate_and_those_without_a_key_are_left_out() -> None:
    state, attributes = b"vendor=1", extra((9, "unknown"), (0, "nobody"))
    row = {"text": state + attributes, "state_bytes": len(state), "extra_bytes": len(attributes)}
    (line,) = as_json(row)
    assert line["driftgate.request.model"] == "nobody"
    assert "unknown" not in line.values()


@given(st.binary(max_size=TEXT_BYTES), st.integers(0, 255), st.integers(0, 255))
def test_attributes_that_are_no_attributes_break_nothing(text: bytes, state_bytes: int, extra_bytes: int) -> None:
    row = {"text": text, "state_bytes": state_bytes, "extra_bytes": extra_bytes}
    assert as_json(row)[0]["code"] == "OK"
    assert as_text(row)[0].count("\n") == 1


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_id_comes_through_json_as_it_is_and_never_breaks_a_line(identity: str) -> None:
    data = identity.encode()[:REQUEST_ID_BYTES]
    row = {"request_id": data, "request_id_bytes": len(data), "marks": int(Mark.ID_CUT)}
    (line,) = as_json(row)
    assert line["request_id"] == data.decode("utf-8", "ignore")
    (text,) = as_text(row)
    assert text[:-1].isprintable()


@given(st.binary(max_size=REQUEST_ID_BYTES), st.lists(st.text(max_size=60), min_size=3, max_size=3))
def test_any_bytes_and_names_give_one_line(identity: bytes, parts: list[str]) -> None:
    names = ["", SEPARATOR.join(("target", *parts)), SEPARATOR.join(("variant", parts[0]))]
    row = {**ANSWERED, "authority": 0, "request_id": identity, "request_id_bytes": len(identity)}
    assert as_json(row, names=names)[0]["trace_id"] == TRACE.hex()
    (text,) = [line.decode() for line in AccessLines(people=True).lines(0, records_of([row]), names)]
    assert text[:-1].isprintable()


def test_numbers_that_have_no_name_are_left_empty() -> None:
    (line,) = as_json({"target": 77, "variant": 78, "refusal": 79, "code": 99})
    assert (line["variant"], line["refusal"], line["code"]) == ("", "", "99")
    assert "model" not in line


def test_names_that_are_written_later_are_found() -> None:
    names = NAMES[:1]
    lines = AccessLines(people=False)
    lines.lines(0, records_of([{"code": 5}]), names)
    names.extend(NAMES[1:])
    assert json.loads(lines.lines(0, records_of([ANSWERED]), names)[0])["model"] == "diabetes"


def test_workers_have_names_of_their_own() -> None:
    other = ["", SEPARATOR.join(("target", "digits", "7", DIGEST)), *NAMES[2:]]
    lines = AccessLines(people=False)
    row = records_of([ANSWERED])
    models = [json.loads(lines.lines(worker, row, names)[0])["model"] for worker, names in ((0, NAMES), (1, other))]
    assert models == ["diabetes", "digits"]
    assert json.loads(lines.lines(0, row, other)[0])["model"] == "digits", "a worker's names are never mixed up"


def test_memory_of_shared_parts_and_peers_is_bounded() -> None:
    lines = AccessLines(people=False)
    rows = records_of([{}] * (MAX_REMEMBERED + 10))
    rows["target"] = np.arange(len(rows))
    rows["peer_port"] = np.arange(len(rows))
    lines.lines(0, rows, [""])
    assert len(lines._shared) <= MAX_REMEMBERED
    assert len(lines._peers) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    ("family", "address", "text"),
    [
        (PeerFamily.IPV4, socket.inet_aton("10.1.2.3") + bytes(12), "10.1.2.3:9"),
        (PeerFamily.IPV6, socket.inet_pton(socket.AF_INET6, "fe80::1"), "[fe80::1]:9"),
        (PeerFamily.UNIX, bytes(16), "unix"),
        (PeerFamily.UNKNOWN, bytes(16), ""),
        (99, bytes(16), ""),
    ],
)
def test_peers_are_written_as_clients_write_them(family: int, address: bytes, text: str) -> None:
    assert peer_text(family, 9, address) == text
