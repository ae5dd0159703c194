"""All that is kept of a version's inputs and outputs: one sketch or more for each feature, and a sample of rows.

Memory: schema.size_bytes; docs/statistics.md has the sum for a feature. Merge: that of the sketches it is made of, so
the summary of a window is that of its panes, whichever workers and replicas saw the rows. One writer at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from runtime.profile.codec import read_summary, write_summary
from runtime.profile.parts import (
    Array,
    CategoriesMeasure,
    ColumnsMeasure,
    Measure,
    ScoresMeasure,
    ValuesMeasure,
    measure_of,
    rows_of,
)
from runtime.profile.schema import CLASS, HEAD_BYTES, LAYOUT_VERSION, PREDICTION, REJECTED, FeatureKind, Schema
from runtime.sketch.block import Block
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.distinct import DistinctCount
from runtime.sketch.errors import Malformed, NotMergeable
from runtime.sketch.exponential import ExponentialHistogram
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.moments import Moments
from runtime.sketch.rows import RowSample

ROWS, LAYOUT = range(2)


@dataclass(frozen=True, eq=False)
class SampledRows:
    """A uniform sample of `seen` rows. rows: float64[n, columns]; what is no number is NaN or infinite there."""

    columns: tuple[str, ...]
    rows: npt.NDArray[np.float64]
    seen: int


class Summary:
    """Made by `create`, or by `attach` on memory that holds one; without a buffer in memory of its own."""

    def __init__(self, schema: Schema, memory: memoryview, *, seed: int | None = None) -> None:
        self.schema = schema
        self.memory = memory
        self._head: npt.NDArray[np.int64] = np.frombuffer(memory, "<i8", HEAD_BYTES // 8)
        ends = schema.offsets[1:]
        self.measures: tuple[Measure, ...] = tuple(
            measure_of(part, memory[start:end])
            for part, start, end in zip(schema.parts, schema.offsets, ends, strict=False)
        )
        self.sampled: RowSample | None = None
        if schema.sample.rows:
            self.sampled = RowSample(schema.sample.rows, schema.sample_columns, memory[schema.offsets[-1] :], seed=seed)
        self._blocks = [
            (measure, measure.block, part.names)  # type: ignore[union-attr]
            for measure, part in zip(self.measures, schema.parts, strict=True)
            if hasattr(measure, "block")
        ]
        self._sources = _sources(schema, self.measures)
        self._prediction_datatype = _prediction_datatype(schema)
        self._sampled_columns = _sampled_columns(schema)
        self._columns = [measure for measure in self.measures if isinstance(measure, ColumnsMeasure)]
        self._columns = self._columns[: len(self._sampled_columns)]  # those of inputs come first

    @classmethod
    def create(cls, schema: Schema, buffer: bytearray | memoryview | None = None, *, seed: int | None = None) -> Self:
        """Empty, in `buffer` of all zeros. `seed`: of the sample of rows; random by default, as it must be for merging.

        Raises Malformed if the buffer is smaller than schema.size_bytes.
        """
        memory = memoryview(bytearray(schema.size_bytes) if buffer is None else buffer)
        if len(memory) < schema.size_bytes:
            raise Malformed(f"expected {schema.size_bytes} bytes or more for a summary, got {len(memory)}")
        summary = cls(schema, memory[: schema.size_bytes], seed=seed)
        summary._head[LAYOUT] = LAYOUT_VERSION
        return summary

    @classmethod
    def attach(cls, schema: Schema, buffer: bytes | bytearray | memoryview) -> Self:
        """A copy of the summary in `buffer`. Raises Malformed if there is none."""
        if len(buffer) < schema.size_bytes:
            raise Malformed(f"expected {schema.size_bytes} bytes or more for a summary, got {len(buffer)}")
        memory = memoryview(bytearray(memoryview(buffer)[: schema.size_bytes]))
        layout = int(np.frombuffer(memory, "<i8", 2)[LAYOUT])
        if layout != LAYOUT_VERSION:
            raise Malformed(f"expected a summary of layout {LAYOUT_VERSION}, got {layout}")
        return cls(schema, memory)

    def observe(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int) -> None:
        """Adds a run: tensors by name, [rows, ...]. Those that are not there are not measured. Nothing is kept of them.

        Raises BadValues for arrays of other datatypes than the schema's.
        """
        prediction = self._prediction(outputs, rows)
        for measure, tensors_of_inputs in self._sources:
            measure.observe(inputs if tensors_of_inputs else outputs, prediction if tensors_of_inputs else None)
        if self.sampled is not None:
            self._sample(rows, prediction)
        self._head[ROWS] += rows

    def _prediction(self, outputs: Mapping[str, Array], rows: int) -> Array | None:
        """float64[rows]; None where this run has none."""
        predicted = self.schema.prediction
        if predicted is None:
            return None
        tensor = outputs.get(predicted.tensor)
        if tensor is None or tensor.ndim == 0 or tensor.shape[0] != rows or tensor.dtype.kind not in "fiub":
            return None
        if tensor.ndim > 2 or self._prediction_datatype == "BF16":
            tensor = rows_of(tensor, self._prediction_datatype)
        if tensor.ndim == 2:
            tensor = tensor.max(axis=1) if predicted.column < 0 else tensor[:, predicted.column]
        return tensor.astype(np.float64)

    def _sample(self, rows: int, prediction: Array | None) -> None:
        sample = self.sampled
        blocks = [measure.values for measure in self._columns]
        present = [values for values in blocks if values is not None and len(values) == rows]
        if sample is None or len(present) != len(blocks):
            return
        picked, places = sample.pick(rows)
        if not len(picked):
            return
        at = 0
        with np.errstate(over="ignore"):  # float64 beyond float32's range is infinite there
            for values, columns in zip(present, self._sampled_columns, strict=True):
                taken = values[picked] if columns is None else values[np.ix_(picked, columns)]
                sample.values[places, at : at + taken.shape[1]] = taken
                at += taken.shape[1]
            if self.schema.prediction is not None:
                sample.values[places, at] = np.nan if prediction is None else prediction[picked]

    @property
    def rows(self) -> int:
        return int(self._head[ROWS])

    def set_rows(self, rows: int) -> None:
        """Of a summary that is put together from stored parts."""
        self._head[ROWS] = rows

    def merge(self, other: Summary) -> None:
        """Adds what `other` has seen. Raises NotMergeable for one of another schema."""
        if other.schema != self.schema and other.schema.digest != self.schema.digest:
            raise NotMergeable("the summaries have different schemas: features, kinds, ranges or names differ")
        for mine, theirs in zip(self.measures, other.measures, strict=True):
            for sketch, another in zip(mine.sketches(), theirs.sketches(), strict=True):
                sketch.merge(another)  # type: ignore[arg-type]  # of one class each
            for counts, others in zip(mine.counts(), theirs.counts(), strict=True):
                np.add(counts, others, out=counts)
        if self.sampled is not None and other.sampled is not None:
            self.sampled.merge(other.sampled)
        self._head[ROWS] += other._head[ROWS]

    def copy(self) -> Summary:
        return Summary.attach(self.schema, self.memory)

    def encode(self) -> bytes:
        """The schema is not in it, but its digest is. docs/statistics.md has the form."""
        return write_summary(self)

    @classmethod
    def decode(cls, schema: Schema, data: bytes) -> Summary:
        """Raises Malformed for anything that `encode` has not written of this schema."""
        return read_summary(cls.create(schema), data)

    def histograms(self) -> dict[str, ExponentialHistogram]:
        """Copies, of the numeric features, by name."""
        return {n: block.histogram(at) for _, block, names in self._blocks for at, n in enumerate(names)}

    def moments(self) -> dict[str, Moments]:
        return {n: block.moments_of(at) for _, block, names in self._blocks for at, n in enumerate(names)}

    def distinct(self) -> dict[str, DistinctCount]:
        """Of those whose different values are counted."""
        found = {n: block.distinct(at) for _, block, names in self._blocks for at, n in enumerate(names)}
        return {name: count for name, count in found.items() if count is not None}

    def categories(self) -> dict[str, CategoryCounts]:
        found = {}
        for measure, part in zip(self.measures, self.schema.parts, strict=True):
            if isinstance(measure, CategoriesMeasure):
                found[part.features[0].name] = measure.categories.copy()
            elif isinstance(measure, ScoresMeasure) and measure.part.counted:
                found[CLASS] = measure.classes.copy()
        return found

    def frequent(self) -> dict[str, tuple[FrequentValues, int]]:
        """With how many values were missing."""
        return {
            part.features[0].name: (measure.frequent.copy(), int(measure.missing[0]))
            for measure, part in zip(self.measures, self.schema.parts, strict=True)
            if isinstance(measure, ValuesMeasure)
        }

    def rates(self) -> dict[str, tuple[int, int]]:
        """(hits, rows)."""
        for measure in self.measures:  # one part of scores at most
            if isinstance(measure, ScoresMeasure) and measure.part.reject_below is not None:
                return {REJECTED: (int(measure.rejected[0]), int(measure.rejected[1]))}
        return {}

    def sample(self) -> SampledRows:
        """Without rows where none are kept. The last column is the prediction, if there is one."""
        names = self.schema.sample.names
        if self.sampled is None:
            return SampledRows((), np.empty((0, 0)), 0)
        columns = (*names, PREDICTION) if self.schema.prediction is not None else names
        return SampledRows(columns, self.sampled.rows, self.sampled.seen)

    def blocks(self) -> list[tuple[Block, tuple[str, ...]]]:
        """The blocks themselves with the names of their features."""
        return [(block, names) for _, block, names in self._blocks]

    def __repr__(self) -> str:
        return f"Summary(features={len(self.schema.features)}, rows={self.rows})"


def _sources(schema: Schema, measures: tuple[Measure, ...]) -> list[tuple[Measure, bool]]:
    return [
        (measure, getattr(part, "role", "output") == "input")
        for measure, part in zip(measures, schema.parts, strict=True)
    ]


def _prediction_datatype(schema: Schema) -> str:
    """BF16 where the prediction's numbers are bit patterns; of other datatypes their name or nothing."""
    predicted = schema.prediction
    for part in schema.parts:
        if predicted is None or getattr(part, "role", "output") != "output":
            continue
        if part.tag == "columns" and part.sources[0].tensor == predicted.tensor:  # type: ignore[union-attr]
            return part.datatype  # type: ignore[union-attr]
        if part.tag == "scores" and part.tensor == predicted.tensor:  # type: ignore[union-attr]
            return part.datatype  # type: ignore[union-attr]
    return ""


def _sampled_columns(schema: Schema) -> list[npt.NDArray[np.int64] | None]:
    """Of each part of columns, those that the sample holds; None: all."""
    wanted = set(schema.sample.names)
    found: list[Any] = []
    for part in schema.parts:
        if part.tag != "columns" or part.role != "input":  # type: ignore[union-attr]
            continue
        places = [at for at, name in enumerate(part.names) if name in wanted]  # type: ignore[union-attr]
        found.append(None if len(places) == len(part.names) else np.array(places, np.int64))  # type: ignore[union-attr]
    return found


def is_numeric(kind: FeatureKind) -> bool:
    """Whether a histogram measures it."""
    return kind in (FeatureKind.NUMERIC, FeatureKind.BOOLEAN, FeatureKind.TEXT, FeatureKind.DENSE)
