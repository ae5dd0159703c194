"""What is kept to read: the worst disagreements, inputs less what is redacted, pairs of classes; all of it bounded."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shadow_samples import BEGAN_NS, FEATURES, IRIS, KEY, REGRESSION, answers_of, copy_of, outputs_of, signature, spec

from runtime.shadow.comparison import PairComparison
from runtime.shadow.confusion import CLASS_CHARACTERS, MOST_PAIRS, ClassPair, Confusion, class_name
from runtime.shadow.pair import PairSettings
from runtime.shadow.shown import MOST_INPUT_BYTES, REDACTED
from runtime.shadow.worst import MOST_WORST, Disagreement, Worst


def disagreement(severity: float, at: int, row: int = 0) -> Disagreement:
    return Disagreement(at, f"r{at}", row, "y", severity, "1", "2")


DISAGREEMENTS = st.builds(
    disagreement, st.sampled_from([0.0, 0.5, 1.0, math.inf]), st.integers(1, 5), st.integers(0, 2)
)


@given(st.lists(DISAGREEMENTS), st.integers(0, 5), st.data())
def test_the_worst_are_the_same_in_any_order_and_grouping(
    found: list[Disagreement], most: int, data: st.DataObject
) -> None:
    whole = Worst(most, found)
    assert whole.kept == sorted(found, key=lambda each: each.rank)[:most]
    mixed = data.draw(st.permutations(found))
    cut = data.draw(st.integers(0, len(found)))
    left, right = Worst(most, mixed[:cut]), Worst(most, mixed[cut:])
    left.merge(right)
    assert left.kept == whole.kept


def test_too_many_to_keep_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 to 1000 disagreements to keep, got 1001"):
        Worst(MOST_WORST + 1)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60), st.data())
def test_of_many_pairs_the_same_are_kept_however_parts_are_merged(
    rows: list[tuple[int, int]], data: st.DataObject
) -> None:
    many = 30  # to go through the bound in few steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.shadow.confusion.MOST_PAIRS", many)
        pairs = [ClassPair(a == b, str(a), str(b)) for a, b in rows]
        whole = Confusion()
        for pair in pairs:
            whole.add(pair, 1)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=4)))
        merged = Confusion()
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            part = Confusion()
            for pair in pairs[start:end]:
                part.add(pair, 1)
            merged.merge(part)
        kept = dict(whole.items())
        assert len(kept) <= many
        assert (dict(merged.items()), merged.other) == (kept, whole.other)
        assert whole.rows == len(rows)
        assert all(count == pairs.count(pair) for pair, count in kept.items())
        assert set(kept) == set(sorted(set(pairs))[:many])


def test_long_classes_are_cut_and_told_apart() -> None:
    first, second = class_name("x" * 500 + "1"), class_name("x" * 500 + "2")
    assert first != second
    assert len(first) == len(second) == CLASS_CHARACTERS
    assert class_name((1, "a")) == "1, a"


def test_free_text_fills_no_more_than_its_place() -> None:
    made = PairComparison(KEY, PairSettings(), outputs_of(signature(spec("text", "BYTES", 1))))
    for start in range(0, 4 * MOST_PAIRS, 500):
        first = np.array([[f"{at:08d}" + "x" * 1000] for at in range(start, start + 500)], object)
        made.compare(copy_of({"text": first}), {"text": first[::-1]}, 1)
    confusion = made.outputs["text"].confusion
    assert len(dict(confusion.items())) == MOST_PAIRS
    assert confusion.rows == made.compared_rows
    assert len(made.to_bytes()) < 300_000


def iris(**settings: Any) -> PairComparison:
    """One row on which the classes differ, with its inputs."""
    made = PairComparison(KEY, PairSettings(inputs=True, **settings), outputs_of(IRIS))
    copy = copy_of({"label": [1, 0]}, inputs={"X": [[0.5, 1.5, 2.5, 3.5], [5.0, math.nan, math.inf, 1.0]]})
    made.compare(copy, answers_of(label=[1, 2]), 1)
    return made


def inputs_of(made: PairComparison) -> Any:
    return json.loads(next(made.disagreements).inputs)


def test_inputs_are_kept_by_feature_where_the_route_asks_for_them() -> None:
    assert inputs_of(iris()) == dict(zip(FEATURES, [5.0, "nan", "inf", 1.0], strict=True))
    made = PairComparison(KEY, PairSettings(), outputs_of(IRIS))
    made.compare(copy_of({"label": [1]}, inputs={"X": [[0.0] * 4]}), answers_of(label=[2]), 1)
    assert next(made.disagreements).inputs == ""


@pytest.mark.parametrize("name", ["sepal_width", "X.sepal_width", "X[1]"])
def test_a_redacted_feature_is_named_and_has_no_value(name: str) -> None:
    shown = inputs_of(iris(redact=(name,)))
    assert shown == {"sepal_length": 5.0, "sepal_width": None, "petal_length": "inf", "petal_width": 1.0}


def test_a_whole_input_can_be_redacted() -> None:
    assert set(inputs_of(iris(redact=("X",))).values()) == {None}


@pytest.mark.parametrize("name", ["sepal_widht", "X[01]", "X[\uff11]", "X[1", "X[-1]", "lable", "label[0]"])
def test_where_a_redacted_name_is_nowhere_nothing_is_shown(name: str) -> None:
    made = iris(redact=(name, "petal_width"))
    why = f"redact names features that the model has not: {name}"
    assert inputs_of(made) == {"(withheld)": why}
    worst = next(made.disagreements)
    assert (worst.primary_value, worst.shadow_value) == (why, why)
    assert not dict(made.outputs["label"].confusion.items())


@pytest.mark.parametrize("name", ["sepal_width", "X.sepal_width", "X[1]", "X"])
def test_rows_that_are_one_request_without_rows_hide_all_of_an_input_that_has_redacted_columns(name: str) -> None:
    made = PairComparison(KEY, PairSettings(inputs=True, redact=(name,)), outputs_of(IRIS))
    made.compare(
        copy_of({"label": [0, 1]}, [1], inputs={"X": [[1.5] * 4] * 2}, batched=False), answers_of(label=[1, 1]), 1
    )
    assert list(inputs_of(made).values()) == [None] * 8


def test_a_failure_quotes_inputs_only_where_they_are_kept() -> None:
    why = "Gather node 'g1' int64: idx=471100 must be within [-3,.5], got secret-7, x"
    copy = copy_of({"y": [1.0]}, inputs={"X": [471100], "word": ["secret-7"]})
    for settings, expected in (
        (PairSettings(inputs=True), why),
        (PairSettings(), "Gather node 'g1' int64: idx=# must be within [#,#], got (redacted), x"),
        (
            PairSettings(inputs=True, redact=("X",)),
            "Gather node 'g1' int64: idx=# must be within [#,#], got (redacted), x",
        ),
    ):
        made = PairComparison(KEY, settings, outputs_of(REGRESSION))
        made.fail(copy, why)
        assert made.failure[1] == expected


def test_a_redacted_output_shows_neither_value_nor_classes() -> None:
    made = iris(redact=("label",))
    worst = next(made.disagreements)
    assert (worst.primary_value, worst.shadow_value) == (REDACTED, REDACTED)
    tally = made.outputs["label"]
    assert (dict(tally.confusion.items()), tally.confusion.other) == ({}, 2)
    assert (tally.predicted_rows, tally.predicted_equal_rows) == (2, 1)


def test_texts_and_many_features_are_cut() -> None:
    inputs = [spec("wide", "FP32", 2000), spec("text", "BYTES", 1)]
    outputs = outputs_of(signature(spec("price", "FP32", 1), inputs=inputs))
    made = PairComparison(KEY, PairSettings(inputs=True), outputs)
    given = {"text": [["é" * 5000]], "wide": np.ones((1, 2000), np.float32)}
    made.compare(copy_of({"price": [[1.0]]}, inputs=given), answers_of(price=[[2.0]]), 1)
    text = next(made.disagreements).inputs
    shown = json.loads(text)
    assert len(text) < MOST_INPUT_BYTES + 50
    assert shown["text"] == "é" * 200
    assert shown["(left out)"] == 2001 - (len(shown) - 1)


def test_disagreements_are_found_in_their_request() -> None:
    made = PairComparison(KEY, PairSettings(worst=2), outputs_of(REGRESSION))
    first, second = [[1.0], [1.0], [1.0], [1.0], [1.0]], [[1.0], [1.0], [1.5], [1.0], [4.0]]
    made.compare(copy_of({"price": first}, [2, 0, 2, 1]), answers_of(price=second), 1)
    kept = [(each.request_id, each.row, each.severity, each.shadow_value) for each in made.disagreements]
    assert kept == [("r3", 0, 3.0, "4"), ("r2", 0, 0.5, "1.5")]
    assert (made.agreed, made.compared) == (2, 4)  # the request without rows agrees


def test_only_what_is_worse_is_put_into_words() -> None:
    made = PairComparison(KEY, PairSettings(worst=1), outputs_of(REGRESSION))
    for at, answer in enumerate([2.0, 1.5, 1.25, 3.0, 3.0]):
        made.compare(copy_of({"price": [[1.0]]}, unix_ns=BEGAN_NS + at), answers_of(price=[[answer]]), 1)
    assert [(each.severity, each.unix_ns) for each in made.disagreements] == [(2.0, BEGAN_NS + 3)]


def test_none_are_kept_where_none_are_asked_for() -> None:
    made = PairComparison(KEY, PairSettings(worst=0), outputs_of(REGRESSION))
    made.compare(copy_of({"price": [[1.0]]}), answers_of(price=[[2.0]]), 1)
    assert list(made.disagreements) == []


def test_an_input_without_rows_is_the_runs_and_is_not_shown_for_one_of_them() -> None:
    made = PairComparison(KEY, PairSettings(inputs=True), outputs_of(REGRESSION))
    copy = copy_of({"price": [[1.0], [1.0]]}, inputs={"X": [[1.0] * 4] * 2, "k": 3.0})
    made.compare(copy, answers_of(price=[[1.0], [2.0]]), 1)
    assert list(inputs_of(made)) == [f"X[{at}]" for at in range(4)]
