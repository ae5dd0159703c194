"""Each part of a schema at work: takes its columns from tensors into the sketches that lie in its memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.profile.schema import LINE, PROJECTIONS, Categories, Columns, Dense, Part, Scores, Source, Text, Values
from runtime.profile.tensor_kernels import FIRST_PROJECTION, judge, sum_up
from runtime.sketch.block import Block
from runtime.sketch.categories import CategoryCounts
from runtime.sketch.codec import Sketch
from runtime.sketch.errors import Malformed
from runtime.sketch.frequent import FrequentValues
from runtime.sketch.keys import KeyKind, Keys
from runtime.sketch.layout import BLOCK_MAGIC, BlockShape

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

PROJECTED = 64
"""Numbers of a row that a projection adds up."""

EXACT = float(1 << 53)
"""Whole numbers beyond it are not told apart as floats."""


class Measure(Protocol):
    """`prediction`: float64[rows], or None."""

    def observe(self, tensors: Tensors, prediction: Array | None) -> None: ...

    def sketches(self) -> tuple[Sketch, ...]:
        """Views of the state, in an order that never changes."""

    def counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        """Numbers beside the sketches."""

    def restore(self, sketches: list[Sketch], counts: list[npt.NDArray[np.int64]]) -> None:
        """From another's, with the same meaning. Raises Malformed for others."""


