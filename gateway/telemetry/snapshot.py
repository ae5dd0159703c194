"""The values of all metrics at one moment. Whoever exports them, in whatever format, reads them here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.telemetry.instruments import Instrument
from gateway.telemetry.signed import SignedDistribution
from runtime.shm.series import Exemplar, Words

AttributeValue = str | int | bool
Attributes = tuple[tuple[str, AttributeValue], ...]
"""Keys and values, in the order in which the instrument declares its keys; what does not apply is left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """A base-2 exponential histogram without negative values.

    `counts`: uint64[buckets]; bucket k counts values in (2^((offset+k)/2^scale), 2^((offset+k+1)/2^scale)]. `zero`:
    values at or below the first bound. `total`: the sum of the values. `minimum` and `maximum`: None where they are not
    known. `classic`: uint64[len(CLASSIC_SECONDS) + 1], the same values by those bounds, where they are counted so.
    """

    counts: Words
    zero: int
    offset: int
    scale: int
    total: float
    minimum: float | None = None
    maximum: float | None = None
    classic: Words | None = None
    exemplars: tuple[Exemplar, ...] = ()

    @property
    def count(self) -> int:
        """Of the buckets, so that it is their sum in whatever state a page was read."""
        return self.zero + int(self.counts.sum())

    @property
    def zero_threshold(self) -> float:
        """The first bound."""
        return float(2.0 ** (self.offset / (1 << self.scale)))

    def trimmed(self) -> tuple[int, Words]:
        """Offset and counts of the occupied range; (0, nothing) where all buckets are empty."""
        occupied = np.flatnonzero(self.counts)
        if not len(occupied):
            return 0, self.counts[:0]
        return self.offset + int(occupied[0]), self.counts[occupied[0] : occupied[-1] + 1]

    def at_or_below(self, exponent: int) -> int:
        """How many values are at most 2^exponent: exact, since that is a bound."""
        buckets = (exponent << self.scale) - self.offset
        return self.zero + int(self.counts[: max(buckets, 0)].sum()) if buckets >= 0 else 0

    def plus(self, other: Distribution) -> Distribution:
        """As if one histogram had counted both; of the same scale and bounds. Its arrays are new."""
        minima = [value for value in (self.minimum, other.minimum) if value is not None]
        maxima = [value for value in (self.maximum, other.maximum) if value is not None]
        newest: dict[int, Exemplar] = {}
        for exemplar in sorted((*self.exemplars, *other.exemplars), key=lambda exemplar: exemplar.unix_ns):
            newest[exemplar.bucket] = exemplar
        return Distribution(
            counts=self.counts + other.counts,
            zero=self.zero + other.zero,
            offset=self.offset,
            scale=self.scale,
            total=self.total + other.total,
            minimum=min(minima, default=None),
            maximum=max(maxima, default=None),
            classic=None if self.classic is None or other.classic is None else self.classic + other.classic,
            exemplars=tuple(newest[bucket] for bucket in sorted(newest)),
        )

    def since(self, earlier: Distribution, earlier_unix_ns: int) -> Distribution:
        """What was counted after `earlier` was read. Minimum and maximum of that time are not known.

        Where anything is smaller than before, counting has begun anew: all of it is new.
        """
        if self.zero < earlier.zero or bool((self.counts < earlier.counts).any()):
            return self
        return replace(
            self,
            counts=self.counts - earlier.counts,
            zero=self.zero - earlier.zero,
            total=max(self.total - earlier.total, 0.0),
            minimum=None,
            maximum=None,
            classic=None if self.classic is None or earlier.classic is None else self.classic - earlier.classic,
            exemplars=tuple(exemplar for exemplar in self.exemplars if exemplar.unix_ns > earlier_unix_ns),
        )


@dataclass(frozen=True, slots=True)
class Point:
    """`start_unix_ns`: from when on this one counts, where that is later than the measurement's; 0: it is not."""

    attributes: Attributes
    value: int | float | Distribution | SignedDistribution
    start_unix_ns: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric's points, each with attributes of its own. Totals count from `start_unix_ns`."""

    instrument: Instrument
    start_unix_ns: int
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Metrics without points are left out."""

    unix_ns: int
    measurements: Sequence[Measurement]

    def __getitem__(self, name: str) -> Measurement:
        """By the metric's name. Raises KeyError."""
        for measurement in self.measurements:
            if measurement.instrument.name == name:
                return measurement
        raise KeyError(name)
