"""One run's answers beside the shadow's: what agrees, and what differs by how much. docs/shadows.md has the rules.

An output whose axis 0 is not the run's rows belongs to the run as a whole: it is one row, which all its requests have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.profile.parts import rows_of
from runtime.shadow.confusion import NO_CLASS, ClassPair, Confusion, class_name
from runtime.shadow.difference_kernels import DIFFERENCES, NOT_FINITE, differ, pick
from runtime.shadow.outputs import ComparableOutput, ComparableOutputs, Predicts
from runtime.shadow.pair import Copy, PairSettings
from runtime.shadow.shown import REDACTED, Redaction, inputs_text, kind_text, row_text, scores_text
from runtime.shadow.tally import OutputTally
from runtime.shadow.worst import Disagreement, Worst

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

WORDS: dict[int, np.dtype[Any]] = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}
KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "boolean", "O": "text"}

FLIP = 1.0
"""Severity where a label or a text is another, and there is no number to say by how much."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Of one run. `agreed`: requests of which all rows agree."""

    rows: int
    agreed_rows: int
    agreed: int


@dataclass(slots=True)
class _Output:
    """One output of one run. `agrees`, `severity`: of its rows; `severity` only means something where it does not."""

    output: ComparableOutput
    agrees: Flags
    severity: Floats
    predicts: bool
    texts: Callable[[int], tuple[str, str]]
    comparable: bool = True

    @property
    def is_flip(self) -> bool:
        return self.predicts and self.comparable

    @property
    def has_margins(self) -> bool:
        return self.is_flip and self.output.predicts is Predicts.SCORES


class Judge:
    """`rows` of a run are compared with the shadow's by its rules; counts go to tallies."""

    def __init__(self, outputs: ComparableOutputs, settings: PairSettings) -> None:
        self._outputs = outputs
        self._absolute, self._relative = settings.absolute, settings.relative
        self._redaction = Redaction(settings.redact, outputs)
        self._inputs = settings.inputs

    def judge(
        self, copy: Copy, answers: Mapping[str, Array], tally: Callable[[str], OutputTally], worst: Worst
    ) -> Compared:
        rows = sum(copy.rows) if copy.batched else 1
        found = [
            self._compare(known, array, answers.get(name), rows if copy.batched else -1, tally(name))
            for name, array in copy.outputs.items()
            if name not in self._outputs.ignored
            for known in [self._outputs.outputs.get(name) or ComparableOutput(name, "")]
        ]
        deciding = [each for each in found if each.predicts] or found
        deciding.sort(key=lambda each: each.output.predicts is not Predicts.SCORES)  # they show more than a label does
        agrees = np.ones(rows, np.bool_)
        for each in deciding:
            agrees &= each.agrees  # one row of the run as a whole is every row's
        agreed_rows = int(np.count_nonzero(agrees))
        if agreed_rows == rows:
            return Compared(rows, rows, len(copy.rows))
        self._keep_worst(copy, deciding, agrees, worst)
        return Compared(rows, agreed_rows, _whole_requests(copy, agrees))

    def _compare(
        self, output: ComparableOutput, first: Array, second: Array | None, rows: int, tally: OutputTally
    ) -> _Output:
        """rows: of the run; -1 where it is one request without rows."""
        of_rows = first.ndim > 0 and first.shape[0] == rows
        count = rows if of_rows else 1
        tally.rows += count
        predicts = output.predicts is not Predicts.NOTHING
        if second is None or _kind(first, output) != _kind(second, output) or first.shape != second.shape:
            tally.incomparable_rows += count
            kinds = kind_text(first), kind_text(second)
            nowhere = np.zeros(count, np.bool_)
            return _Output(output, nowhere, np.full(count, np.inf), predicts, lambda _: kinds, comparable=False)
        if not of_rows:
            first, second = first.reshape(1, -1), second.reshape(1, -1)
        a, b = _pair(_rows(first, output.datatype), _rows(second, output.datatype))
        compared = self._numbers(output, a, b, tally) if a.dtype.kind == "f" else _others(output, a, b, tally)
        hidden = output.name in self._redaction.outputs
        confusion = Confusion() if hidden else tally.confusion
        if output.predicts is Predicts.SCORES and a.shape[1] == len(output.classes) and a.dtype.kind == "f":
            compared = _scores(output, a, b, tally, confusion)
        elif output.predicts is Predicts.LABEL and max(output.columns) < a.shape[1]:
            compared = _labels(output, a, b, tally, confusion)
        if hidden:
            tally.confusion.other += confusion.rows
            compared.texts = _redacted
        return compared

    def _numbers(self, output: ComparableOutput, a: Array, b: Array, tally: OutputTally) -> _Output:
        rows = len(a)
        flags = np.empty((2, rows), np.uint8)
        severity, differences, counts = np.empty(rows), np.empty((a.size, 2)), np.empty(2, np.int64)
        word = WORDS[a.itemsize]
        differ(
            a, b, a.view(word), b.view(word), self._absolute, self._relative,
            flags[0], flags[1], severity, differences, counts,
        )  # fmt: skip
        _count(tally, flags[0], flags[1])
        tally.not_finite += int(counts[NOT_FINITE])
        if counts[DIFFERENCES]:
            tally.differ().observe(differences[: counts[DIFFERENCES]])
        return _Output(
            output,
            flags[1].view(np.bool_),
            severity,
            predicts=False,
            texts=lambda row: (row_text(a[row]), row_text(b[row])),
        )

    def _keep_worst(self, copy: Copy, deciding: list[_Output], agrees: Flags, worst: Worst) -> None:
        """Of each row the first output that disagrees is shown."""
        rows = len(agrees)
        severity = np.full(rows, -1.0)
        which = np.zeros(rows, np.int64)
        margins = next((each.severity for each in deciding if each.has_margins), None)
        for at, each in reversed(list(enumerate(deciding))):
            disagrees = ~each.agrees & ~agrees
            flips = each.severity if margins is None or not each.is_flip else margins
            severity[disagrees] = flips[disagrees] if len(flips) == rows else flips[0]
            which[disagrees] = at
        candidates = np.flatnonzero(~agrees & (severity >= worst.bar(copy.unix_ns)))
        if not len(candidates):
            return
        ranked = sorted(
            (-float(severity[row]), copy.request_ids[request], within, row)
            for row, request, within in _places(copy, candidates)
        )
        found = []
        for minus, request_id, within, row in ranked[: worst.most]:
            each = deciding[which[row]]
            first, second = each.texts(row if len(each.agrees) == rows else 0)
            inputs = self._inputs_of(copy, row) if self._inputs else ""
            found.append(
                Disagreement(
                    copy.unix_ns,
                    request_id[:MAX_ID_CHARACTERS],
                    within,
                    each.output.name,
                    -minus,
                    first,
                    second,
                    inputs,
                )
            )
        worst.add(found)

    def _inputs_of(self, copy: Copy, row: int) -> str:
        return inputs_text(copy.inputs, row, self._outputs, self._redaction, batched=copy.batched)


