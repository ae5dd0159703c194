"""Which features of two schemas are the same: of one name, one kind, and measured alike.

A reference may be older than the settings that live rows are measured by. What differs is left out of the comparison,
and it is told why: compared all the same, a new range would look like rows that have left it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from runtime.profile.schema import (
    REJECTED,
    Categories,
    Columns,
    Dense,
    Feature,
    FeatureKind,
    Part,
    Schema,
    Scores,
    Values,
)


class Sketch(Enum):
    """What measures a feature."""

    HISTOGRAM = "a histogram"
    CATEGORIES = "counts of declared categories"
    FREQUENT = "its frequent values"
    RATE = "a rate"


@dataclass(frozen=True)
class Measured:
    """`settings`: what has to be equal for two counts of the feature to mean the same; `words` names it.

    `declared`: its categories; `redeclared`: they are others than the reference's, and only common ones are compared.
    """

    feature: Feature
    sketch: Sketch
    settings: tuple[Any, ...] = ()
    words: str = ""
    declared: tuple[str | int, ...] = ()
    redeclared: bool = False


@dataclass(frozen=True)
class Match:
    """`features`: those that both have, by name. `left_out`: the others, each with why."""

    features: dict[str, Measured]
    left_out: tuple[str, ...]
    same_prediction: bool

    def of(self, sketch: Sketch) -> tuple[str, ...]:
        return tuple(name for name, measured in self.features.items() if measured.sketch is sketch)


def match(reference: Schema, live: Schema) -> Match:
    """Features in the live schema's order."""
    theirs, ours = measured_by(reference), measured_by(live)
    features: dict[str, Measured] = {}
    left_out: list[str] = []
    for name, now in ours.items():
        before = theirs.get(name)
        why = "the reference does not have it" if before is None else _difference(before, now)
        if why:
            left_out.append(f"{name}: {why}")
        else:
            features[name] = replace(now, redeclared=before is not None and set(before.declared) != set(now.declared))
    left_out += [f"{name}: only the reference has it" for name in theirs if name not in ours]
    same = reference.prediction == live.prediction
    if not same:
        left_out.append("correlations: the prediction is another column than in the reference")
    return Match(features, tuple(left_out), same)


def measured_by(schema: Schema) -> dict[str, Measured]:
    return {feature.name: _measured(part, feature) for part in schema.parts for feature in part.features}


def _difference(before: Measured, now: Measured) -> str:
    if before.feature.kind is not now.feature.kind:
        return f"{now.feature.kind.value} now, {before.feature.kind.value} in the reference"
    if before.feature.role != now.feature.role:
        return f"an {now.feature.role} now, an {before.feature.role} in the reference"
    if before.sketch is not now.sketch:
        return f"measured by {now.sketch.value} now, by {before.sketch.value} in the reference"
    if before.settings != now.settings:
        return f"{now.words} other than in the reference; build the profile anew"
    return ""


def _measured(part: Part, feature: Feature) -> Measured:
    match part:
        case Columns():
            limits = part.limits.get(feature.name, (None, None, None))
            return Measured(feature, Sketch.HISTOGRAM, tuple(limits), "its range or missing value is")
        case Dense():
            return Measured(feature, Sketch.HISTOGRAM, (part.width,), "the width of its tensor is")
        case Values():
            return Measured(feature, Sketch.FREQUENT, (part.texts, part.missing), "its datatype or missing value is")
        case Categories():
            texts = isinstance(part.declared[0], str)
            settings = (texts, part.missing)
            return Measured(
                feature, Sketch.CATEGORIES, settings, "its datatype or missing value is", tuple(part.declared)
            )
        case Scores() if feature.name == REJECTED:
            return Measured(feature, Sketch.RATE, (part.reject_below,), "the confidence that is asked for is")
        case Scores() if feature.kind is FeatureKind.CATEGORICAL:
            return Measured(feature, Sketch.CATEGORIES, declared=part.classes)
        case _:
            return Measured(feature, Sketch.HISTOGRAM)
