"""The spans of records, made one field at a time with OTLP's own messages; and records to make them of."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from runtime.shm.record import RECORD, Records

MASK = 2**64 - 1
EXTRA_KEYS = ("rpc.request.metadata.x-tenant", "k" * 200, "baggage.user", "b")
NAMES = [
    "",
    "target\x1ftabular\x1f3\x1f" + "ab" * 32,
    "target\x1fmodèle-é\x1f9223372036854775807\x1f" + "cd" * 32,
    "target\x1fodd\x1fnine\x1f",
    "target\x1f" + "long" * 63,
    "target",
    "variant\x1fdefault",
    "variant\x1fcanary \U0001f680",
    "authority\x1flocalhost:8001",
    "authority\x1f[::1]:8001",
    "authority\x1f[fe80::1%eth0]",
    "authority\x1funix:/run/gateway.sock",
    "authority\x1fexample.com:99999",
    "refusal\x1fOVERLOADED",
    "refusal\x1f\ud800 no text",
    "nothing known",
]
TARGETS, VARIANTS, AUTHORITIES, REFUSALS = (1, 2, 3, 4, 5), (6, 7), (8, 9, 10, 11, 12), (13, 14)
SERVERS: dict[int, tuple[str, int | None]] = {
    8: ("localhost", 8001),
    9: ("::1", 8001),
    10: ("fe80::1%eth0", None),
    11: ("unix:/run/gateway.sock", None),
    12: ("example.com:99999", None),
}
CODES = [code.name for code in sorted(grpc.StatusCode, key=lambda code: code.value[0])]
FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
TEXTS = (
    b"", b"plain", b"request-0123456789abcdef-0123456789abcdef", "größe".encode(), "日本".encode()[:-1], b"\xff\xfe",
    "\U0001f680x".encode()[:3], b"\xc0\x80", b"\xed\xa0\x80", b"ok\xf4\x90\x80\x80", b"\xe0\x80\x80", b"nul\0inside",
)  # fmt: skip
STATES = (b"", b"vendor=value,other=1", "k=größe".encode(), b"a=\x7f", b"congo=t61rcWkgMzE")


@dataclass(frozen=True)
class Made:
    """Whose spans belong together: those of a run, or the one of a request that did not run."""

    requests: list[Span]
    run: Span | None

    @property
    def spans(self) -> list[Span]:
        return [*self.requests, *([self.run] if self.run is not None else [])]


def spans_in(payload: bytes) -> list[Span]:
    """Those of a payload, with their attributes in the order of their keys."""
    message = ExportTraceServiceRequest.FromString(payload)
    (resource_spans,) = message.resource_spans
    (scope_spans,) = resource_spans.scope_spans
    return [in_order(span) for span in scope_spans.spans]


def in_order(span: Span) -> Span:
    span.attributes.sort(key=lambda attribute: attribute.key)
    return span


def expected(worker: int, records: Sequence[Any], extra_keys: Sequence[str], link_limit: int) -> list[Made]:
    groups: list[list[Any]] = []
    for record in records:
        run_id = record["run_id"].tobytes()
        if any(run_id) and groups and groups[-1][0]["run_id"].tobytes() == run_id:
            groups[-1].append(record)
        else:
            groups.append([record])
    made = []
    for group in groups:
        sampled = [record for record in group if record["trace_flags"] & 1]
        if not sampled:
            continue
        ran = any(sampled[0]["run_id"])
        shared = ran and int(sampled[0]["run_requests"]) > 1
        requests = [request_span(worker, record, extra_keys, shared) for record in sampled]
        made.append(Made(requests, run_span(worker, sampled, link_limit) if ran else None))
    return made


def request_span(worker: int, record: Any, extra_keys: Sequence[str], shared: bool) -> Span:
    marks, number = int(record["marks"]), {name: int(record[name]) for name in RECORD.names if record[name].ndim == 0}
    method = "inference.GRPCInferenceService/" + ("ModelStreamInfer" if marks & 2 else "ModelInfer")
    code = CODES[number["code"]] if number["code"] < len(CODES) else "UNKNOWN"
    span = Span(
        trace_id=record["trace_id"].tobytes(),
        span_id=record["span_id"].tobytes(),
        trace_state=trace_state(record),
        parent_span_id=record["parent_id"].tobytes() if any(record["parent_id"]) else b"",
        name=method,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=number["received_unix_ns"],
        end_time_unix_nano=(number["received_unix_ns"] + number["replied_ns"]) & MASK,
        flags=number["trace_flags"] | 0x100 | (0x200 if marks & 1 else 0),
    )
    attributes: dict[str, str | int | float | None] = {
        "rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": code,
    }  # fmt: skip
    if code in FAULTS:
        span.status.code = Status.STATUS_CODE_ERROR
        attributes["error.type"] = code
    attributes |= peer(record) | model(number["target"]) | extras(record, extra_keys)
    host, port = SERVERS.get(number["authority"], ("", None))
    attributes |= {"server.address": host, "server.port": port}
    if number["variant"] in VARIANTS:
        attributes["driftgate.route.variant"] = NAMES[number["variant"]].split("\x1f")[1]
    reasons = ("", "default", "label", "version", "rule", "sticky", "drawn")
    attributes["driftgate.route.reason"] = dict(enumerate(reasons)).get(number["reason"]) or None
    if number["refusal"] in REFUSALS:
        attributes["driftgate.refusal.reason"] = NAMES[number["refusal"]].split("\x1f")[1].replace("\ud800", "?")
    identity = record["request_id"].tobytes()[: number["request_id_bytes"]]
    attributes["driftgate.request.id"] = whole(identity)
    ran = any(record["run_id"])
    attributes["driftgate.request.rows"] = number["rows"] if ran or number["rows"] else None
    attributes["driftgate.request.size"] = number["bytes_in"]
    answered = code == "OK" or number["bytes_out"]
    attributes["driftgate.response.size"] = number["bytes_out"] if answered else None
    attributes["driftgate.decode.duration"] = number["decoded_ns"] / 1e9 if number["decoded_ns"] else None
    if ran:
        attributes |= batch(number)
        if number["started_ns"]:
            attributes["driftgate.queue.duration"] = max(number["started_ns"] - number["decoded_ns"], 0) / 1e9
        if number["ran_ns"]:
            attributes["driftgate.output.duration"] = max(number["replied_ns"] - number["ran_ns"], 0) / 1e9
    attributes["driftgate.worker"] = worker
    span.attributes.extend(key_values(attributes))
    if shared:
        run_id = record["run_id"].tobytes()
        span.links.add(trace_id=run_trace(run_id), span_id=run_id, flags=0x101)
    return span


def run_span(worker: int, sampled: Sequence[Any], link_limit: int) -> Span:
    record = sampled[0]
    number = {name: int(record[name]) for name in RECORD.names if record[name].ndim == 0}
    run_id = record["run_id"].tobytes()
    end = max(number["ran_ns"] or number["replied_ns"], number["started_ns"])
    span = Span(
        span_id=run_id,
        name="driftgate.run",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=(number["received_unix_ns"] + number["started_ns"]) & MASK,
        end_time_unix_nano=(number["received_unix_ns"] + end) & MASK,
    )
    span.attributes.extend(key_values({**model(number["target"]), **batch(number), "driftgate.worker": worker}))
    if number["run_requests"] > 1:
        span.trace_id = run_trace(run_id)
        span.flags = 0x101
        for other in sampled[:link_limit]:
            flags = int(other["trace_flags"]) | 0x100
            span.links.add(trace_id=other["trace_id"].tobytes(), span_id=other["span_id"].tobytes(), flags=flags)
        span.dropped_links_count = max(len(sampled) - link_limit, 0)
    else:
        span.trace_id = record["trace_id"].tobytes()
        span.trace_state = trace_state(record)
        span.parent_span_id = record["span_id"].tobytes()
        span.flags = number["trace_flags"] | 0x100
    return span


def run_trace(run_id: bytes) -> bytes:
    value = int.from_bytes(run_id, "little")
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return run_id + (value ^ (value >> 31)).to_bytes(8, "little")


def key_values(attributes: dict[str, str | int | float | None]) -> Iterable[KeyValue]:
    """In the order of the keys; None and empty texts are left out."""
    for key, value in sorted(attributes.items()):
        if value is not None and value != "":
            kind = {str: "string_value", int: "int_value", float: "double_value"}[type(value)]
            yield KeyValue(key=key, value=AnyValue(**{kind: value}))


def model(target: int) -> dict[str, str | int | float | None]:
    if target not in TARGETS:
        return {}
    name, version, digest = (*NAMES[target].split("\x1f")[1:], "", "", "")[:3]
    return {
        "driftgate.model.name": name,
        "driftgate.model.version": int(version) if version.isdigit() else None,
        "driftgate.model.digest": digest,
    }


def batch(number: dict[str, int]) -> dict[str, str | int | float | None]:
    """What a run's span has too."""
    known: dict[str, str | int | float | None] = {
        "driftgate.batch.rows": number["run_rows"], "driftgate.batch.requests": number["run_requests"],
    }  # fmt: skip
    if number["gathered_ns"]:
        known["driftgate.input.duration"] = max(number["gathered_ns"] - number["started_ns"], 0) / 1e9
    if number["ran_ns"]:
        known["driftgate.run.duration"] = max(number["ran_ns"] - number["gathered_ns"], 0) / 1e9
    return known


