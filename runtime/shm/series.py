"""Both ends of a worker's page of series: who writes a row, and how rows are read and added up."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from runtime.shm.order import order
from runtime.shm.segment import Segment
from runtime.shm.series_layout import (
    CLASSIC_AT,
    COUNTERS,
    COUNTERS_AT,
    DURATION_AT,
    EXEMPLAR_WORDS,
    EXEMPLARS_AT,
    HEADER,
    HEADER_BYTES,
    IDENTITY,
    IDENTITY_WORDS,
    LAYOUT_VERSION,
    LOST,
    MAGIC,
    MAX_SERIES,
    PAGE_BYTES,
    PER_OCTAVE,
    QUEUE_AT,
    ROWS_AT,
    ROWS_BUCKETS,
    ROWS_OFFSET,
    RUN_AT,
    SEQUENCE,
    SERIES_WORDS,
    TIME_BUCKETS,
    TIME_OFFSET,
    USED,
)

log = logging.getLogger(__name__)

QUICK_TRIES = 100
NAPS = 250
NAP_SECONDS = 0.0002
VARIANT_BYTES = 64

Words = npt.NDArray[np.uint64]


class PageMismatch(RuntimeError):
    """The segment was made by another version of this program, or is not a page of series."""


@dataclass(frozen=True, slots=True, order=True)
class SeriesKey:
    """`version` 0 and `model` "": the request never reached a version. `reason`: of a refusal, else ""."""

    model: str
    version: int
    variant: str
    code: int
    reason: str


UNKNOWN = 2  # gRPC's code
OVERFLOW = SeriesKey("", 0, "overflow", 0, "")
OVERFLOW_REFUSED = SeriesKey("", 0, "overflow", UNKNOWN, "")
OVERFLOWS = (OVERFLOW, OVERFLOW_REFUSED)
"""The first rows of a page: what finds no room in it, answered and refused. No other key has a variant and no model."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """`bucket`: of the classic ones."""

    bucket: int
    trace_id: bytes
    span_id: bytes
    duration_seconds: float
    unix_ns: int


@dataclass(slots=True)
class Series:
    """Totals since the gateway started. The arrays are uint64, of the sizes and offsets in this module."""

    key: SeriesKey
    counters: dict[str, int]
    classic: Words
    duration: Words
    queue: Words
    run: Words
    run_rows: Words
    exemplars: list[Exemplar] = field(default_factory=list)

    def add(self, other: Series) -> None:
        """Exact: bounds are fixed, so the sum is what one worker would have counted."""
        for name, value in other.counters.items():
            if name == "duration_min_ns":
                self.counters[name] = min(filter(None, (self.counters[name], value)), default=0)
            elif name == "duration_max_ns":
                self.counters[name] = max(self.counters[name], value)
            else:
                self.counters[name] += value
        for mine, theirs in (
            (self.classic, other.classic),
            (self.duration, other.duration),
            (self.queue, other.queue),
            (self.run, other.run),
            (self.run_rows, other.run_rows),
        ):
            np.add(mine, theirs, out=mine)
        newest = {exemplar.bucket: exemplar for exemplar in self.exemplars}
        for exemplar in other.exemplars:
            if exemplar.bucket not in newest or newest[exemplar.bucket].unix_ns < exemplar.unix_ns:
                newest[exemplar.bucket] = exemplar
        self.exemplars = [newest[bucket] for bucket in sorted(newest)]


def bounds_seconds() -> npt.NDArray[np.float64]:
    """float64[TIME_BUCKETS + 1]: bucket k of a time histogram is (bounds[k], bounds[k + 1]] seconds."""
    return np.exp2((TIME_OFFSET + np.arange(TIME_BUCKETS + 1)) / PER_OCTAVE)


def bounds_rows() -> npt.NDArray[np.float64]:
    return np.exp2((ROWS_OFFSET + np.arange(ROWS_BUCKETS + 1)) / PER_OCTAVE)


def map_page(segment: Segment) -> tuple[Words, Words]:
    """uint64[8], the header; uint64[MAX_SERIES, SERIES_WORDS]. Raises PageMismatch."""
    magic, layout, series = HEADER.unpack_from(segment.buffer, 0)
    if (magic, layout, series, segment.size_bytes) != (MAGIC, LAYOUT_VERSION, MAX_SERIES, PAGE_BYTES):
        raise PageMismatch(
            f"expected a page of series of layout {LAYOUT_VERSION} and {PAGE_BYTES} bytes, "
            f"got {magic!r} layout {layout}, {segment.size_bytes} bytes"
        )
    header = np.frombuffer(segment.buffer, np.uint64, HEADER_BYTES // 8)
    rows = np.frombuffer(segment.buffer, np.uint64, MAX_SERIES * SERIES_WORDS, HEADER_BYTES)
    return header, rows.reshape(MAX_SERIES, SERIES_WORDS)


class SeriesWriter:
    """Hands out the rows of a page to its one writer. Not thread-safe; the counting is in runtime/shm/publish.py."""

    def __init__(self, segment: Segment) -> None:
        self.header, self.rows = map_page(segment)
        self.header[SEQUENCE] += self.header[SEQUENCE] & np.uint64(1)  # a writer before may have been killed half-way
        self._numbers: dict[bytes, int] = {}  # by identity: keys that differ in what is cut off are one series
        for number, key in enumerate(OVERFLOWS):
            if self.header[USED] == number:
                self._write(number, _identity_of(key))
        for number in range(int(self.header[USED])):
            self._numbers[self.rows[number, :IDENTITY_WORDS].tobytes()] = number

    def number(self, key: SeriesKey) -> int:
        """The same row for the same key, over restarts too; that of one of `OVERFLOWS` when the page is full.

        No row is given back. Totals are added up over pages and never fall as long as they are reported, so all workers
        would have to drop a series at one moment.
        """
        identity = _identity_of(key)
        known = self._numbers.get(identity)
        if known is not None:
            return known
        number = int(self.header[USED])
        if number >= MAX_SERIES:
            if not self.header[LOST]:
                log.warning(
                    "all %s series of this worker are taken, %s is the first without: such requests are counted "
                    "together, under otel.metric.overflow, until the gateway is restarted as a whole", MAX_SERIES, key,
                )  # fmt: skip
            self.header[LOST] += np.uint64(1)
            return OVERFLOWS.index(OVERFLOW_REFUSED if key.code else OVERFLOW)
        self._write(number, identity)
        self._numbers[identity] = number
        return number

    def _write(self, number: int, identity: bytes) -> None:
        self.rows[number, :IDENTITY_WORDS] = np.frombuffer(identity, np.uint64)
        order()
        self.header[USED] = number + 1


class SeriesReader:
    """Reads the pages of all workers and adds them up."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._pages = [map_page(segment) for segment in segments]

    def totals(self) -> list[Series]:
        """Over all workers, in the order of their keys; series that nothing has been counted in are left out."""
        totals: dict[SeriesKey, Series] = {}
        for header, rows in self._pages:
            for row in _consistent_copy(header, rows):
                series = _series(row)
                if not series.counters["requests"]:
                    continue
                if series.key in totals:
                    totals[series.key].add(series)
                else:
                    totals[series.key] = series
        return [totals[key] for key in sorted(totals)]

    def lost(self) -> int:
        """Series that found no room: what they count is in `OVERFLOWS`."""
        return sum(int(header[LOST]) for header, _ in self._pages)


