"""What the metrics tell of drift and of features, as figures of each version; control keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.telemetry.signed import SignedDistribution


@dataclass(frozen=True, slots=True)
class SubjectDrift:
    """`distances`: aspect, measure, value."""

    subject: str
    role: str
    effect: float
    alarmed: bool
    distances: Sequence[tuple[str, str, float]] = ()


@dataclass(frozen=True, slots=True)
class VersionDrift:
    """One version's. `rows` and `looks` count from control's start; `unshown`: subjects that are not among `subjects`.

    `missing`: shares, by feature. `values`: by feature, all that was seen since a moment, Unix time.
    """

    model: str
    version: int
    rows: int
    looks: int
    unshown: int = 0
    subjects: Sequence[SubjectDrift] = ()
    missing: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, tuple[int, SignedDistribution]] = field(default_factory=dict)


Rows = Iterable[Any]
"""As `measure.Row` has them."""


def _subjects(read: Callable[[SubjectDrift], float | int]) -> Callable[[VersionDrift], Rows]:
    return lambda of: [((of.model, of.version, each.subject, each.role), read(each)) for each in of.subjects]


def _distances(of: VersionDrift) -> Rows:
    for each in of.subjects:
        for aspect, measure, value in each.distances:
            yield (of.model, of.version, each.subject, each.role, aspect, measure), value


DRIFT: Mapping[str, Callable[[VersionDrift], Rows]] = {
    "rows": lambda of: [((of.model, of.version), of.rows)],
    "looks": lambda of: [((of.model, of.version), of.looks)],
    "unshown": lambda of: [((of.model, of.version), of.unshown)],
    "effect": _subjects(lambda each: each.effect),
    "alarm": _subjects(lambda each: int(each.alarmed)),
    "distance": _distances,
    "missing": lambda of: [((of.model, of.version, name), share) for name, share in of.missing.items()],
    "values": lambda of: [((of.model, of.version, n), value, since) for n, (since, value) in of.values.items()],
}
"""By the last part of a source: attributes in the instruments' order, and values."""
