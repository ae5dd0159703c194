"""Comparisons: the figures are those that a loop over the rows gives, and parts merge into the whole."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shadow_samples import (
    BEGAN_NS,
    CLASSES,
    IRIS,
    KEY,
    OTHER_KEY,
    REGRESSION,
    SECOND,
    answers_of,
    copy_of,
    iris_comparison,
    iris_run,
    outputs_of,
    signature,
    spec,
)  # fmt: skip
from zoo import ZOO, built

from runtime.onnx.session import Session
from runtime.repository.manifest import SessionSettings
from runtime.repository.statistics_settings import StatisticsSettings
from runtime.shadow.comparison import PairComparison
from runtime.shadow.confusion import ClassPair
from runtime.shadow.outputs import Predicts, comparable_outputs
from runtime.shadow.pair import SHED_REASONS, Copy, PairSettings
from runtime.shadow.tally import ABSOLUTE, RELATIVE, Spread
from runtime.sketch.errors import NotMergeable

FLOATS = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-20, 1.0001, math.nan, math.inf, -math.inf, 1e-30])
)


def comparison(outputs: Any, **settings: Any) -> PairComparison:
    return PairComparison(KEY, PairSettings(**settings), outputs)


def bits(value: float) -> bytes:
    return np.float32(value).tobytes()


def naive_close(a: float, b: float, absolute: float, relative: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if math.isinf(a) or math.isinf(b):
        return a == b
    return abs(a - b) <= absolute + relative * abs(a)


@given(
    st.lists(st.tuples(st.lists(FLOATS, min_size=2, max_size=2), st.lists(FLOATS, min_size=2, max_size=2)), min_size=1),
    st.sampled_from([(0.0, 0.0), (1e-6, 1e-4), (0.5, 0.0)]),
    st.data(),
)
def test_numbers_are_counted_as_a_loop_over_them_does(
    rows: list[tuple[list[float], list[float]]], tolerance: tuple[float, float], data: st.DataObject
) -> None:
    absolute, relative = tolerance
    first = np.array([a for a, _ in rows], np.float32)
    second = np.array([b for _, b in rows], np.float32)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=3)) | {len(rows)})
    requests = np.diff([0, *cuts]).tolist()
    made = comparison(outputs_of(signature(spec("y", "FP32", 2))), absolute=absolute, relative=relative)
    made.compare(copy_of({"y": first}, requests), {"y": second}, 1)
    pairs = [list(zip(a.tolist(), b.tolist(), strict=True)) for a, b in zip(first, second, strict=True)]
    close = [all(naive_close(a, b, absolute, relative) for a, b in row) for row in pairs]
    finite = [(a, b) for row in pairs for a, b in row if math.isfinite(a) and math.isfinite(b)]
    odd = [
        (a, b) for row in pairs for a, b in row
        if not (math.isfinite(a) and math.isfinite(b)) and not naive_close(a, b, 0, 0)
    ]  # fmt: skip
    tally = made.outputs["y"]
    assert tally.rows == len(rows)
    assert tally.equal_rows == sum(all(bits(a) == bits(b) for a, b in row) for row in pairs)
    assert tally.close_rows == sum(close) == made.agreed_rows
    assert tally.not_finite == len(odd)
    starts = np.cumsum([0, *requests])
    assert made.agreed == sum(all(close[i:j]) for i, j in pairwise(starts))
    if not finite:
        assert tally.differences is None
        return
    differences = [abs(a - b) for a, b in finite]
    assert tally.differences is not None
    spread = Spread.of(tally.differences, ABSOLUTE)
    assert spread.histogram.finite == len(finite)
    assert spread.greatest == max(differences)
    assert spread.moments.mean == pytest.approx(math.fsum(differences) / len(finite), rel=1e-9)
    shares = [0.0 if a == b else (abs(a - b) / abs(a) if a else math.inf) for a, b in finite]
    assert Spread.of(tally.differences, RELATIVE).greatest == max(shares)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1))
def test_labels_are_counted_by_pairs_of_classes(rows: list[tuple[int, int]]) -> None:
    first, second = (np.array(side, np.int64) for side in zip(*rows, strict=True))
    made = comparison(outputs_of(signature(spec("label", "INT64"))))
    made.compare(copy_of({"label": first}), {"label": second}, 1)
    tally = made.outputs["label"]
    wanted = Counter(ClassPair(a == b, str(a), str(b)) for a, b in rows)
    assert dict(tally.confusion.items()) == wanted
    same = sum(a == b for a, b in rows)
    assert (tally.predicted_rows, tally.predicted_equal_rows) == (len(rows), same)
    assert tally.differences is None  # how far one label is from another says nothing
    assert made.agreed_rows == same


def test_where_a_class_is_predicted_scores_may_differ_and_agree() -> None:
    made = comparison(outputs_of(IRIS))
    first = {"label": [0, 1], "probabilities": [[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]]}
    second = answers_of(label=[0, 1], probabilities=[[0.5, 0.3, 0.2], [0.3, 0.4, 0.3]])
    made.compare(copy_of(first, [1, 1]), second, 1)
    assert (made.agreed, made.compared) == (2, 2)
    assert made.outputs["probabilities"].close_rows == 0
    assert list(made.disagreements) == []


def test_rows_agree_only_if_label_and_scores_both_do() -> None:
    made = comparison(outputs_of(IRIS))
    first = {"label": [0, 1, 2], "probabilities": [[0.9, 0.1, 0.0]] * 3}
    second = answers_of(label=[0, 2, 2], probabilities=[[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    made.compare(copy_of(first, [3]), second, 1)
    assert (made.agreed, made.agreed_rows) == (0, 1)
    worst = [(each.row, each.output, each.primary_value, each.shadow_value) for each in made.disagreements]
    assert worst == [(1, "label", "1", "2"), (2, "probabilities", "setosa (0.9)", "versicolor (0.9)")]
    assert [each.severity for each in made.disagreements] == [pytest.approx(0.8)] * 2


def test_scores_with_nan_have_no_class() -> None:
    made = comparison(outputs_of(signature(spec("scores", "FP32", 2))))
    nan = math.nan
    made.compare(
        copy_of({"scores": [[nan, 1.0], [nan, 1.0], [0.0, 1.0]]}),
        answers_of(scores=[[nan] * 2, [1.0, 0.0], [nan] * 2]),
        1,
    )
    counts = dict(made.outputs["scores"].confusion.items())
    assert counts == {
        ClassPair(agree=True, primary="(none)", shadow="(none)"): 1,
        ClassPair(agree=False, primary="(none)", shadow="0"): 1,
        ClassPair(agree=False, primary="1", shadow="(none)"): 1,
    }
    assert made.agreed_rows == 1


def test_texts_and_booleans_are_equal_or_not() -> None:
    outputs = outputs_of(signature(spec("text", "BYTES", 2), spec("flag", "BOOL")), "features: {text: {kind: ignored}}")
    assert outputs.ignored == {"text"}
    made = comparison(outputs_of(signature(spec("flag", "BOOL"), spec("texts", "BYTES", -1))))
    first = {"flag": np.array([True, False, True]), "texts": [["a", "b"], ["c", "d"], ["e", "f"]]}
    second = {"flag": np.array([True, False, False]), "texts": answers_of(t=[["a", "b"], ["c", "x"], ["e", "f"]])["t"]}
    made.compare(copy_of(first, [1, 1, 1]), second, 1)
    assert {name: tally.equal_rows for name, tally in made.outputs.items()} == {"flag": 2, "texts": 2}
    assert made.agreed == 1
    assert [(each.output, each.severity) for each in made.disagreements] == [("texts", 1.0), ("flag", 1.0)]


def test_labels_of_several_columns_are_one_class() -> None:
    made = comparison(outputs_of(signature(spec("labels", "INT64", 2))))
    made.compare(copy_of({"labels": [[0, 1], [1, 1]]}), answers_of(labels=[[0, 1], [1, 0]]), 1)
    assert dict(made.outputs["labels"].confusion.items()) == {
        ClassPair(agree=True, primary="0, 1", shadow="0, 1"): 1,
        ClassPair(agree=False, primary="1, 1", shadow="1, 0"): 1,
    }


@pytest.mark.parametrize(
    ("second", "shown"),
    [
        ({}, "no such output"),
        (answers_of(price=[[1.0, 2.0]] * 2), "float32[2, 2]"),
        (answers_of(price=[["1"], ["2"]]), "texts[2, 1]"),
        (answers_of(price=[[1], [2]]), "int64[2, 1]"),
    ],
)
def test_other_shapes_and_types_are_incomparable_and_never_agree(second: dict[str, Any], shown: str) -> None:
    made = comparison(outputs_of(REGRESSION))
    made.compare(copy_of({"price": [[1.0], [2.0]]}), second, 1)
    tally = made.outputs["price"]
    assert (tally.rows, tally.incomparable_rows, tally.close_rows, made.agreed) == (2, 2, 0, 0)
    worst = next(made.disagreements)
    assert (worst.severity, worst.primary_value, worst.shadow_value) == (math.inf, "float32[2, 1]", shown)


def test_floats_of_another_width_are_compared_as_numbers() -> None:
    made = comparison(outputs_of(REGRESSION))
    made.compare(copy_of({"price": [[1.5], [2.5]]}), {"price": np.array([[1.5], [2.5000001]])}, 1)
    assert (made.outputs["price"].equal_rows, made.agreed_rows) == (1, 2)


def test_bf16_comes_as_bits_and_is_compared_as_numbers() -> None:
    made = comparison(outputs_of(signature(spec("y", "BF16", 1))))
    one, more = np.array([[0x3F80]], np.uint16), np.array([[0x3F81]], np.uint16)
    made.compare(copy_of({"y": one}), {"y": more}, 1)
    tally = made.outputs["y"]
    assert tally.differences is not None
    assert Spread.of(tally.differences, ABSOLUTE).greatest == 2**-7


def test_an_output_without_rows_is_one_row_that_all_requests_share() -> None:
    made = comparison(outputs_of(signature(spec("y", "FP32", 1))))
    made.compare(copy_of({"y": [[1.0]] * 3, "mean": 1.0}, [1, 2]), answers_of(y=[[1.0]] * 3, mean=2.0), 1)
    assert made.outputs["mean"].rows == 1
    assert (made.agreed, made.compared, made.agreed_rows) == (0, 2, 0)


def test_a_request_without_rows_is_one_row() -> None:
    made = comparison(outputs_of(signature(spec("y", "FP32", 3))))
    copy = copy_of({"y": np.zeros((2, 3), np.float32)}, [1], inputs={"X": [[1.0, 2.0]]}, batched=False)
    made.compare(copy, {"y": np.zeros((2, 3), np.float32)}, 1)
    assert (made.compared_rows, made.agreed, made.outputs["y"].equal_rows) == (1, 1, 1)
    made.compare(copy, {"y": np.ones((2, 3), np.float32)}, 1)
    assert (made.compared_rows, made.agreed) == (2, 1)


def test_an_output_that_was_not_asked_for_is_not_compared() -> None:
    made = comparison(outputs_of(IRIS))
    made.compare(
        copy_of({"probabilities": [[0.9, 0.1, 0.0]]}), answers_of(label=[2], probabilities=[[0.8, 0.2, 0.0]]), 1
    )
    assert (list(made.outputs), made.agreed) == (["probabilities"], 1)


def test_integers_that_are_no_labels_have_differences() -> None:
    outputs = outputs_of(signature(spec("count", "INT64")), "features: {count: {kind: numeric}}")
    assert outputs.outputs["count"].predicts is Predicts.NOTHING
    made = comparison(outputs)
    made.compare(copy_of({"count": [0, 4, 10]}), answers_of(count=[0, 5, 8]), 1)
    tally = made.outputs["count"]
    assert tally.differences is not None
    assert Spread.of(tally.differences, ABSOLUTE).greatest == 2
    assert Spread.of(tally.differences, RELATIVE).greatest == 0.25
    assert [each.severity for each in made.disagreements] == [0.25, pytest.approx(0.2)]


@pytest.mark.parametrize("model", ZOO, ids=[model.name for model in ZOO])
def test_every_model_agrees_with_itself(model: Any, tmp_path: Path) -> None:
    """Real sessions: each datatype, ranks, scalars, texts, NaN."""
    path = tmp_path / "model.onnx"
    path.write_bytes(built(model.name))
    session = Session(path, SessionSettings())
    inputs = {
        name: array.view(np.uint16) if array.dtype.kind not in "biufO" else array
        for name, array in model.feeds(np.random.default_rng(0), 7).items()
    }
    outputs = dict(zip((each.name for each in session.signature.outputs), session.run(inputs), strict=True))
    known = comparable_outputs(session.signature, StatisticsSettings())
    made = PairComparison(KEY, PairSettings(inputs=True), known)
    rows = (3, 4) if model.batched else (1,)
    copy = Copy(BEGAN_NS, inputs, outputs, rows, ("a", "b")[: len(rows)], 1000, model.batched)
    made.compare(copy, {name: array.copy() for name, array in outputs.items()}, 1000)
    assert (made.compared, made.agreed) == (len(rows), len(rows))
    for tally in made.outputs.values():
        assert tally.rows == tally.equal_rows
    made.compare(copy, {}, 1000)
    assert made.agreed == len(rows)
    read = PairComparison.from_bytes(made.to_bytes())
    assert read.to_bytes() == made.to_bytes()


def without_means(data: PairComparison) -> bytes:
    """All of it but the means of what merges only up to rounding."""
    copy = data.copy()
    for tally in copy.outputs.values():
        if tally.differences is not None:
            tally.differences.moments[:, 1:] = 0
    copy.times.moments[:, 1:] = 0
    return copy.to_bytes()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_parts_merge_into_the_whole_in_any_order(sizes: list[int], data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    runs = [iris_run(random, [2, 1], 0.3, BEGAN_NS + at * SECOND) for at in range(sum(sizes))]
    outputs, settings = outputs_of(IRIS), PairSettings(worst=4, inputs=True)
    whole = PairComparison(KEY, settings, outputs)
    parts = []
    at = 0
    for size in sizes:
        part = PairComparison(KEY, settings, outputs)
        for each in (whole, part):
            for copy, answers in runs[at : at + size]:
                each.compare(copy, answers, 250_000)
            each.fail(runs[at][0], f"failure {at}")
            each.shed(SHED_REASONS[at % 6], size)
            each.refuse({"too_large": 1})
        parts.append(part)
        at += size
    order = data.draw(st.permutations(parts))
    merged = order[0].copy()
    for part in order[1:]:
        merged.merge(PairComparison.from_bytes(part.to_bytes()))
    assert without_means(merged) == without_means(whole)
    for name, tally in whole.outputs.items():
        if tally.differences is not None:
            theirs = merged.outputs[name].differences
            assert theirs is not None
            assert theirs.moments[:, 1] == pytest.approx(tally.differences.moments[:, 1])


def test_another_pair_is_not_merged() -> None:
    whole = iris_comparison()
    before = whole.to_bytes()
    with pytest.raises(NotMergeable, match=r"expected a comparison of .*shadow=2.*, got one of .*shadow=3"):
        whole.merge(iris_comparison(key=OTHER_KEY))
    assert whole.to_bytes() == before


def test_merging_changes_only_what_is_merged_into() -> None:
    part = iris_comparison(1)
    before = part.to_bytes()
    whole = iris_comparison(0)
    whole.merge(part)
    whole.copy().merge(part)
    after = whole.to_bytes()
    assert part.to_bytes() == before
    assert whole.to_bytes() == after


def test_what_was_read_cannot_be_compared_with() -> None:
    read = PairComparison.from_bytes(iris_comparison().to_bytes())
    copy, answers = iris_run(np.random.default_rng(0), [1], 0.1, BEGAN_NS)
    with pytest.raises(ValueError, match="read from bytes"):
        read.compare(copy, answers, 1)


def test_an_unknown_reason_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of queue_full, .*, got 'bored'"):
        iris_comparison().shed("bored", 1)


def test_times_are_of_the_same_runs() -> None:
    made = comparison(outputs_of(REGRESSION))
    for primary_ns, shadow_ns in ((100_000, 150_000), (300_000, 450_000)):
        made.compare(copy_of({"price": [[1.0]]}, run_ns=primary_ns), answers_of(price=[[1.0]]), shadow_ns)
    assert made.latency_ratio == 1.5
    assert made.run_seconds(shadow=True).maximum == pytest.approx(450e-6)
    assert made.run_seconds(shadow=False).finite == 2
    assert math.isnan(comparison(outputs_of(REGRESSION)).latency_ratio)


def test_empty_is_what_nothing_came_to() -> None:
    made = comparison(outputs_of(IRIS))
    assert made.is_empty
    made.shed("late", 0)
    assert made.is_empty
    made.shed("late", 1)
    assert (made.is_empty, made.rows, made.requests) == (False, 1, 0)


def test_classes_have_names_where_they_are_known() -> None:
    found = outputs_of(IRIS)
    assert found.outputs["probabilities"].classes == CLASSES
    assert found.outputs["label"].predicts is Predicts.LABEL
    assert found.predict
    assert not outputs_of(REGRESSION).predict
