"""A profile as it is shown: where it comes from, and a line for each feature."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from gateway.cli.console import table
from gateway.cli.text import NOTHING, byte_count, one_line
from runtime.profile.reference import Profile
from runtime.profile.schema import Feature, FeatureKind

MOST_FEATURES = 100
MOST_LABELS = 10
MOST_VALUES = 5
QUANTILES = (0.05, 0.5, 0.95)


def document(profile: Profile) -> dict[str, Any]:
    """For --json: every fact, and what the sketches say of each feature."""
    facts = _Facts(profile)
    return {
        "kind": profile.kind,
        "digest": profile.digest,
        "rows": profile.rows,
        "created_at_seconds": profile.created_at_seconds,
        "about": dict(profile.about),
        "labels": dict(profile.labels),
        "schema_digest": profile.schema.digest,
        "notes": list(profile.schema.notes),
        "bytes": len(profile.encode()),
        "features": [facts.of(feature) for feature in profile.schema.features],
    }


def lines(profile: Profile, *, most: int | None) -> list[RenderableType]:
    """most: features that are shown one by one; None: all."""
    created = datetime.fromtimestamp(profile.created_at_seconds, UTC).isoformat(timespec="seconds")
    facts = {
        "rows": f"{profile.rows:,}",
        "features": f"{len(profile.schema.features):,}",
        "digest": profile.digest,
        "created": created.replace("+00:00", "Z"),
        "size": byte_count(len(profile.encode())),
        **{key.replace("_", " "): one_line(value) for key, value in profile.about.items()},
    }
    if profile.labels:
        facts["label counts"] = _labels(profile)
    width = max(len(name) for name in facts)
    shown: list[RenderableType] = [
        Text.assemble((name.ljust(width), "dim"), "  ", value) for name, value in facts.items()
    ]
    shown += [Text.assemble(("note".ljust(width), "yellow"), "  ", one_line(note)) for note in profile.schema.notes]
    features = profile.schema.features[:most]
    if features:
        shown += [Text(""), _features(profile, features)]
        if left := len(profile.schema.features) - len(features):
            shown.append(Text(f"and {left:,} more: --all shows them"))
    return shown


def _labels(profile: Profile) -> str:
    total = max(sum(profile.labels.values()), 1)
    counts = sorted(profile.labels.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{one_line(name) or '(missing)'} {count:,} ({count / total:.1%})" for name, count in counts[:MOST_LABELS]]
    return ", ".join(shown) + (f" and {len(counts) - MOST_LABELS} more" if len(counts) > MOST_LABELS else "")


def _features(profile: Profile, features: tuple[Feature, ...]) -> RenderableType:
    right = frozenset({"MISSING", "MEAN", "DEVIATION", "5 %", "50 %", "95 %", "DISTINCT"})
    drawn = table(
        "FEATURE", "ROLE", "KIND", "MISSING", "MEAN", "DEVIATION", "5 %", "50 %", "95 %", "DISTINCT", "VALUES",
        right=right, fold=frozenset({"VALUES"}),
    )  # fmt: skip
    facts = _Facts(profile)
    for feature in features:
        of = facts.of(feature)
        quantiles = [_number(of.get("quantiles", {}).get(str(q))) for q in QUANTILES]
        distinct = of.get("distinct")
        drawn.add_row(
            one_line(feature.name),
            feature.role,
            feature.kind.value,
            _share(of["missing"], of["rows"]),
            _number(of.get("mean")),
            _number(of.get("deviation")),
            *quantiles,
            NOTHING if distinct is None else f"{distinct:,.0f}",
            ", ".join(f"{one_line(name)} {count:,}" for name, count in of.get("values", {}).items()),
        )
    return drawn


class _Facts:
    """What the sketches say of a feature. Numbers that there are none of are left out, for JSON has no NaN."""

    def __init__(self, profile: Profile) -> None:
        summary = profile.summary
        self._rows = profile.rows
        self._histograms, self._moments = summary.histograms(), summary.moments()
        self._distinct, self._categories = summary.distinct(), summary.categories()
        self._frequent, self._rates = summary.frequent(), summary.rates()

    def of(self, feature: Feature) -> dict[str, Any]:
        name = feature.name
        facts: dict[str, Any] = {"name": name, "role": feature.role, "kind": feature.kind.value, "missing": 0}
        facts["rows"] = self._rows
        if name in self._histograms:
            self._numeric(name, facts)
        elif name in self._categories:
            counts = self._categories[name]
            facts["rows"] = int(counts.counts.sum())
            facts["missing"], facts["other"] = counts.missing, counts.other
            top = sorted(counts.by_category().items(), key=lambda item: -item[1])
            facts["values"] = {str(value): count for value, count in top[:MOST_VALUES] if count}
        elif name in self._frequent:
            frequent, facts["missing"] = self._frequent[name]
            facts["rows"] = frequent.total + facts["missing"]
            facts["values"] = {str(each.value): each.at_least for each in frequent.top(MOST_VALUES)}
        elif feature.kind is FeatureKind.RATE:
            hits, facts["rows"] = self._rates[name]
            facts["mean"] = hits / max(facts["rows"], 1)
        return facts

    def _numeric(self, name: str, facts: dict[str, Any]) -> None:
        histogram, moments = self._histograms[name], self._moments[name].summary()
        facts["rows"] = histogram.total
        aside = histogram.aside
        facts["missing"] = aside["missing"] + aside["nan"]
        facts["infinite"] = aside["plus_infinity"] + aside["minus_infinity"]
        facts["out_of_range"] = aside["below"] + aside["above"]
        numbers = {
            "mean": moments.mean,
            "deviation": math.sqrt(moments.variance) if moments.variance >= 0 else math.nan,
            "correlation": moments.correlation,
        }
        facts.update({key: value for key, value in numbers.items() if math.isfinite(value)})
        if histogram.finite:
            facts["quantiles"] = {str(q): float(histogram.quantile(q)) for q in QUANTILES}
        if name in self._distinct:
            facts["distinct"] = round(self._distinct[name].estimate())


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def _share(count: int, rows: int) -> str:
    return NOTHING if not count else f"{count / max(rows, 1):.2%}"
