"""How large a request's span is, as the encoder makes it: the table in docs/how-to/observability.md."""

from __future__ import annotations

import numpy as np

from gateway.telemetry.spans import SpanEncoder
from generator.markdown import number, table
from runtime.shm.record import RECORD, Records
from runtime.shm.record_layout import PeerFamily, Reason
from runtime.shm.ring_layout import SEPARATOR

REQUESTS = 1024
REQUESTS_PER_RUN = (1, 8, 64)
NAMES = (
    "",
    SEPARATOR.join(("target", "breast_cancer", "2", f"sha256:{'5' * 64}")),
    SEPARATOR.join(("variant", "stable")),
    SEPARATOR.join(("authority", "driftgate:8001")),
)
TIMES_NS = {
    "decoded_ns": 40_000,
    "queued_ns": 50_000,
    "started_ns": 90_000,
    "gathered_ns": 100_000,
    "ran_ns": 250_000,
    "replied_ns": 300_000,
}


def sizes() -> str:
    """Requests of one row with a label, from clients that send traceparent and no id."""
    encoder = SpanEncoder(b"")
    rows = []
    for together in REQUESTS_PER_RUN:
        batches = encoder.encode(0, [_records(together)], NAMES)
        size = sum(len(batch.payload) for batch in batches) / REQUESTS
        rows.append((str(together), number(round(size, -1)), f"{size * 10_000 / 1e6:.0f} MB/s"))
    return table(("requests a run", "bytes a request, with its share of the run's span", "at 10,000 requests/s"), rows)


def _records(together: int) -> Records:
    """RECORD[REQUESTS] in runs of `together`."""
    records: Records = np.zeros(REQUESTS, RECORD)
    ids = np.arange(1, REQUESTS + 1, dtype=np.uint64)
    records["trace_id"] = np.repeat(ids, 2).view(np.uint8).reshape(REQUESTS, 16)
    records["span_id"] = records["parent_id"] = ids.view(np.uint8).reshape(REQUESTS, 8)
    records["run_id"] = np.repeat(ids[::together], together).view(np.uint8).reshape(REQUESTS, 8)
    records["received_unix_ns"] = 1_800_000_000 * 10**9
    for name, value in TIMES_NS.items():
        records[name] = value
    records["target"], records["variant"], records["authority"], records["reason"] = 1, 2, 3, Reason.LABEL
    records["rows"], records["run_rows"], records["run_requests"] = 1, together, together
    records["bytes_in"], records["bytes_out"], records["trace_flags"] = 146, 78, 1
    records["peer_family"], records["peer_port"] = PeerFamily.IPV4, 40_000
    records["peer_address"][:, :4] = (10, 0, 0, 7)
    return records