def peer(record: Any) -> dict[str, str | int | float | None]:
    family, address = int(record["peer_family"]), record["peer_address"].tobytes()
    if family not in (4, 6):
        return {}
    text = str(ipaddress.ip_address(address if family == 6 else address[:4]))
    if family == 6 and address.startswith(bytes(10) + b"\xff\xff"):  # as RFC 5952 recommends, and some Pythons do
        text = "::ffff:" + str(ipaddress.ip_address(address[12:]))
    return {"network.peer.address": text, "network.peer.port": int(record["peer_port"]) or None}


def trace_state(record: Any) -> str:
    state = record["text"].tobytes()[: int(record["state_bytes"])]
    return state.decode() if all(0x20 <= byte <= 0x7E for byte in state) else ""


def extras(record: Any, keys: Sequence[str]) -> dict[str, str | int | float | None]:
    start = int(record["state_bytes"])
    text = record["text"].tobytes()[start : start + int(record["extra_bytes"])]
    found: dict[int, str] = {}
    while len(text) >= 2:
        found.setdefault(text[0], whole(text[2 : 2 + text[1]]))
        text = text[2 + text[1] :]
    return {keys[number]: value for number, value in found.items() if number < len(keys)}


def whole(data: bytes) -> str:
    """Up to the first byte that is not of a whole character."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode()


def make_records(sizes: Sequence[int], seed: int, *, sane: bool = True) -> Records:
    """Runs of these sizes (0: a request that did not run), with contents by chance; not `sane`: any bytes at all."""
    rng = np.random.default_rng(seed)
    count = sum(max(size, 1) for size in sizes)
    records = rng.integers(0, 256, (count, RECORD.itemsize), np.uint8).view(RECORD).reshape(-1)
    records["trace_flags"] = rng.choice([0, 1, 1, 3, 255], count)
    records["parent_id"][rng.random(count) < 0.5] = 0
    records["received_unix_ns"] |= 1
    if sane:
        records["received_unix_ns"] = 1_700_000_000_000_000_000 + rng.integers(0, 10**12, count)
        _set_times(records, rng)
    for field, choices in (
        ("target", TARGETS), ("variant", VARIANTS), ("authority", AUTHORITIES), ("refusal", REFUSALS),
    ):  # fmt: skip
        records[field] = rng.choice([0, *choices, *choices, 15, 500 if sane else 65_000], count)
    records["code"] = rng.choice([*[0] * 10, *range(18), 255], count)
    records["reason"] = rng.integers(0, 5, count)
    records["peer_family"] = rng.choice([0, 1, 4, 4, 6, 6, 9], count)
    records["peer_address"][rng.random(count) < 0.3, 2:9] = 0
    for field in ("peer_port", "rows", "bytes_out"):
        records[field][rng.random(count) < 0.3] = 0
    at = 0
    for size in sizes:
        run = records[at : at + max(size, 1)]
        run["run_id"] = rng.integers(1, 256, 8) if size else 0
        run["run_requests"] = size
        if not size and sane:
            run[["started_ns", "gathered_ns", "ran_ns"]] = 0
        at += len(run)
    if sane:
        for record in records:
            _set_texts(record, rng)
    return records


def _set_times(records: Records, rng: np.random.Generator) -> None:
    """From received to replied, none before the other; some were not reached."""
    total = np.zeros(len(records), np.uint64)
    for field in ("decoded_ns", "queued_ns", "started_ns", "gathered_ns", "ran_ns", "replied_ns"):
        total += rng.integers(1, 10 ** rng.integers(1, 11), len(records), np.uint64)
        records[field] = total
    records["ran_ns"][rng.random(len(records)) < 0.05] = 0


def _set_texts(record: Any, rng: np.random.Generator) -> None:
    identity = TEXTS[rng.integers(len(TEXTS))] * int(rng.integers(1, 4))
    record["request_id_bytes"] = len(identity[:64])
    record["request_id"] = np.frombuffer(identity[:64].ljust(64, b"\0"), np.uint8)
    state, extra = STATES[rng.integers(len(STATES))], b""
    for _ in range(rng.integers(4)):
        text = TEXTS[rng.integers(len(TEXTS))]
        extra += bytes((rng.integers(len(EXTRA_KEYS) + 1), len(text))) + text
    record["state_bytes"] = len(state)
    record["extra_bytes"] = len((state + extra)[:160]) - len(state)
    record["text"] = np.frombuffer((state + extra)[:160].ljust(160, b"\0"), np.uint8)
