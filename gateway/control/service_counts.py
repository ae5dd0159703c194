"""How fast and how well a version has answered within a pane of time, in counts that can be merged and subtracted.

bytes
┌───────────┬─────────────┬──────────────────┬─────────────┬─────────────┬────────────┬──────────────────┬───────────┐
│ "DGSV" 4s │ version u16 │ first bucket u16 │ buckets u32 │ requests u64│ errors u64 │ zero u64         │ crc32 u32 │
├───────────┴─────────────┴──────────────────┴─────────────┴─────────────┴────────────┴──────────────────┴───────────┤
│ counts u64[buckets], before the checksum                                          little-endian throughout         │
└────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gateway.telemetry.conventions import SERVER_ERRORS
from gateway.telemetry.measure import code_name
from runtime.drift.evaluate import Sample
from runtime.drift.service import service_sample
from runtime.drift.verdict import Role
from runtime.profile.windows import Window
from runtime.shm.series import Series, bounds_seconds
from runtime.shm.series_layout import TIME_BUCKETS
from runtime.sketch.errors import Malformed

MAGIC, VERSION = b"DGSV", 1
FRONT = struct.Struct("<4sHHIQQQ")
CHECKSUM = struct.Struct("<I")

Counts = npt.NDArray[np.int64]
VersionKey = tuple[str, int]

PREFIX = "service."
"""Before the names of subjects, so that they are not those of features."""


def _no_counts() -> Counts:
    return np.zeros(TIME_BUCKETS, np.int64)


@dataclass(eq=False)
class ServiceCounts:
    """durations: int64[TIME_BUCKETS], of answered requests, in the buckets of a series; `zero`: those below them.

    `requests`: all, `errors`: those that the gateway or the model failed on. What callers did wrong is no error here.
    """

    durations: Counts = field(default_factory=_no_counts)
    zero: int = 0
    requests: int = 0
    errors: int = 0

    @property
    def rows(self) -> int:
        return self.requests

    @property
    def answered(self) -> int:
        return self.zero + int(self.durations.sum())

    def merge(self, other: ServiceCounts) -> None:
        self.durations = self.durations + other.durations
        self.zero += other.zero
        self.requests += other.requests
        self.errors += other.errors

    def minus(self, part: ServiceCounts) -> ServiceCounts:
        """Without what is in `part` too: a long window without the short one at its end. Never below 0."""
        return ServiceCounts(
            np.maximum(self.durations - part.durations, 0),
            max(self.zero - part.zero, 0),
            max(self.requests - part.requests, 0),
            max(self.errors - part.errors, 0),
        )

    def copy(self) -> ServiceCounts:
        return ServiceCounts(self.durations.copy(), self.zero, self.requests, self.errors)

    def encode(self) -> bytes:
        there = np.flatnonzero(self.durations)
        first, last = (int(there[0]), int(there[-1]) + 1) if there.size else (0, 0)
        front = FRONT.pack(MAGIC, VERSION, first, last - first, self.requests, self.errors, self.zero)
        body = front + self.durations[first:last].astype("<u8").tobytes()
        return body + CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def decode(cls, data: bytes) -> ServiceCounts:
        """Raises Malformed for anything that `encode` has not written."""
        if len(data) < FRONT.size + CHECKSUM.size:
            raise Malformed(f"expected {FRONT.size + CHECKSUM.size} bytes or more, got {len(data)}")
        body = data[: -CHECKSUM.size]
        if CHECKSUM.unpack_from(data, len(body))[0] != zlib.crc32(body):
            raise Malformed("the checksum is that of other bytes: they were changed on their way")
        magic, version, first, buckets, requests, errors, zero = FRONT.unpack_from(body)
        if (magic, version) != (MAGIC, VERSION) or first + buckets > TIME_BUCKETS:
            raise Malformed(f"expected counts of version {VERSION}, got {magic!r} of {version}")
        if len(body) != FRONT.size + 8 * buckets:
            raise Malformed(f"expected {buckets} counts, got {len(body) - FRONT.size} bytes")
        durations = _no_counts()
        durations[first : first + buckets] = np.frombuffer(body, "<u8", buckets, FRONT.size).astype(np.int64)
        if (durations < 0).any() or max(requests, errors, zero) >= 1 << 63:
            raise Malformed("expected counts below 2^63")
        return cls(durations, zero, requests, errors)

    def __repr__(self) -> str:
        return f"ServiceCounts(requests={self.requests}, errors={self.errors}, answered={self.answered})"


class ServiceMeter:
    """What has been counted since the last time, by version, from series that only grow. One thread at a time."""

    def __init__(self) -> None:
        self._before: dict[VersionKey, ServiceCounts] | None = None

    def take(self, totals: Iterable[Series]) -> dict[VersionKey, ServiceCounts]:
        """Of each version that was asked for something. The first time: nothing, for it is not known since when."""
        now: dict[VersionKey, ServiceCounts] = {}
        for series in totals:
            key = series.key
            if key.model and key.version:
                _add(now.setdefault((key.model, key.version), ServiceCounts()), series)
        before, self._before = self._before, now
        if before is None:
            return {}
        new = {key: counts.minus(before.get(key, ServiceCounts())) for key, counts in now.items()}
        return {key: counts for key, counts in new.items() if counts.requests}


def _add(counts: ServiceCounts, series: Series) -> None:
    requests = series.counters["requests"]
    counts.requests += requests
    if series.key.code == 0:
        counts.durations += series.duration.astype(np.int64)
        counts.zero += series.counters["duration_zero"]
    elif code_name(series.key.code) in SERVER_ERRORS:
        counts.errors += requests


FEWEST_BEFORE = 1_000
"""Requests of the time that a window is compared with. A version's first ones are slow, and are no measure of it."""

TIMES_BEFORE = 3
"""And so many times those of the window: what came just after the start is no measure of an hour later."""


@dataclass(frozen=True, eq=False)
class ServiceSample:
    """How a version answers in the window that is looked at, and how it did in the time before that."""

    live: ServiceCounts
    before: ServiceCounts
    before_seconds: float

    @classmethod
    def of(cls, short: Window[ServiceCounts], long: Window[ServiceCounts]) -> ServiceSample | None:
        """Of windows that end at one moment. None where the short one has no requests, or too few came before it."""
        if short.summary is None or long.summary is None:
            return None
        before = long.summary.minus(short.summary)
        seconds = short.start_seconds - long.start_seconds
        fewest = max(FEWEST_BEFORE, TIMES_BEFORE * short.summary.requests)
        return cls(short.summary, before, seconds) if seconds > 0 and before.requests >= fewest else None

    def beside(self, reference: Sample, live: Sample) -> tuple[Sample, Sample]:
        """Both samples with how the version answers. A feature of the same name would hide it."""
        before, now = _sample(self.before), _sample(self.live)
        return _with(reference, before), _with(live, now)


def _sample(counts: ServiceCounts) -> Sample:
    return service_sample(
        "service", bounds_seconds(), counts.durations, zero=counts.zero, errors=counts.errors, requests=counts.requests
    )


def _with(sample: Sample, service: Sample) -> Sample:
    subjects = {f"{PREFIX}{name}": bins for name, bins in service.subjects.items()} | dict(sample.subjects)
    return replace(
        sample,
        subjects=subjects,
        roles=dict.fromkeys(subjects.keys() - sample.subjects.keys(), Role.SERVICE) | dict(sample.roles),
    )
