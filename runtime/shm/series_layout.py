"""What a worker has measured, per series: counts, sums and histograms that only this worker writes.

A series is a model, a served version, a variant, a gRPC code and, for refusals, their reason.

    header, 64 bytes                     series, SERIES_WORDS u64 each
    ┌──────────┬────────────┬─────────┐  ┌──────────────────────────────────────────────────────────────┐
    │ magic 8s │ layout u32 │ u32     │  │ identity: model 128s, variant 64s, reason 48s,               │
    ├──────────┴─────┬──────┴─────────┤  │           version i64, code u64                  32 words    │
    │ sequence u64   │ used u64       │  │ counters                                         COUNTERS    │
    │ lost u64       │                │  │ duration, by classic bounds                      CLASSIC + 1 │
    └────────────────┴────────────────┘  │ exemplars, one for each of these                 x 6 words   │
                                         │ exponential histograms: duration, queue, run, rows of a run  │
                                         └──────────────────────────────────────────────────────────────┘
Little-endian. `sequence` is odd while a batch is being added; a reader copies until it sees the same even number
before and after. The page outlives its worker, so no total ever falls. The first two series take what finds no room:
0 what was answered, 1 what was refused.

Histograms are base-2 exponential ones of scale SCALE (OpenTelemetry's data model, "Exponential Histogram"): bucket k
counts values in (2^((o+k)/16), 2^((o+k+1)/16)], with o the histogram's offset. A quantile read from them is within
(2^(1/16) - 1) / (2^(1/16) + 1) = 2.17 % of the exact one. Values at or below the first bound are in `zero`.
Durations are in seconds (2^-20 s = 0.95 µs to 2^12 s), rows in rows.
"""

from __future__ import annotations

import struct

from runtime.shm.segment import Segment

MAGIC = b"DGSERIES"
LAYOUT_VERSION = 2
HEADER = struct.Struct("<8sII")
HEADER_BYTES = 64
SEQUENCE, USED, LOST = 2, 3, 4  # words of the header
MAX_SERIES = 1024

IDENTITY = struct.Struct("<128s64s48sqQ")
COUNTERS = (
    "requests",
    "rows",
    "bytes_in",
    "bytes_out",
    "duration_ns",
    "duration_min_ns",
    "duration_max_ns",
    "queue_ns",
    "run_ns",
    "runs",
    "run_rows",
    "queue_zero",
    "run_zero",
    "duration_zero",
    "rows_zero",
    "ran_requests",
)
CLASSIC_SECONDS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the classic buckets, for Prometheus; the last bucket, beyond them, is +Inf."""

EXEMPLAR_WORDS = 6  # trace id 2, span id 1, duration ns, unix ns, spare
SCALE = 4
PER_OCTAVE = 1 << SCALE
TIME_OFFSET = -20 * PER_OCTAVE
TIME_BUCKETS = 32 * PER_OCTAVE
ROWS_OFFSET = -PER_OCTAVE
ROWS_BUCKETS = 32 * PER_OCTAVE

IDENTITY_WORDS = IDENTITY.size // 8
COUNTERS_AT = IDENTITY_WORDS
CLASSIC_AT = COUNTERS_AT + len(COUNTERS)
EXEMPLARS_AT = CLASSIC_AT + len(CLASSIC_SECONDS) + 1
DURATION_AT = EXEMPLARS_AT + (len(CLASSIC_SECONDS) + 1) * EXEMPLAR_WORDS
QUEUE_AT = DURATION_AT + TIME_BUCKETS
RUN_AT = QUEUE_AT + TIME_BUCKETS
ROWS_AT = RUN_AT + TIME_BUCKETS
SERIES_WORDS = ROWS_AT + ROWS_BUCKETS
PAGE_BYTES = HEADER_BYTES + MAX_SERIES * SERIES_WORDS * 8


def create_series_page(name: str) -> Segment:
    segment = Segment.create(name, PAGE_BYTES)
    HEADER.pack_into(segment.buffer, 0, MAGIC, LAYOUT_VERSION, MAX_SERIES)
    return segment