def rows_of(tensor: Array, datatype: str) -> Array:
    """[rows, width], C-contiguous; halves and BF16 as float32."""
    if tensor.ndim != 2:
        tensor = tensor.reshape(tensor.shape[0], -1) if tensor.ndim and tensor.shape[0] else tensor.reshape(-1, 1)
    if datatype == "BF16":
        return (tensor.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return tensor if tensor.flags.c_contiguous else np.ascontiguousarray(tensor)


def _block(shape: BlockShape, memory: memoryview) -> Block:
    """The block in `memory`, or a new one where all is zero. To create one anew would forget how many rows it has."""
    if memory[: len(BLOCK_MAGIC)] != BLOCK_MAGIC:
        return Block.create(shape, memory)
    block = Block.attach(memory)
    if block.shape != shape:
        raise Malformed(f"expected a block of {shape}, got {block.shape}")
    return block


def _of_rows(prediction: Array | None, rows: int) -> Array | None:
    """None where the tensor's rows are not those of the outputs, as in a model without an axis of rows."""
    return prediction if prediction is not None and len(prediction) == rows else None


class _Blocked:
    """A measure that is one block."""

    block: Block

    def sketches(self) -> tuple[Sketch, ...]:
        return (self.block,)

    def counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        return ()

    def restore(self, sketches: list[Sketch], counts: list[npt.NDArray[np.int64]]) -> None:
        _restore_block(self.block, sketches, counts, counts_wanted=0)


def _restore_block(
    block: Block, sketches: list[Sketch], counts: list[npt.NDArray[np.int64]], counts_wanted: int
) -> None:
    (sketch,) = sketches if len(sketches) == 1 else (None,)
    if not isinstance(sketch, Block) or sketch.shape != block.shape or len(counts) != counts_wanted:
        raise Malformed(f"expected a block of {block.shape}, got {sketch!r}")
    if sketch.settings.tobytes() != block.settings.tobytes():
        raise Malformed("the block has other ranges than its schema")
    block.memory[:] = sketch.memory


class ColumnsMeasure(_Blocked):
    def __init__(self, part: Columns, memory: memoryview) -> None:
        self.block = _block(part.shape, memory)
        for at, name in enumerate(part.names):
            low, high, missing = part.limits.get(name, (None, None, None))
            if low is not None or high is not None:
                self.block.set_range(at, -math.inf if low is None else low, math.inf if high is None else high)
            if missing is not None:
                self.block.set_sentinel(at, missing)
        self._sources = part.sources
        self._datatype = part.datatype
        single = part.sources[0]
        self._whole = single.tensor if len(part.sources) == 1 and single.columns is None else ""
        self.values: Array | None = None
        """What was seen last, [rows, features], for the sample of rows."""

    def observe(self, tensors: Tensors, prediction: Array | None) -> None:
        self.values = None
        if self._whole:
            tensor = tensors.get(self._whole)
            if tensor is None:
                return
            values = rows_of(tensor, self._datatype)
        else:
            taken = [self._take(source, tensors) for source in self._sources]
            if any(each is None or len(each) != len(taken[0]) for each in taken):  # type: ignore[arg-type]
                return
            values = taken[0] if len(taken) == 1 else np.concatenate(taken, axis=1)  # type: ignore[arg-type,assignment]
        self.block.observe(values, _of_rows(prediction, len(values)))
        self.values = values

    def _take(self, source: Source, tensors: Tensors) -> Array | None:
        tensor = tensors.get(source.tensor)
        if tensor is None:
            return None
        values = rows_of(tensor, self._datatype)
        if source.columns is None or len(source.columns) == values.shape[1] == 1:
            return values
        return np.take(values, source.columns, axis=1)


class DenseMeasure(_Blocked):
    def __init__(self, part: Dense, memory: memoryview) -> None:
        self.block = _block(part.shape, memory)
        self._tensor, self._datatype = part.tensor, part.datatype
        count = PROJECTIONS if part.width else 0
        # Of the same model in every process the same; of another input, others.
        seed = int.from_bytes(hashlib.sha256(f"{part.tensor}/{part.width}".encode()).digest()[:8], "little")
        random = np.random.Generator(np.random.PCG64(seed))
        terms = min(PROJECTED, part.width)
        self._width = part.width
        self._places = np.ascontiguousarray(random.integers(0, max(part.width, 1), (count, terms)), np.int64)
        self._signs = np.ascontiguousarray(random.choice([-1.0, 1.0], (count, terms)) / math.sqrt(max(terms, 1)))

    def observe(self, tensors: Tensors, prediction: Array | None) -> None:
        tensor = tensors.get(self._tensor)
        if tensor is None:
            return
        values = rows_of(tensor, self._datatype)
        if values.shape[1] == 0 or (self._width and values.shape[1] != self._width):
            return
        if values.dtype.char == "?":
            values = values.view(np.uint8)
        elif values.dtype.char == "e":
            values = values.astype(np.float32)
        sums = np.empty((len(values), FIRST_PROJECTION + len(self._places)))
        sum_up(values, self._places, self._signs, sums)
        self.block.observe(sums, _of_rows(prediction, len(sums)))


class TextMeasure(_Blocked):
    def __init__(self, part: Text, memory: memoryview) -> None:
        self.block = _block(part.shape, memory)
        self._tensor, self._column = part.tensor, part.column

    def observe(self, tensors: Tensors, prediction: Array | None) -> None:
        texts = _column(tensors, self._tensor, self._column)
        if texts is None:
            return
        values = texts.tolist()
        lengths = np.fromiter((0 if text is None else len(text) for text in values), np.int64, len(values))
        missing = np.fromiter((text is None for text in values), np.bool_, len(values))
        self.block.observe(lengths.reshape(-1, 1), _of_rows(prediction, len(values)), missing.reshape(-1, 1))


def _column(tensors: Tensors, name: str, column: int) -> Array | None:
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if column < 0 or tensor.ndim < 2:
        return tensor.reshape(-1)
    column_of: Array = rows_of(tensor, "")[:, column]
    return column_of


def _keys(values: Array, missing: float | None, *, texts: bool) -> tuple[Keys, int]:
    """Keys, and how many values there are none of: no whole number, NaN, or the number for a missing one."""
    if texts:
        keys = Keys.of_texts(values)
        return keys, keys.missing
    count = len(values)
    if values.dtype.kind == "f":
        # 64 bits hold what int64 does; a float beyond 2^53 names no category.
        wide = values.astype(np.float64)
        values = wide[(np.abs(wide) < EXACT) & (np.floor(wide) == wide)].astype(np.int64)
    if missing is not None:
        values = values[values != missing]
    return Keys.of_integers(values), count - len(values)


class ValuesMeasure:
    def __init__(self, part: Values, memory: memoryview) -> None:
        self._part = part
        self.missing: npt.NDArray[np.int64] = np.frombuffer(memory, "<i8", 1)
        kind = KeyKind.TEXT if part.texts else KeyKind.INTEGER
        self.frequent = FrequentValues(kind, part.lg_slots, memory[LINE:])

    def observe(self, tensors: Tensors, _prediction: Array | None) -> None:
        values = _column(tensors, self._part.tensor, self._part.column)
        if values is None:
            return
        keys, missing = _keys(values, self._part.missing, texts=self._part.texts)
        self.frequent.observe(keys)
        if missing:
            self.missing[0] += missing

    def sketches(self) -> tuple[Sketch, ...]:
        return (self.frequent,)

    def counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        return (self.missing,)

    def restore(self, sketches: list[Sketch], counts: list[npt.NDArray[np.int64]]) -> None:
        (sketch,) = sketches if len(sketches) == 1 else (None,)
        if not isinstance(sketch, FrequentValues) or len(counts) != 1 or counts[0].shape != (1,):
            raise Malformed(f"expected frequent values, got {sketch!r}")
        if (sketch.kind, sketch.lg_slots) != (self.frequent.kind, self.frequent.lg_slots):
            raise Malformed("the frequent values are of another kind or size than in the schema")
        for name in ("head", "hashes", "counts", "texts"):
            getattr(self.frequent, name)[:] = getattr(sketch, name)
        self.missing[:] = counts[0]


class CategoriesMeasure:
    def __init__(self, part: Categories, memory: memoryview) -> None:
        self._part = part
        self._texts = isinstance(part.declared[0], str)
        self.categories = CategoryCounts(part.declared, memory)

    def observe(self, tensors: Tensors, _prediction: Array | None) -> None:
        values = _column(tensors, self._part.tensor, self._part.column)
        if values is None:
            return
        keys, missing = _keys(values, self._part.missing, texts=self._texts)
        self.categories.observe(keys)
        if missing and not self._texts:  # of texts they are counted with the keys
            self.categories.counts[-1] += missing

    def sketches(self) -> tuple[Sketch, ...]:
        return (self.categories,)

    def counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        return ()

    def restore(self, sketches: list[Sketch], counts: list[npt.NDArray[np.int64]]) -> None:
        (sketch,) = sketches if len(sketches) == 1 else (None,)
        if not isinstance(sketch, CategoryCounts) or sketch.declared != self.categories.declared or counts:
            raise Malformed(f"expected counts of {len(self.categories.declared)} categories, got {sketch!r}")
        self.categories.counts[:] = sketch.counts


class ScoresMeasure:
    def __init__(self, part: Scores, memory: memoryview) -> None:
        self.part = part
        self.block = _block(part.shape, memory)
        self.classes = CategoryCounts(part.classes, memory[part.classes_at :])
        self.rejected: npt.NDArray[np.int64] = np.frombuffer(memory, "<i8", 2, part.rejected_at)
        self._judged = len(part.names)
        self._threshold = -math.inf if part.reject_below is None else part.reject_below

    def observe(self, tensors: Tensors, _prediction: Array | None) -> None:
        scores = tensors.get(self.part.tensor)
        if scores is None:
            return
        scores = rows_of(scores, self.part.datatype)
        if scores.shape[1] != len(self.part.classes):
            return
        if scores.dtype.char == "e":
            scores = scores.astype(np.float32)
        judged = np.empty((len(scores), self._judged))
        judge(scores, self._threshold, judged, self.classes.counts, self.rejected)
        self.block.observe(judged)

    def sketches(self) -> tuple[Sketch, ...]:
        return (self.block, self.classes)

    def counts(self) -> tuple[npt.NDArray[np.int64], ...]:
        return (self.rejected,)

    def restore(self, sketches: list[Sketch], counts: list[npt.NDArray[np.int64]]) -> None:
        if len(sketches) != 2 or not isinstance(sketches[1], CategoryCounts) or len(counts) != 1:
            raise Malformed("expected a block, counts of classes and of the rejected")
        if sketches[1].declared != self.classes.declared or counts[0].shape != (2,):
            raise Malformed("expected the classes of the schema")
        _restore_block(self.block, sketches[:1], [], counts_wanted=0)
        self.classes.counts[:] = sketches[1].counts
        self.rejected[:] = counts[0]


_MEASURES: dict[type[Any], type[Any]] = {
    Columns: ColumnsMeasure,
    Dense: DenseMeasure,
    Text: TextMeasure,
    Values: ValuesMeasure,
    Categories: CategoriesMeasure,
    Scores: ScoresMeasure,
}


def measure_of(part: Part, memory: memoryview) -> Measure:
    """On memory of part.size_bytes: all zeros, or a measure's of the same part."""
    measure: Measure = _MEASURES[type(part)](part, memory)
    return measure