MAX_ID_CHARACTERS = 128


def _redacted(_row: int) -> tuple[str, str]:
    return REDACTED, REDACTED


def _kind(array: Array, output: ComparableOutput) -> str:
    """Numbers of one kind and another width can be compared. BF16 comes as its bits."""
    if output.datatype == "BF16" and array.dtype == np.uint16:
        return "float"
    return KINDS.get(array.dtype.kind, array.dtype.kind)


def _rows(array: Array, datatype: str) -> Array:
    return rows_of(array, datatype if array.dtype == np.uint16 else "")


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


def _count(tally: OutputTally, equal: Array, close: Array) -> None:
    tally.equal_rows += int(np.count_nonzero(equal))
    tally.close_rows += int(np.count_nonzero(close))


def _others(output: ComparableOutput, a: Array, b: Array, tally: OutputTally) -> _Output:
    """Integers, booleans, texts: equal or not; of integers that are no labels the differences are counted, too."""
    equal = _same_rows(a, b)
    _count(tally, equal, equal)
    severity = np.full(len(a), FLIP)
    if a.dtype.kind in "iu" and output.predicts is Predicts.NOTHING and a.size:
        first = a.astype(np.float64)
        difference = np.abs(first - b.astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(difference == 0, 0.0, difference / np.abs(first))
        tally.differ().observe(np.stack([difference.ravel(), share.ravel()], axis=1))
        severity = share.max(axis=1)
    return _Output(output, equal, severity, predicts=False, texts=lambda row: (row_text(a[row]), row_text(b[row])))


def _scores(output: ComparableOutput, a: Array, b: Array, tally: OutputTally, confusion: Confusion) -> _Output:
    rows = len(a)
    first, second, margins = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows)
    pick(b, second, margins)
    pick(a, first, margins)
    names = (*output.classes, NO_CLASS)  # -1 is the last
    pairs = Counter(zip(first.tolist(), second.tolist(), strict=True))
    for (x, y), count in pairs.items():
        confusion.add(ClassPair(x == y, class_name(names[x]), class_name(names[y])), count)
    agrees = first == second
    _count_predicted(tally, agrees)

    def texts(row: int) -> tuple[str, str]:
        return (
            scores_text(a[row], output.classes, int(first[row])), scores_text(b[row], output.classes, int(second[row])),
        )  # fmt: skip

    return _Output(output, agrees, margins, predicts=True, texts=texts)


def _labels(output: ComparableOutput, a: Array, b: Array, tally: OutputTally, confusion: Confusion) -> _Output:
    if len(output.columns) < a.shape[1]:
        a, b = a[:, output.columns], b[:, output.columns]
    if len(output.columns) == 1:
        first, second = a[:, 0].tolist(), b[:, 0].tolist()
    else:
        first, second = list(map(tuple, a.tolist())), list(map(tuple, b.tolist()))
    for (x, y), count in Counter(zip(first, second, strict=True)).items():
        confusion.add(ClassPair(x == y, class_name(x), class_name(y)), count)
    agrees = _same_rows(a, b)
    _count_predicted(tally, agrees)
    texts = lambda row: (class_name(first[row]), class_name(second[row]))  # noqa: E731
    return _Output(output, agrees, np.full(len(a), FLIP), predicts=True, texts=texts)


def _count_predicted(tally: OutputTally, agrees: Flags) -> None:
    tally.predicted_rows += len(agrees)
    tally.predicted_equal_rows += int(np.count_nonzero(agrees))


def _whole_requests(copy: Copy, agrees: Flags) -> int:
    if not copy.batched:
        return int(bool(agrees[0])) * len(copy.rows)
    ends = np.cumsum(copy.rows)
    wrong = np.concatenate([[0], np.cumsum(~agrees)])
    return int(np.count_nonzero(wrong[ends] == wrong[ends - np.asarray(copy.rows)]))


def _places(copy: Copy, rows: Array) -> Iterator[tuple[int, int, int]]:
    """(row of the run, request, row within the request)."""
    if not copy.batched:
        yield 0, 0, 0
        return
    ends = np.cumsum(copy.rows)
    requests = np.searchsorted(ends, rows, side="right")
    for row, request in zip(rows.tolist(), requests.tolist(), strict=True):
        yield row, request, row - int(ends[request]) + copy.rows[request]