def _consistent_copy(header: Words, rows: Words) -> Words:
    """A writer killed in mid-write leaves `sequence` odd: the last copy is taken as it is."""
    for attempt in range(QUICK_TRIES + NAPS):
        before = int(header[SEQUENCE])
        order()
        copy = rows[: int(header[USED])].copy()
        order()
        if before % 2 == 0 and int(header[SEQUENCE]) == before:
            break
        if attempt >= QUICK_TRIES:
            time.sleep(NAP_SECONDS)
    return copy


def _variant_text(variant: str) -> bytes:
    """A rule's variant may have twice as many characters: its beginning, and a hash that tells it from others."""
    text = variant.encode()
    if len(text) <= VARIANT_BYTES:
        return text
    digest = blake2b(text, digest_size=6).hexdigest().encode()
    return text[: VARIANT_BYTES - 1 - len(digest)] + b"~" + digest


def _identity_of(key: SeriesKey) -> bytes:
    texts = (key.model.encode()[:128], _variant_text(key.variant), key.reason.encode()[:48])
    return IDENTITY.pack(*texts, key.version, key.code)


def _key_of(row: Words) -> SeriesKey:
    model, variant, reason, version, code = IDENTITY.unpack(row[:IDENTITY_WORDS].tobytes())
    texts = [text.rstrip(b"\0").decode("utf-8", "replace") for text in (model, variant, reason)]
    return SeriesKey(texts[0], version, texts[1], code, texts[2])


def _series(row: Words) -> Series:
    exemplars = []
    for bucket, words in enumerate(row[EXEMPLARS_AT:DURATION_AT].reshape(-1, EXEMPLAR_WORDS)):
        if words[4]:
            ids = words[:3].tobytes()
            exemplars.append(Exemplar(bucket, ids[:16], ids[16:], int(words[3]) * 1e-9, int(words[4])))
    return Series(
        key=_key_of(row),
        counters={name: int(row[COUNTERS_AT + index]) for index, name in enumerate(COUNTERS)},
        classic=row[CLASSIC_AT:EXEMPLARS_AT],
        duration=row[DURATION_AT:QUEUE_AT],
        queue=row[QUEUE_AT:RUN_AT],
        run=row[RUN_AT:ROWS_AT],
        run_rows=row[ROWS_AT:SERIES_WORDS],
        exemplars=exemplars,
    )
