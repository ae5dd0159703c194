"""Builds a profile: runs the model on all rows of the data, and measures what goes in and what comes out.

Memory does not grow with the data: CHUNK_ROWS rows are held at a time, and less of wide ones. Rows are measured in the
same portions whatever the files' own, so the same rows give the same bytes from Parquet, CSV and NumPy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.errors import RunError
from runtime.onnx.session import Session, plain_words
from runtime.onnx.signature import batch_axis
from runtime.profile.build_columns import Assignment
from runtime.profile.build_data import Array, Column, Data, DataProblem, Rows, Wanted
from runtime.profile.reference import MAX_FACT_CHARACTERS, MAX_LABELS
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.types import Signature

CHUNK_ROWS = 8_192
CHUNK_BYTES = 32 * 1024 * 1024
LEAST_PORTION = 256
"""Moments are added up in portions of so many rows: chunks are multiples of it, or portions of it."""

Tensors = dict[str, Array]


@dataclass
class Labels:
    """How often each value of the target came, while they are few."""

    counts: Counter[str] = field(default_factory=Counter)
    too_many: bool = False

    def add(self, column: Column) -> None:
        if self.too_many:
            return
        values, nulls = column.values.ravel(), column.nulls
        if nulls is not None and nulls.any():
            self.counts[""] += int(nulls.sum())
            values = values[~nulls]
        if values.dtype.kind == "O":
            found = Counter(values.tolist())
        else:
            different, counts = np.unique(values, return_counts=True)
            found = Counter(dict(zip(different.tolist(), counts.tolist(), strict=True)))
        for value, count in found.items():
            self.counts[_label(value)] += count
        if len(self.counts) > MAX_LABELS:
            self.too_many = True
            self.counts.clear()


def _label(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif isinstance(value, float) and value.is_integer():
        value = int(value)  # classes that a table with missing values has made floats of
    return str(value)[:MAX_FACT_CHARACTERS]


@dataclass(frozen=True)
class Built:
    """`left_out`: rows at the end that did not fill a run of a model whose runs are of a fixed number of rows."""

    summary: Summary
    labels: Labels
    left_out: int


@dataclass(frozen=True)
class Building:
    """What is built of. `run_rows`: in one run; 0: as many as the model's shapes fix, else one.

    `seed`: of the sample of rows. on_rows: called with the number of rows measured so far.
    """

    session: Session
    schema: Schema
    inputs: Sequence[Assignment]
    target: str
    run_rows: int
    seed: int
    limit_rows: int | None = None
    on_rows: Callable[[int], None] = lambda _: None

    def build(self, data: Data) -> Built:
        """Raises DataProblem for rows that do not fit, or that the model fails on."""
        summary = Summary.create(self.schema, seed=self.seed | 1)
        labels = Labels()
        run_rows, fixed = self._run_rows()
        done = 0
        for chunk, count in self._chunks(data, labels, run_rows if fixed else 1):
            whole = count - count % run_rows if fixed else count
            if whole:
                self._measure(summary, chunk, whole, run_rows, done)
            done += whole
            self.on_rows(done)
            if whole < count:
                return self._built(summary, labels, count - whole)
        return self._built(summary, labels, 0)

    @staticmethod
    def _built(summary: Summary, labels: Labels, left_out: int) -> Built:
        if not summary.rows:
            raise DataProblem(f"expected rows, got none{f' that fill a run: {left_out}' if left_out else ''}")
        return Built(summary, labels, left_out)

    def _run_rows(self) -> tuple[int, bool]:
        """How many rows make a run, and whether it can be no other number."""
        signature = self.session.signature
        if not signature.inputs:
            raise DataProblem("the model has no inputs, so no data can be run through it")
        fixed = {spec.shape[0] for spec in signature.inputs if spec.shape and spec.shape[0] >= 0 and not spec.any_rank}
        if any(not spec.shape and not spec.any_rank for spec in signature.inputs):
            fixed.add(1)  # a scalar: one value of its column a run
        if len(fixed) > 1 or 0 in fixed:
            raise DataProblem(f"expected inputs with one number of rows, got {', '.join(map(str, sorted(fixed)))}")
        if fixed:
            return fixed.pop(), True
        return max(self.run_rows, 1), False

    def _chunks(self, data: Data, labels: Labels, multiple: int) -> Iterator[tuple[Tensors, int]]:
        """Tensors of as many rows each but the last, and how many."""
        wanted = {name: each.wanted for each in self.inputs for name in each.columns}
        if self.target:
            wanted.setdefault(self.target, Wanted.TEXT)
        size = chunk_rows(self.session.signature, multiple)
        pending: list[Tensors] = []
        waiting, read = 0, 0
        for rows in data.batches(wanted, size):
            count = len(next(iter(rows.values())).values)
            if self.limit_rows is not None and read + count > self.limit_rows:
                count = self.limit_rows - read
                rows = {name: _first(column, count) for name, column in rows.items()}  # noqa: PLW2901
            if not count:
                continue
            pending.append(self._tensors(rows, read))
            if self.target:
                labels.add(rows[self.target])
            waiting, read = waiting + count, read + count
            while waiting >= size:
                joined = _joined_rows(pending)
                yield {name: tensor[:size] for name, tensor in joined.items()}, size
                waiting -= size
                pending = [{name: tensor[size:] for name, tensor in joined.items()}] if waiting else []
            if read == self.limit_rows:
                break
        if waiting:
            yield _joined_rows(pending), waiting

    def _tensors(self, rows: Rows, first_row: int) -> Tensors:
        return {each.spec.name: each.tensor(rows, first_row) for each in self.inputs}

    def _measure(self, summary: Summary, inputs: Tensors, count: int, run_rows: int, first_row: int) -> None:
        """Runs the model on the first `count` rows; their answers are measured together where each row has one."""
        answers: list[tuple[Tensors, Tensors, int]] = []
        for start in range(0, count, run_rows):
            end = min(start + run_rows, count)
            feeds = {each.spec.name: _feed(each, inputs[each.spec.name][start:end]) for each in self.inputs}
            answers.append((feeds, self._run(feeds, first_row + start, first_row + end), end - start))
        if all(len(answer) == rows for _, outputs, rows in answers for answer in map(np.atleast_1d, outputs.values())):
            try:
                outputs = _joined([outputs for _, outputs, _ in answers])
            except ValueError:  # other axes differ from run to run
                pass
            else:
                summary.observe({name: tensor[:count] for name, tensor in inputs.items()}, outputs, count)
                return
        for feeds, outputs, rows in answers:
            summary.observe(feeds, outputs, rows)

    def _run(self, feeds: Tensors, first_row: int, end_row: int) -> Tensors:
        try:
            answers = self.session.run(feeds)
        except RunError as error:
            rows = f"rows {first_row + 1} to {end_row}" if end_row - first_row > 1 else f"row {end_row}"
            raise DataProblem(f"the model fails on {rows} of the data: {plain_words(error.detail)}") from None
        return dict(zip((spec.name for spec in self.session.signature.outputs), answers, strict=True))


def chunk_rows(signature: Signature, multiple: int) -> int:
    """Rows held at a time: CHUNK_ROWS, fewer of wide tensors; a multiple of `multiple`."""
    widths = [
        math.prod(max(size, 1) for size in spec.shape[1:]) * 8 for spec in (*signature.inputs, *signature.outputs)
    ]
    rows = min(CHUNK_ROWS, max(CHUNK_BYTES // max(sum(widths), 1), 1))
    rows = rows // LEAST_PORTION * LEAST_PORTION or 1 << (rows.bit_length() - 1)
    return -(-rows // multiple) * multiple


def rows_in_a_run(signature: Signature, max_rows: int, asked: int | None) -> int:
    """As `Building.run_rows` has it: what was asked for, else what the gateway lets requests share, else one."""
    if asked is not None:
        return asked
    return max_rows if batch_axis(signature) else 0


def missing_numbers(schema: Schema, settings: StatisticsSettings) -> dict[tuple[str, int], float]:
    """By input and column: the number that stands for a missing value."""
    found = {}
    for feature in schema.features:
        given = settings.features.get(feature.name)
        if feature.role == "input" and given is not None and given.missing is not None:
            found[feature.tensor, max(feature.column, 0)] = given.missing
    return found


def _feed(each: Assignment, rows: Array) -> Array:
    if not each.spec.shape and not each.spec.any_rank:
        return rows.reshape(())
    return rows


def _first(column: Column, count: int) -> Column:
    return Column(column.values[:count], column.nulls[:count] if column.nulls is not None else None)


def _joined(parts: Sequence[Tensors]) -> Tensors:
    """ValueError where axes other than the first differ."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _joined_rows(parts: Sequence[Tensors]) -> Tensors:
    try:
        return _joined(parts)
    except ValueError:
        raise DataProblem("expected lists of one length in all rows of a column") from None
