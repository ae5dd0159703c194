"""What is measured of a model: its features, in parts that are measured together, and where they lie in memory.

pane of one version                                                       bytes
┌──────────────────────────────────────────────────────────────────────┐
│ rows u64 │ version of this layout u64 │ 0s                           │  64
├──────────────────────────────────────────────────────────────────────┤
│ one part after the other, each from a multiple of 64 on:             │
│   columns     a block (runtime/sketch/layout.py), a feature a column │
│   dense       a block: norm, mean, share of zeros, projections       │
│   text        a block of one feature: the length                     │
│   values      missing u64, 0s to 64; frequent values                 │
│   categories  counts of declared categories                          │
│   scores      a block: scores, confidence, margin; classes; rejected │
│   sample      a sample of rows                                       │
└──────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar, Literal

from runtime.profile.schema_fields import check_field
from runtime.sketch.categories import categories_bytes
from runtime.sketch.errors import Malformed
from runtime.sketch.frequent import DEFAULT_LG_SLOTS, frequent_bytes
from runtime.sketch.layout import BlockShape
from runtime.sketch.rows import rows_bytes

LAYOUT_VERSION = 1
HEAD_BYTES = 64
LINE = 64

Role = Literal["input", "output"]

PREDICTION = "(prediction)"
"""The column of the sample of rows that holds what features are correlated with."""

CONFIDENCE, MARGIN = "prediction.confidence", "prediction.margin"
CLASS, REJECTED = "prediction.class", "prediction.rejected"

PROJECTIONS = 8
"""Of a dense input: enough to see a shift of most directions, few enough to cost as much as the norm."""


class FeatureKind(Enum):
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    CATEGORICAL = "categorical"
    TEXT = "text"
    """Measured by its length in characters."""
    DENSE = "dense"
    """A number that sums up a row of an embedding, an image, a wide input."""
    RATE = "rate"


def aligned(offset: int) -> int:
    return -(-offset // LINE) * LINE


@dataclass(frozen=True)
class Feature:
    """As it is shown. `tensor` and `column`: where it comes from; -1: from more than one column."""

    name: str
    role: Role
    kind: FeatureKind
    tensor: str
    column: int = -1


@dataclass(frozen=True)
class Source:
    """Columns of a tensor [rows, ...]; None: all of them, as they lie."""

    tensor: str
    columns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Columns:
    """Numeric columns of one datatype. `low`, `high`, `missing`: by name, where settings have them."""

    role: Role
    datatype: str
    sources: tuple[Source, ...]
    names: tuple[str, ...]
    lg_k: int
    limits: dict[str, tuple[float | None, float | None, float | None]] = field(default_factory=dict)
    tag: ClassVar[str] = "columns"

    @cached_property
    def shape(self) -> BlockShape:
        return BlockShape(len(self.names), self.lg_k)

    @property
    def size_bytes(self) -> int:
        return self.shape.size_bytes

    @property
    def features(self) -> tuple[Feature, ...]:
        kind = FeatureKind.BOOLEAN if self.datatype == "BOOL" else FeatureKind.NUMERIC
        places = [
            (source.tensor, column)
            for source, count in zip(self.sources, self.counts, strict=True)
            for column in (source.columns if source.columns is not None else range(count))
        ]
        return tuple(Feature(name, self.role, kind, *place) for name, place in zip(self.names, places, strict=True))

    @property
    def counts(self) -> list[int]:
        """Columns of each source; at most one source leaves them open."""
        known = [len(source.columns) if source.columns is not None else 0 for source in self.sources]
        rest = len(self.names) - sum(known)
        return [count or rest for count in known]


@dataclass(frozen=True)
class Dense:
    """Each row of a tensor, summed up. `width`: numbers in a row; 0: it varies, and there are no projections."""

    role: Role
    tensor: str
    datatype: str
    width: int
    lg_k: int = 0
    tag: ClassVar[str] = "dense"

    @property
    def names(self) -> tuple[str, ...]:
        sums = (f"{self.tensor}.norm", f"{self.tensor}.mean", f"{self.tensor}.zeros")
        return sums + tuple(f"{self.tensor}.projection{i}" for i in range(PROJECTIONS if self.width else 0))

    @cached_property
    def shape(self) -> BlockShape:
        return BlockShape(len(self.names), self.lg_k)

    @property
    def size_bytes(self) -> int:
        return self.shape.size_bytes

    @property
    def features(self) -> tuple[Feature, ...]:
        return tuple(Feature(name, self.role, FeatureKind.DENSE, self.tensor) for name in self.names)


@dataclass(frozen=True)
class Text:
    """A column of texts, by their lengths in characters."""

    role: Role
    name: str
    tensor: str
    column: int
    tag: ClassVar[str] = "text"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @cached_property
    def shape(self) -> BlockShape:
        return BlockShape(1, 0)

    @property
    def size_bytes(self) -> int:
        return self.shape.size_bytes

    @property
    def features(self) -> tuple[Feature, ...]:
        return (Feature(self.name, self.role, FeatureKind.TEXT, self.tensor, self.column),)


@dataclass(frozen=True)
class Values:
    """A column of texts or whole numbers that are names: which ones are frequent. Column -1: of all columns."""

    role: Role
    name: str
    tensor: str
    column: int
    texts: bool
    missing: float | None = None
    lg_slots: int = DEFAULT_LG_SLOTS
    tag: ClassVar[str] = "values"

    @property
    def size_bytes(self) -> int:
        return LINE + frequent_bytes(self.lg_slots)

    @property
    def features(self) -> tuple[Feature, ...]:
        return (Feature(self.name, self.role, FeatureKind.CATEGORICAL, self.tensor, self.column),)


@dataclass(frozen=True)
class Categories:
    """A column whose categories are declared."""

    role: Role
    name: str
    tensor: str
    column: int
    declared: tuple[str, ...] | tuple[int, ...]
    missing: float | None = None
    tag: ClassVar[str] = "categories"

    @property
    def size_bytes(self) -> int:
        return categories_bytes(len(self.declared))

    @property
    def features(self) -> tuple[Feature, ...]:
        return (Feature(self.name, self.role, FeatureKind.CATEGORICAL, self.tensor, self.column),)


@dataclass(frozen=True)
class Scores:
    """One score for each of `classes` in a row: their distribution, the greatest, and what is made of it.

    `each`: whether the scores are measured one by one. `counted`: whether the greatest one's class is.
    `reject_below`: of the confidence, the greatest score.
    """

    tensor: str
    classes: tuple[str, ...]
    each: bool
    counted: bool
    reject_below: float | None
    lg_k: int
    datatype: str = "FP32"
    tag: ClassVar[str] = "scores"

    @property
    def names(self) -> tuple[str, ...]:
        scores = tuple(f"{self.tensor}[{name}]" for name in self.classes) if self.each else ()
        return (*scores, CONFIDENCE, MARGIN)

    @cached_property
    def shape(self) -> BlockShape:
        return BlockShape(len(self.names), self.lg_k)

    @property
    def classes_at(self) -> int:
        return aligned(self.shape.size_bytes)

    @property
    def rejected_at(self) -> int:
        return aligned(self.classes_at + categories_bytes(len(self.classes)))

    @property
    def size_bytes(self) -> int:
        return self.rejected_at + 16

    @property
    def features(self) -> tuple[Feature, ...]:
        found = [
            Feature(name, "output", FeatureKind.NUMERIC, self.tensor, at if at < len(self.names) - 2 else -1)
            for at, name in enumerate(self.names)
        ]
        if self.counted:
            found.append(Feature(CLASS, "output", FeatureKind.CATEGORICAL, self.tensor))
        if self.reject_below is not None:
            found.append(Feature(REJECTED, "output", FeatureKind.RATE, self.tensor))
        return tuple(found)


Part = Columns | Dense | Text | Values | Categories | Scores
PARTS: dict[str, type[Any]] = {kind.tag: kind for kind in (Columns, Dense, Text, Values, Categories, Scores)}


@dataclass(frozen=True)
class Predicted:
    """Where the number is that features are correlated with: a column of an output; -1: the greatest of a row."""

    tensor: str
    column: int


@dataclass(frozen=True)
class Sampled:
    """Rows kept as they are: of these columns of the first part, and the prediction last. rows 0: none."""

    rows: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """`notes`: what is not measured column by column, and why."""

    parts: tuple[Part, ...]
    prediction: Predicted | None
    sample: Sampled
    notes: tuple[str, ...] = ()

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        return tuple(feature for part in self.parts for feature in part.features)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Of each part, then of the sample."""
        at, offsets = HEAD_BYTES, []
        for part in self.parts:
            offsets.append(at)
            at = aligned(at + part.size_bytes)
        return (*offsets, at)

    @property
    def sample_columns(self) -> int:
        return len(self.sample.names) + (self.prediction is not None)

    @cached_property
    def size_bytes(self) -> int:
        """Of one pane."""
        sample = rows_bytes(self.sample.rows, self.sample_columns) if self.sample.rows else 0
        return aligned(self.offsets[-1] + sample)

    def to_json(self) -> str:
        document = {
            "version": LAYOUT_VERSION,
            "parts": [{"part": part.tag, **asdict(part)} for part in self.parts],
            "prediction": asdict(self.prediction) if self.prediction is not None else None,
            "sample": asdict(self.sample),
            "notes": self.notes,
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Raises Malformed for what `to_json` has not written, or in another version."""
        try:
            document = json.loads(text)
            if document["version"] != LAYOUT_VERSION:
                raise Malformed(f"expected a schema of version {LAYOUT_VERSION}, got {document['version']!r}")
            predicted = document["prediction"]
            schema = cls(
                tuple(_part(part) for part in document["parts"]),
                Predicted(**_fields(predicted)) if predicted is not None else None,
                Sampled(**_fields(document["sample"])),
                _fields(document)["notes"],
            )
            written = schema.to_json()
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise error if isinstance(error, Malformed) else Malformed(f"not a schema: {error!r}") from error
        if written != text:
            raise Malformed("expected a schema as it is written, in its only form")
        return schema

    @cached_property
    def digest(self) -> str:
        """Of what is measured, not of the notes; sketches of equal schemas can be merged."""
        measured = replace(self, notes=()) if self.notes else self
        return "sha256:" + hashlib.sha256(measured.to_json().encode("utf-8", "surrogatepass")).hexdigest()


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    """With tuples for lists. Raises ValueError for a value that its field never has."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
    if "sources" in fields:
        fields["sources"] = tuple(Source(**_fields(item)) for item in fields["sources"])
    if "limits" in fields:
        fields["limits"] = {name: tuple(limits) for name, limits in dict(fields["limits"]).items()}
    for name, value in fields.items():
        check_field(name, value)
    return fields


def _part(document: dict[str, Any]) -> Part:
    fields = _fields(document)
    part: Part = PARTS[fields.pop("part")](**fields)
    return part


def limits_of(low: float, high: float, missing: float | None) -> tuple[float | None, float | None, float | None]:
    """JSON has no infinity: None is no bound."""
    return (low if math.isfinite(low) else None, high if math.isfinite(high) else None, missing)
