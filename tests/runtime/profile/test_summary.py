"""What a summary says of the rows it was shown, however they were dealt out, merged, copied and written down."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from profile_models import NAMES, ROWS, run_of, schema, summary_of, table
from zoo import by_name

from runtime.profile.schema import PREDICTION
from runtime.profile.summary import Summary
from runtime.sketch.codec import encode
from runtime.sketch.errors import BadValues, Malformed, NotMergeable

RNG = np.random.default_rng(3)
MIXED = schema(
    table(
        ("X", "FP32", 4), ("n", "INT64", 1), ("flag", "BOOL", 1), ("colour", "BYTES", 1), ("size", "BYTES", 1),
        ("note", "BYTES", 1), ("e", "FP32", 300),
        outputs=(("label", "INT64", 1), ("probabilities", "FP32", 3)),
    ),
    "features: {size: {categories: [s, m, l]}, note: {kind: text}, 'X[1]': {range: [-1, 1], missing: 9}}\n"
    "reject_below: 0.5",
)  # fmt: skip


def mixed(rows: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and outputs of MIXED, with everything that is not a plain number among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    x[rng.random((rows, 4)) < 0.1] = np.nan
    x[rng.random((rows, 4)) < 0.05] = np.inf
    x[rng.random((rows, 4)) < 0.05] = 9
    inputs = {
        "X": x,
        "n": rng.integers(-5, 5, (rows, 1)),
        "flag": rng.random((rows, 1)) < 0.3,
        "colour": rng.choice(np.array(["red", "green", "blau"], object), (rows, 1)),
        "size": rng.choice(np.array(["s", "m", "xxl"], object), (rows, 1)),
        "note": rng.choice(np.array(["", "a", "long text"], object), (rows, 1)),
        "e": rng.normal(size=(rows, 300)).astype(np.float32),
    }
    scores = rng.dirichlet((1, 1, 1), rows).astype(np.float32)
    return inputs, {"label": scores.argmax(axis=1).reshape(-1, 1), "probabilities": scores}


def seen(parts: Sequence[tuple[int, int]], seed: int = 1) -> Summary:
    summary = Summary.create(MIXED, seed=seed)
    for rows, data_seed in parts:
        summary.observe(*mixed(rows, data_seed), rows)
    return summary


def states(summary: Summary) -> dict[str, bytes]:
    """By feature and sketch, what has to be the same byte for byte."""
    found = {f"{name} histogram": encode(sketch) for name, sketch in summary.histograms().items()}
    found |= {f"{name} distinct": encode(sketch) for name, sketch in summary.distinct().items()}
    found |= {f"{name} categories": encode(sketch) for name, sketch in summary.categories().items()}
    found |= {
        f"{name} frequent": encode(frequent) + bytes([missing])
        for name, (frequent, missing) in summary.frequent().items()
    }
    return found | {"rates": repr(summary.rates()).encode(), "rows": repr(summary.rows).encode()}


def same_moments(one: Summary, other: Summary) -> None:
    for name, moments in one.moments().items():
        np.testing.assert_allclose(moments.row, other.moments()[name].row, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_zoo_is_measured_and_its_summary_written_and_read(name: str) -> None:
    summary = summary_of(name, runs=2)
    assert summary.rows == 2 * ROWS
    data = summary.encode()
    assert Summary.decode(summary.schema, data).encode() == data
    copy = summary.copy()
    assert copy.encode() == data
    copy.observe(*run_of(by_name[name], 9), ROWS)
    assert copy.rows == 3 * ROWS
    assert summary.encode() == data


@pytest.mark.parametrize("name", NAMES)
def test_every_numeric_feature_counts_every_value_of_its_column(name: str) -> None:
    summary = summary_of(name)
    inputs, outputs = run_of(by_name[name])
    for feature in summary.schema.features:
        histogram = summary.histograms().get(feature.name)
        tensor = (inputs if feature.role == "input" else outputs)[feature.tensor]
        if histogram is not None:
            assert histogram.total == (len(tensor) if tensor.ndim else 1), feature.name


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), min_size=1, max_size=5), st.randoms())
@effort(max_examples=25)
def test_merged_in_any_order_it_is_what_one_that_saw_all_rows_is(parts: list[tuple[int, int]], random: object) -> None:
    whole = seen(parts)
    alone = [seen([part], seed=at + 2) for at, part in enumerate(parts)]
    random.shuffle(alone)
    while len(alone) > 1:
        one, other = alone.pop(), alone.pop(random.randrange(len(alone)))
        one.merge(other)
        alone.insert(0, one)
    (merged,) = alone
    assert states(merged) == states(whole)
    same_moments(merged, whole)
    assert merged.sample().seen == whole.sample().seen == sum(rows for rows, _ in parts)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_merged_sample_is_the_same_in_any_order(order: tuple[int, ...]) -> None:
    alone = [seen([(600, at)], seed=10 + at) for at in range(3)]
    merged = Summary.create(MIXED, seed=1)
    for at in order:
        merged.merge(alone[at])
    expected = Summary.create(MIXED, seed=1)
    for each in alone:
        expected.merge(each)
    assert encode(merged.sampled) == encode(expected.sampled)


def test_frequent_values_beyond_capacity_stay_within_their_bound_when_merged() -> None:
    of = schema(table(("t", "BYTES", 1)))
    rng = np.random.default_rng(5)
    parts = [np.array([f"v{int(value)}" for value in rng.zipf(1.3, 3000)], object).reshape(-1, 1) for _ in range(4)]
    merged = Summary.create(of)
    for part in parts:
        one = Summary.create(of)
        one.observe({"t": part}, {}, len(part))
        merged.merge(one)
    frequent, missing = merged.frequent()["t"]
    texts, counts = np.unique(np.concatenate(parts).astype(str), return_counts=True)
    truth = dict(zip(texts.tolist(), counts.tolist(), strict=True))
    assert missing == 0
    assert frequent.total == 12_000
    for each in frequent.top():
        assert each.at_least <= truth[each.value] <= each.at_most


def test_another_schema_does_not_merge() -> None:
    with pytest.raises(NotMergeable, match="different schemas"):
        seen([(3, 0)]).merge(summary_of("mlp"))


def test_what_is_no_number_is_counted_apart() -> None:
    summary = seen([(4000, 2)])
    x = mixed(4000, 2)[0]["X"][:, 1]
    histogram = summary.histograms()["X[1]"]
    aside = histogram.aside
    assert aside["nan"] == np.isnan(x).sum()
    assert aside["plus_infinity"] == np.isposinf(x).sum()
    assert aside["missing"] == (x == 9).sum()
    assert aside["below"] == (x[np.isfinite(x)] < -1).sum()
    assert summary.moments()["X[1]"].count == histogram.finite


def test_of_scores_it_says_class_confidence_margin_and_how_many_are_rejected() -> None:
    scores = np.array([[0.2, 0.7, 0.1], [0.4, 0.35, 0.25], [0.3, 0.3, 0.4], [np.nan, 0.5, 0.5]], np.float32)
    of = schema(
        table(("X", "FP32", 1), outputs=(("probabilities", "FP32", 3),)), "reject_below: 0.5\nclasses: [a, b, c]"
    )
    summary = Summary.create(of)
    summary.observe({"X": np.zeros((4, 1), np.float32)}, {"probabilities": scores}, 4)
    classes = summary.categories()["prediction.class"]
    assert (classes.by_category(), classes.missing) == ({"a": 1, "b": 1, "c": 1}, 1)
    assert summary.rates() == {"prediction.rejected": (2, 4)}
    confidence, margin = summary.histograms()["prediction.confidence"], summary.histograms()["prediction.margin"]
    assert (confidence.finite, confidence.aside["nan"]) == (3, 1)
    assert margin.maximum == pytest.approx(0.5)
    assert margin.minimum == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_scores_of_each_datatype_are_read_alike(datatype: str) -> None:
    wide = np.array([[0.25, 0.75], [0.5, 0.125]], np.float32)
    given = {
        "FP16": wide.astype(np.float16),
        "BF16": (wide.view(np.uint32) >> 16).astype(np.uint16),
        "FP32": wide,
        "FP64": wide.astype(np.float64),
    }[datatype]
    of = schema(table(("X", "FP32", 1), outputs=(("scores", datatype, 2),)))
    summary = Summary.create(of)
    summary.observe({"X": np.array([[1], [2]], np.float32)}, {"scores": given}, 2)
    assert summary.histograms()["prediction.confidence"].maximum == 0.75
    assert sorted(summary.sample().rows[:, -1].tolist()) == [0.125, 0.75]


def test_a_bf16_output_is_correlated_by_its_values_not_its_bits() -> None:
    x = np.linspace(-2, 2, 400, dtype=np.float32).reshape(-1, 1)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    of = schema(table(("X", "FP32", 1), outputs=(("y", "BF16", 1),)))
    summary = Summary.create(of)
    summary.observe({"X": x}, {"y": bits}, len(x))
    assert summary.moments()["X"].summary().correlation == pytest.approx(1, abs=1e-3)


def test_an_output_that_was_not_asked_for_is_not_measured() -> None:
    inputs, outputs = mixed(50, 1)
    summary = Summary.create(MIXED)
    summary.observe(inputs, {"label": outputs["label"]}, 50)
    assert summary.rows == 50
    assert summary.histograms()["prediction.confidence"].total == 0
    assert summary.frequent()["label"][0].total == 50
    assert np.isnan(summary.sample().rows[:, -1]).all()


def test_the_sample_holds_rows_as_they_are_with_the_prediction_last() -> None:
    of = schema(table(("X", "FP32", 2), outputs=(("y", "FP32", 1),)))
    summary = Summary.create(of, seed=7)
    x = RNG.normal(size=(5000, 2)).astype(np.float32)
    for part in np.array_split(x, 80):
        summary.observe({"X": part}, {"y": part.sum(axis=1, keepdims=True)}, len(part))
    sample = summary.sample()
    assert sample.columns == ("X[0]", "X[1]", PREDICTION)
    assert (sample.seen, sample.rows.shape) == (5000, (1024, 3))
    np.testing.assert_allclose(sample.rows[:, 0] + sample.rows[:, 1], sample.rows[:, 2], rtol=1e-5, atol=1e-5)
    kept = {tuple(row) for row in sample.rows[:, :2].tolist()}
    assert kept <= {tuple(row) for row in x.astype(np.float64).tolist()}


def test_a_scalar_that_belongs_to_the_request_is_measured_once_a_request() -> None:
    summary = summary_of("shared_scalar", runs=3)
    assert summary.histograms()["scale"].total == 3
    assert summary.histograms()["x[0]"].total == 3 * ROWS


def test_no_rows_change_nothing() -> None:
    summary = seen([(10, 1)])
    before = summary.encode()
    summary.observe(*mixed(0, 1), 0)
    assert summary.encode() == before


def test_arrays_of_another_datatype_are_refused() -> None:
    of = schema(table(("X", "FP32", 1)))
    with pytest.raises(BadValues):
        Summary.create(of).observe({"X": np.array([["a"]], object)}, {}, 1)


def test_memory_that_is_too_small_or_holds_no_summary_is_malformed() -> None:
    with pytest.raises(Malformed, match="bytes or more"):
        Summary.create(MIXED, bytearray(MIXED.size_bytes - 1))
    with pytest.raises(Malformed, match="bytes or more"):
        Summary.attach(MIXED, bytes(100))
    with pytest.raises(Malformed, match="layout"):
        Summary.attach(MIXED, bytes(MIXED.size_bytes))


@cache
def written() -> bytes:
    return seen([(40, 1)]).encode()


@given(st.data())
@effort(max_examples=200)
def test_changed_bytes_are_malformed(data: st.DataObject) -> None:
    """Also where the checksum has been made to fit: then what is read is a summary that writes the same bytes."""
    body = bytearray(written()[:-4])
    at = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.booleans())
    if cut:
        del body[at:]
    else:
        body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Malformed):
        Summary.decode(MIXED, bytes(body) + written()[-4:])
    fitting = bytes(body) + zlib.crc32(body).to_bytes(4, "little")
    try:
        read = Summary.decode(MIXED, fitting)
    except Malformed:
        return
    assert read.encode() == fitting


@given(st.binary(max_size=400))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Summary.decode(MIXED, data)


def test_a_summary_of_another_schema_is_malformed() -> None:
    with pytest.raises(Malformed, match="another schema"):
        Summary.decode(summary_of("mlp").schema, written())


FEATURE_BYTES = {30: 8_416, 1_000: 4_576, 10_000: 4_576}
SAMPLE_BYTES = 4 * 65_536 + 8 * 1_024
"""Most bytes of a feature in a pane, and of its sample of rows, as docs/statistics.md has them."""


@pytest.mark.parametrize(("features", "named"), [(30, True), (1_000, True), (10_000, True), (10_000, False)])
def test_memory_is_as_stated(features: int, named: bool) -> None:
    names = {"feature_names": json.dumps([f"c{at}" for at in range(features)])} if named else {}
    of = schema(table(("X", "FP32", features), outputs=(("y", "FP32", 1),), **names))
    kept = Summary.create(of)
    kept.observe({"X": RNG.normal(size=(100, features)).astype(np.float32)}, {"y": np.ones((100, 1), np.float32)}, 100)
    assert kept.memory.nbytes == of.size_bytes
    measured = len([feature for feature in of.features if feature.role == "input"])
    assert measured == {30: 30, 1_000: 1_000, 10_000: 256 + 11 if named else 11}[features]
    assert of.size_bytes <= (measured + 1) * FEATURE_BYTES[features] + SAMPLE_BYTES + 1024
    assert len(kept.encode()) < of.size_bytes


def test_a_summary_of_ten_thousand_columns_one_by_one_is_written_and_read_where_settings_ask_for_it() -> None:
    names = json.dumps([f"c{at}" for at in range(10_000)])
    of = schema(table(("X", "FP32", 10_000), feature_names=names), "max_features: 16384")
    assert len(of.features) == 10_000
    assert of.size_bytes < 10_000 * 4_576 + 400_000
    summary = Summary.create(of, seed=1)
    summary.observe({"X": RNG.normal(size=(20, 10_000)).astype(np.float32)}, {}, 20)
    data = summary.encode()
    assert Summary.decode(of, data).encode() == data
