"""Rows that panes have kept: one uniform sample of them, as tensors to ask a version with again."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.profile.kept_rows import KeptRows, NotReplayable, tensors_of, unkept
from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Schema
from runtime.profile.summary import Summary
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.types import ANY, Signature, TensorSpec

X = TensorSpec("x", "FP32", (ANY, 3))
AGE = TensorSpec("age", "INT64", (ANY,))
IS_NEW = TensorSpec("is_new", "BOOL", (ANY, 1))
Y = TensorSpec("y", "FP32", (ANY, 1))


def schema_for(*inputs: TensorSpec, **settings: object) -> Schema:
    return schema_of(Signature(inputs, (Y,)), StatisticsSettings.model_validate(settings))


def pane(schema: Schema, inputs: dict[str, np.ndarray], seed: int | None = None) -> Summary:
    summary = Summary.create(schema, seed=seed)
    rows = len(next(iter(inputs.values())))
    summary.observe(inputs, {"y": np.zeros((rows, 1), np.float32)}, rows)
    return summary


def test_tensors_are_as_they_were_of_each_datatype_and_shape() -> None:
    schema = schema_for(AGE, X, IS_NEW)
    inputs = {
        "x": np.arange(30, dtype=np.float32).reshape(10, 3) / 7,
        "age": np.arange(10, dtype=np.int64) * 1_000,
        "is_new": (np.arange(10) % 3 == 0).reshape(10, 1),
    }
    kept = KeptRows.of([pane(schema, inputs)], 100)
    tensors = tensors_of(schema, (AGE, X, IS_NEW), kept.values)
    assert {name: (array.dtype, array.shape) for name, array in tensors.items()} == {
        name: (array.dtype, array.shape) for name, array in inputs.items()
    }
    order = np.argsort(tensors["age"])
    for name, array in inputs.items():
        assert (tensors[name][order] == array).all()
        assert tensors[name].flags.c_contiguous


def test_half_and_double_precision_come_back_as_far_as_float32_holds_them() -> None:
    half, double = TensorSpec("h", "FP16", (ANY, 2)), TensorSpec("d", "FP64", (ANY, 2))
    schema = schema_for(half, double)
    values = np.array([[0.1, -2.5], [np.nan, 3.0]])
    inputs = {"h": values.astype(np.float16), "d": values}
    tensors = tensors_of(schema, (half, double), KeptRows.of([pane(schema, inputs)], 9).values)
    order = np.argsort(tensors["d"][:, 1])
    np.testing.assert_array_equal(tensors["h"][order], inputs["h"])
    np.testing.assert_array_equal(tensors["d"][order], values.astype(np.float32).astype(np.float64))


def test_bf16_comes_back_as_its_bits() -> None:
    spec = TensorSpec("b", "BF16", (ANY, 2))
    schema = schema_for(spec)
    bits = np.array([[0x3F80, 0xC020], [0x0001, 0x7F7F]], np.uint16)
    tensors = tensors_of(schema, (spec,), KeptRows.of([pane(schema, {"b": bits})], 9).values)
    assert sorted(tensors["b"].tolist()) == sorted(bits.tolist())


@pytest.mark.parametrize(
    ("spec", "settings", "why"),
    [
        (TensorSpec("t", "BYTES", (ANY, 1)), {}, "no rows are kept"),
        (X, {"sample_rows": 0}, "sample_rows is 0"),
        (X, {"features": {"x[1]": {"kind": "ignored"}}}, "1 of its 3 columns are not kept"),
        (X, {"features": {"x[1]": {"kind": "categorical"}}}, r"of x\[1\] the values are not kept"),
        (TensorSpec("x", "FP32", (ANY, 300)), {}, "no input has columns of numbers"),
        (TensorSpec("x", "FP32", (8, 3)), {}, "has no axis of rows"),
        (TensorSpec("x", "FP32", ()), {}, "has no axis of rows|no rows are kept"),
    ],
)
def test_what_was_not_kept_as_it_was_is_refused_with_the_reason(
    spec: TensorSpec, settings: dict[str, object], why: str
) -> None:
    schema = schema_for(spec, **settings)
    values = np.zeros((4, len(schema.sample.names)), np.float32)
    with pytest.raises(NotReplayable, match=why):
        tensors_of(schema, (spec,), values)


def test_more_columns_than_are_kept_are_refused() -> None:
    names = {"x": [f"f{i}" for i in range(300)]}
    spec = TensorSpec("x", "FP32", (ANY, 300))
    assert unkept(schema_for(spec, names=names)) == "rows are kept of 256 of 300 columns"


@pytest.mark.parametrize("value", [2.0**24, -(2.0**30)])
def test_whole_numbers_that_float32_does_not_tell_apart_are_refused(value: float) -> None:
    schema = schema_for(AGE)
    inputs = {"age": np.array([1, 2, value], np.int64)}
    with pytest.raises(NotReplayable, match=r"'age': 1 of 3 rows have whole numbers beyond 2\^24"):
        tensors_of(schema, (AGE,), KeptRows.of([pane(schema, inputs)], 9).values)
    fine = {"age": np.array([2**24 - 1, 1 - 2**24], np.int64)}
    found = tensors_of(schema, (AGE,), KeptRows.of([pane(schema, fine)], 9).values)
    assert sorted(found["age"].tolist()) == [1 - 2**24, 2**24 - 1]


def test_doubles_beyond_float32_are_refused() -> None:
    spec = TensorSpec("d", "FP64", (ANY, 1))
    schema = schema_for(spec)
    with pytest.raises(NotReplayable, match="beyond those of float32"):
        tensors_of(schema, (spec,), KeptRows.of([pane(schema, {"d": np.array([[1e300]])})], 9).values)


def test_panes_that_kept_all_their_rows_give_all_and_full_ones_more_than_one_of_them() -> None:
    schema = schema_for(X, sample_rows=64)
    random = np.random.default_rng(1)
    few = [pane(schema, {"x": random.random((20, 3), np.float32)}, seed) for seed in (3, 5)]
    assert len(KeptRows.of(few, 1_000)) == 40
    assert len(KeptRows.of(few, 30)) == 30
    full = [pane(schema, {"x": random.random((1_000, 3), np.float32)}, seed) for seed in range(1, 41, 2)]
    assert len(KeptRows.of(full, 10_000)) > 5 * 64
    assert len(KeptRows.of((), 10)) == 0


def test_each_row_is_kept_as_often_whichever_pane_it_was_in() -> None:
    """A busy pane and a quiet one, nine rows to one: so they are in the sample, though both had room for as many."""
    schema = schema_for(X, sample_rows=32)
    quiet_share = []
    for seed in range(1, 401, 2):
        busy = pane(schema, {"x": np.zeros((900, 3), np.float32)}, seed)
        quiet = pane(schema, {"x": np.ones((100, 3), np.float32)}, seed + 1_000_000)
        kept = KeptRows.of([busy, quiet], 1_000)
        quiet_share.append((float(kept.values[:, 0].sum()), len(kept)))
    ones, rows = (sum(each) for each in zip(*quiet_share, strict=True))
    share = ones / rows
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / rows) ** 0.5
