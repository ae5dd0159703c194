"""Records of requests become traces in OTLP: a span for each request and one for each run.

A request's span is of kind SERVER, a run's of kind INTERNAL. The span of a run that answered one request is that span's
child. That of a run that answered more is the root of a trace of its own, with a link to each of its requests' spans,
and each of these has a link to it. The id of such a trace is the run's id followed by splitmix64's finaliser of it
(both as little-endian 64-bit numbers): whoever encodes any of the run's requests names the same trace.

The bytes are those of opentelemetry-proto 1.x. Compiled code (span_kernel.py) writes them around pieces that requests
have in common (span_template.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.telemetry.conventions import RUN_SPAN_NAME, SCHEMA_URL, SCOPE
from gateway.telemetry.span_kernel import (
    ABSENT,
    FIRST_EXTRA,
    LINK_BYTES,
    NEXT,
    REQUESTS,
    ROOM_BYTES,
    RUNS,
    STATE_WORDS,
    encode,
)
from gateway.telemetry.span_template import TEMPLATE_BYTES, Templates, key_pieces, message, varint
from gateway.version import VERSION
from runtime.shm.record import RECORD, Records

INTERNAL = 1  # Span.SpanKind
MAX_BYTES = 3_500_000
"""Receivers take 4 MiB (gRPC's default); the rest is for headers and for those that count what they unpack."""

LENGTH_BYTES = 4  # of a varint below 2^28, at most
MAX_LINKS = 16_384  # of a run's span, whatever is set: with them it fits into a request
MAX_EXTRA_KEYS = 256  # a number is one byte
MAX_KEY_BYTES = 1024
MAX_WORKERS = 1024  # whose templates are kept

NO_RECORDS: Records = np.empty(0, RECORD)


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """`payload`: a serialized ExportTraceServiceRequest with the spans of `requests` requests and of `runs` runs."""

    payload: bytes
    requests: int
    runs: int


class SpanEncoder:
    """Not thread-safe; the compiled parts hold no GIL. Keeps a buffer of `max_bytes`, and templates for each worker."""

    def __init__(
        self, resource: bytes, *, extra_keys: Sequence[str] = (), link_limit: int = 128, max_bytes: int = MAX_BYTES
    ) -> None:
        """`resource`: a serialized opentelemetry.proto.resource.v1.Resource. `extra_keys[number]`: the key of that
        attribute in a record's text. A run's span has at most `link_limit` links, and MAX_LINKS, and counts those left
        out.

        Raises ValueError.
        """
        _check_keys(extra_keys)
        if link_limit < 0:
            raise ValueError(f"link_limit: expected 0 or more, got {link_limit}")
        self._resource = message(1, resource)
        self._scope = message(1, message(1, SCOPE.encode()) + message(2, VERSION.encode()))
        self._schema = message(3, SCHEMA_URL.encode())
        self._run_head = np.frombuffer(message(5, RUN_SPAN_NAME.encode()) + bytes((6 << 3, INTERNAL)), np.uint8).copy()
        self._keys, self._key_starts = key_pieces(extra_keys)
        self._link_limit = link_limit = min(link_limit, MAX_LINKS)
        self._base = len(self._resource) + len(self._scope) + 2 * len(self._schema) + 2 * (1 + LENGTH_BYTES)
        self._max_bytes = max_bytes
        largest = TEMPLATE_BYTES + ROOM_BYTES + len(self._keys) + LINK_BYTES * link_limit
        if not self._base + largest <= max_bytes < 1 << 7 * LENGTH_BYTES:
            raise ValueError(f"max_bytes: expected {self._base + largest} (one span) to 268435455, got {max_bytes}")
        self._buffer = np.empty(max_bytes + largest, np.uint8)
        self._scratch = np.empty(64, np.uint8)
        self._values = np.full(FIRST_EXTRA, ABSENT, np.uint64)
        self._chosen = np.empty(0, np.int32)
        self._templates: dict[int, Templates] = {}

    def encode(self, worker: int, records: Sequence[Records], names: Sequence[str]) -> list[SpanBatch]:
        """The spans of the records that are sampled, in as many batches as it takes; the runs in `records` are whole.

        A run's spans are in one batch, unless they alone are too large for one. `names`: the texts of the worker's
        ring. It may grow from call to call; another object than before means that its numbers have other meanings.
        """
        first, second = _two(records)
        count = len(first) + len(second)
        if len(self._chosen) < count:
            self._chosen = np.empty(count, np.int32)
        templates = self._templates.get(worker)
        if templates is None or templates.names is not names:
            if len(self._templates) >= MAX_WORKERS:
                self._templates = {}
            templates = self._templates[worker] = Templates(worker, names)
        templates.assign(first, second, self._chosen)
        batches: list[SpanBatch] = []
        state = np.zeros(STATE_WORDS, np.int64)
        done = False
        while not done:
            end = encode(
                first, second, self._chosen, templates.arena, templates.starts, self._keys, self._key_starts,
                self._run_head, self._scratch, self._values, self._buffer, self._base, self._max_bytes,
                self._link_limit, state,
            )  # fmt: skip
            done = bool(state[NEXT] == count)
            if end > self._base:
                batches.append(SpanBatch(self._close(end), int(state[REQUESTS]), int(state[RUNS])))
        return batches

    def _close(self, end: int) -> bytes:
        """The spans in the buffer, up to `end`, with what stands around them."""
        spans_bytes = end - self._base
        scope_bytes = len(self._scope) + spans_bytes + len(self._schema)
        scope_spans = varint(2 << 3 | 2) + varint(scope_bytes)
        resource_bytes = len(self._resource) + len(scope_spans) + scope_bytes + len(self._schema)
        head = varint(1 << 3 | 2) + varint(resource_bytes) + self._resource + scope_spans + self._scope
        tail = self._schema * 2  # of the scope's spans, then of the resource
        start = self._base - len(head)
        self._buffer[start : self._base] = np.frombuffer(head, np.uint8)
        self._buffer[end : end + len(tail)] = np.frombuffer(tail, np.uint8)
        return self._buffer[start : end + len(tail)].tobytes()


def _two(records: Sequence[Records]) -> tuple[Records, Records]:
    """The records as two arrays: a ring gives no more, and without a copy."""
    parts = [np.ascontiguousarray(part) for part in records if len(part)]
    if len(parts) > 2:
        parts = [parts[0], np.concatenate(parts[1:])]
    return parts[0] if parts else NO_RECORDS, parts[1] if len(parts) > 1 else NO_RECORDS


def _check_keys(extra_keys: Sequence[str]) -> None:
    """A record names at most MAX_EXTRA_KEYS of them."""
    if len(extra_keys) > MAX_EXTRA_KEYS:
        raise ValueError(f"extra_keys: expected at most {MAX_EXTRA_KEYS}, got {len(extra_keys)}")
    if len(set(extra_keys)) < len(extra_keys):
        raise ValueError(f"extra_keys: expected each key once, got {', '.join(extra_keys)}")
    for key in extra_keys:
        if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
            raise ValueError(f"extra_keys: expected keys of 1 to {MAX_KEY_BYTES} bytes, got one of {len(key.encode())}")
