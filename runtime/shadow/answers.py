"""One output of one run beside the shadow's: which rows agree, how badly the others do not, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.profile.parts import rows_of
from runtime.shadow.confusion import NO_CLASS, ClassPair, Confusion, class_name
from runtime.shadow.difference_kernels import DIFFERENCES, NOT_FINITE, differ, pair_up, pick
from runtime.shadow.outputs import ComparableOutput, Predicts
from runtime.shadow.shown import kind_text, row_text, scores_text
from runtime.shadow.tally import OutputTally

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

WORDS: dict[int, np.dtype[Any]] = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}
KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "boolean", "O": "text"}

FLIP = 1.0
"""Severity where a label or a text is another, and there is no number to say by how much."""

MOST_DISTINCT = 64
"""Pairs of classes in one run that are counted without a dictionary."""

MOST_REMEMBERED = 4_096
"""Pairs of classes whose names are kept at hand."""


@dataclass(slots=True)
class Answered:
    """One output of one run. `agrees`, `severity`: of its rows; `severity` means something where it does not agree.

    `texts`: of a row, what the primary and the shadow answered. `predicts`: by its class. `comparable`: False where
    shapes or types differ, or the shadow has none.
    """

    output: ComparableOutput
    agrees: Flags
    severity: Floats
    texts: Callable[[int], tuple[str, str]]
    predicts: bool = False
    comparable: bool = True

    @property
    def is_flip(self) -> bool:
        return self.predicts and self.comparable

    @property
    def has_margins(self) -> bool:
        return self.is_flip and self.output.predicts is Predicts.SCORES


class OutputRules:
    """How one output is compared. `instead`: what is shown for its values, which are then not kept."""

    def __init__(self, output: ComparableOutput, absolute: float, relative: float, instead: str = "") -> None:
        self.output = output
        self._absolute, self._relative = absolute, relative
        self._instead = instead
        self._names = (*output.classes, NO_CLASS)  # -1 is the last
        self._pairs: dict[Hashable, ClassPair] = {}

    def compare(self, first: Array, second: Array | None, rows: int, tally: OutputTally) -> Answered:
        """rows: of the run; -1 where it is one request without rows."""
        of_rows = first.ndim > 0 and first.shape[0] == rows
        count = rows if of_rows else 1
        tally.rows += count
        if second is None or self._kind(first) != self._kind(second) or first.shape != second.shape:
            return self._incomparable(first, second, count, tally)
        if not of_rows:
            first, second = first.reshape(1, -1), second.reshape(1, -1)
        a, b = _pair(self._rows(first), self._rows(second))
        answered = self._numbers(a, b, tally) if a.dtype.kind == "f" else self._others(a, b, tally)
        predicts = self.output.predicts
        if predicts is Predicts.SCORES and a.shape[1] == len(self.output.classes) and a.dtype.kind == "f":
            answered = self._scores(a, b, tally)
        elif predicts is Predicts.LABEL and max(self.output.columns) < a.shape[1]:
            answered = self._labels(a, b, tally, answered.agrees)
        if self._instead:
            answered.texts = lambda _: (self._instead, self._instead)
        return answered

    def _kind(self, array: Array) -> str:
        """Numbers of one kind and another width can be compared. BF16 comes as its bits."""
        if self.output.datatype == "BF16" and array.dtype == np.uint16:
            return "float"
        return KINDS.get(array.dtype.kind, array.dtype.kind)

    def _rows(self, array: Array) -> Array:
        return rows_of(array, self.output.datatype if array.dtype.char == "H" else "")

    def _incomparable(self, first: Array, second: Array | None, rows: int, tally: OutputTally) -> Answered:
        tally.incomparable_rows += rows
        kinds = kind_text(first), kind_text(second)
        predicts = self.output.predicts is not Predicts.NOTHING
        nowhere, worst = np.zeros(rows, np.bool_), np.full(rows, np.inf)
        return Answered(self.output, nowhere, worst, lambda _: kinds, predicts, comparable=False)

    def _numbers(self, a: Array, b: Array, tally: OutputTally) -> Answered:
        rows = len(a)
        flags = np.empty((2, rows), np.uint8)
        severity, differences, counts = np.empty(rows), np.empty((a.size, 2)), np.empty(2, np.int64)
        word = WORDS[a.itemsize]
        differ(
            a, b, a.view(word), b.view(word), self._absolute, self._relative,
            flags[0], flags[1], severity, differences, counts,
        )  # fmt: skip
        tally.equal_rows += int(np.count_nonzero(flags[0]))
        tally.close_rows += int(np.count_nonzero(flags[1]))
        tally.not_finite += int(counts[NOT_FINITE])
        if counts[DIFFERENCES]:
            tally.observe(differences[: counts[DIFFERENCES]])
        return Answered(self.output, flags[1].view(np.bool_), severity, _values(a, b))

    def _others(self, a: Array, b: Array, tally: OutputTally) -> Answered:
        """Integers, booleans, texts: equal or not; of integers that are no labels the differences are counted, too."""
        equal = _same_rows(a, b)
        same = int(np.count_nonzero(equal))
        tally.equal_rows += same
        tally.close_rows += same
        severity = np.full(len(a), FLIP)
        if a.dtype.kind in "iu" and self.output.predicts is Predicts.NOTHING and a.size:
            first = a.astype(np.float64)
            difference = np.abs(first - b.astype(np.float64))
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.where(difference == 0, 0.0, difference / np.abs(first))
            tally.observe(np.stack([difference.ravel(), share.ravel()], axis=1))
            severity = share.max(axis=1)
        return Answered(self.output, equal, severity, _values(a, b))

    def _scores(self, a: Array, b: Array, tally: OutputTally) -> Answered:
        rows = len(a)
        first, second, margins = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows)
        pick(b, second, margins)
        pick(a, first, margins)
        self._count_classes(_counted(first, second), tally)
        agrees = first == second
        _count_predicted(tally, agrees)
        classes = self.output.classes

        def texts(row: int) -> tuple[str, str]:
            return scores_text(a[row], classes, int(first[row])), scores_text(b[row], classes, int(second[row]))

        return Answered(self.output, agrees, margins, texts, predicts=True)

    def _labels(self, a: Array, b: Array, tally: OutputTally, same: Flags) -> Answered:
        columns = self.output.columns
        if len(columns) < a.shape[1]:
            a, b = a[:, columns], b[:, columns]
            same = _same_rows(a, b)
        counts: Iterable[tuple[Hashable, Hashable, int]]
        if a.dtype.char in "bhilqBHI" and len(columns) == 1:
            counts = _counted(a[:, 0].astype(np.int64), b[:, 0].astype(np.int64))
        else:
            counts = _counted_texts(_labels_of(a), _labels_of(b))
        self._count_classes(counts, tally)
        _count_predicted(tally, same)

        def texts(row: int) -> tuple[str, str]:
            return class_name(_labels_of(a[row : row + 1])[0]), class_name(_labels_of(b[row : row + 1])[0])

        return Answered(self.output, same, np.full(len(a), FLIP), texts, predicts=True)

    def _count_classes(self, counts: Iterable[tuple[Hashable, Hashable, int]], tally: OutputTally) -> None:
        confusion: Confusion = tally.confusion
        for x, y, rows in counts:
            if self._instead:
                confusion.other += rows
                continue
            pair = self._pairs.get((x, y))
            if pair is None:
                pair = self._named(x, y)
            confusion.add(pair, rows)

    def _named(self, x: Any, y: Any) -> ClassPair:
        if self.output.predicts is Predicts.SCORES:
            pair = ClassPair(x == y, class_name(self._names[x]), class_name(self._names[y]))
        else:
            pair = ClassPair(x == y, class_name(x), class_name(y))
        if len(self._pairs) >= MOST_REMEMBERED:
            self._pairs.clear()
        self._pairs[x, y] = pair
        return pair


def _values(a: Array, b: Array) -> Callable[[int], tuple[str, str]]:
    return lambda row: (row_text(a[row]), row_text(b[row]))


def _pair(a: Array, b: Array) -> tuple[Array, Array]:
    """Of one dtype, floats as float32 or float64. Integers that no integer type holds both of become float64."""
    if a.dtype != b.dtype:
        wide = np.result_type(a, b)
        a, b = a.astype(wide), b.astype(wide)
    if a.dtype.char == "e":
        a, b = a.astype(np.float32), b.astype(np.float32)
    return a, b


def _same_rows(a: Array, b: Array) -> Flags:
    same: Flags = np.asarray(a == b, np.bool_)
    return same[:, 0] if same.shape[1] == 1 else np.asarray(same.all(axis=1))


def _counted(first: Classes, second: Classes) -> Iterable[tuple[Hashable, Hashable, int]]:
    """Pairs of classes, int64[rows] each, and how many rows have them."""
    pairs = np.empty((MOST_DISTINCT, 3), np.int64)
    distinct = pair_up(first, second, pairs)
    if distinct < 0:
        return _counted_texts(first.tolist(), second.tolist())
    return [(x, y, rows) for x, y, rows in pairs[:distinct].tolist()]


def _counted_texts(first: list[Any], second: list[Any]) -> Iterable[tuple[Hashable, Hashable, int]]:
    return [(x, y, rows) for (x, y), rows in Counter(zip(first, second, strict=True)).items()]


def _labels_of(labels: Array) -> list[Any]:
    """labels: [rows, columns]. Of one column its values, of more the row as a tuple."""
    if labels.shape[1] == 1:
        return list(labels[:, 0].tolist())
    return list(map(tuple, labels.tolist()))


def _count_predicted(tally: OutputTally, agrees: Flags) -> None:
    tally.predicted_rows += len(agrees)
    tally.predicted_equal_rows += int(np.count_nonzero(agrees))
