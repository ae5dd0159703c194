"""Which features a model has, and how each is measured."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_models import NAMES, schema, session_of, settings, table

from runtime.profile.of_signature import schema_of
from runtime.profile.schema import Categories, Columns, Dense, FeatureKind, Schema, Scores, Text, Values
from runtime.profile.summary import Summary
from runtime.repository.manifest import ManifestError
from runtime.sketch.errors import Malformed
from runtime.types import ANY, Signature, TensorSpec

NUMBERS = ("FP16", "BF16", "FP32", "FP64", "INT8", "INT64", "UINT64", "BOOL")


def kinds(of: Schema) -> dict[str, str]:
    return {feature.name: feature.kind.value for feature in of.features}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_zoo_has_one_schema_that_json_keeps(name: str) -> None:
    signature = session_of(name).signature
    made, again = schema(signature), schema(signature)
    assert made == again
    read = Schema.from_json(made.to_json())
    assert (read, read.digest, read.size_bytes) == (made, again.digest, made.size_bytes)
    names = [feature.name for feature in made.features]
    assert len(names) == len(set(names)) > 0
    tensors = {spec.name for spec in (*signature.inputs, *signature.outputs)}
    assert {feature.tensor for feature in made.features} <= tensors


def test_columns_are_named_by_settings_before_the_graph_and_by_position_without_both() -> None:
    signature = table(("X", "FP32", 2), feature_names='["age", "income"]')
    assert list(kinds(schema(signature))) == ["age", "income"]
    assert list(kinds(schema(signature, "names: {X: [a, b]}"))) == ["a", "b"]
    assert list(kinds(schema(table(("X", "FP32", 2))))) == ["X[0]", "X[1]"]
    assert list(kinds(schema(table(("X", "FP32", 2), feature_names="age, income")))) == ["age", "income"]


@pytest.mark.parametrize("names", ['["a"]', '["a", "a"]', '["a", ""]', "[broken", "a,b,c"])
def test_names_that_do_not_fit_the_columns_are_not_taken(names: str) -> None:
    assert list(kinds(schema(table(("X", "FP32", 2), feature_names=names)))) == ["X[0]", "X[1]"]


def test_one_name_in_two_tensors_is_told_apart_by_the_tensors() -> None:
    made = schema(table(("X", "FP32", 2), ("Y", "INT64", 2)), "names: {X: [a, b], Y: [a, c]}")
    assert list(kinds(made)) == ["X.a", "b", "Y.a", "c"]


@given(st.lists(st.sampled_from(["a", "b", "X.a", "output.a", "y.norm", "prediction.margin", "p[0]"]), unique=True))
def test_names_are_each_there_once_whatever_tensors_are_called(names: list[str]) -> None:
    inputs = tuple(TensorSpec(name, "FP32", (ANY, 1), ("N", "")) for name in names)
    outputs = (*(TensorSpec(f"{name}!", "FP32", (ANY, 1)) for name in names), TensorSpec("a", "FP32", (ANY, 3)))
    outputs += (TensorSpec("p", "FP32", (ANY, 2)), TensorSpec("y", "FP32", (ANY, ANY)))
    made = schema_of(Signature(inputs, outputs), settings("scores: p"))
    found = [feature.name for feature in made.features]
    assert len(found) == len(set(found))
    tables = Summary.create(made)
    assert len(tables.histograms()) == sum(f.kind in (FeatureKind.NUMERIC, FeatureKind.DENSE) for f in made.features)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_each_datatype_of_numbers_is_numeric_and_booleans_boolean(datatype: str) -> None:
    made = schema(table(("X", datatype, 3)))
    assert set(kinds(made).values()) == {"boolean" if datatype == "BOOL" else "numeric"}


def test_texts_are_categorical_unless_settings_call_them_text_or_declare_categories() -> None:
    signature = table(("colour", "BYTES", 1), ("note", "BYTES", 1), ("size", "BYTES", 1))
    made = schema(signature, "features: {note: {kind: text}, size: {categories: [small, large]}}")
    assert [type(part) for part in made.parts] == [Values, Text, Categories]
    assert kinds(made) == {"colour": "categorical", "note": "text", "size": "categorical"}


def test_whole_numbers_among_outputs_are_labels_and_settings_say_otherwise() -> None:
    signature = table(("X", "FP32", 1), outputs=(("label", "INT64", 1), ("count", "INT32", 1)))
    made = schema(signature, "features: {count: {kind: numeric}}")
    assert kinds(made) == {"X": "numeric", "label": "categorical", "count": "numeric"}


def test_a_feature_that_is_ignored_is_not_measured() -> None:
    signature = table(("X", "FP32", 3), ("id", "BYTES", 1))
    made = schema(signature, "features: {'X[1]': {kind: ignored}, id: {kind: ignored}}")
    assert list(kinds(made)) == ["X[0]", "X[2]"]


def test_integers_with_categories_and_numbers_called_categorical_are_counted_by_value() -> None:
    made = schema(table(("X", "FP32", 3)), "features: {'X[0]': {categories: [1, 2]}, 'X[2]': {kind: categorical}}")
    assert kinds(made) == {"X[1]": "numeric", "X[0]": "categorical", "X[2]": "categorical"}


def test_bf16_bits_are_no_categories() -> None:
    made = schema(table(("X", "BF16", 2)), "features: {'X[0]': {kind: categorical}}")
    assert set(kinds(made).values()) == {"numeric"}
    assert any("BF16" in note for note in made.notes)


def test_settings_of_a_feature_that_is_not_there_are_told() -> None:
    assert schema(table(("X", "FP32", 1)), "features: {Y: {kind: text}}").notes == (
        "statistics.features.Y: the model has no feature of this name",
    )


def test_ranges_and_missing_numbers_reach_the_sketches() -> None:
    made = schema(table(("X", "FP32", 2)), "features: {'X[1]': {range: [0, null], missing: -1}}")
    (part,) = made.parts
    assert isinstance(part, Columns)
    assert part.limits == {"X[1]": (0.0, None, -1.0)}
    assert Schema.from_json(made.to_json()) == made


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_missing_number_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ManifestError):
        settings(f"features: {{X: {{missing: {value}}}}}")


def test_categories_beyond_64_bits_are_refused() -> None:
    with pytest.raises(ManifestError):
        settings(f"features: {{X: {{categories: [1, {1 << 70}]}}}}")


@pytest.mark.parametrize("name", ["probabilities", "output_probability", "scores", "softmax_1", "my/logits"])
def test_scores_are_found_by_what_exporters_call_them(name: str) -> None:
    made = schema(table(("X", "FP32", 1), outputs=((name, "FP32", 3),)))
    (scores,) = [part for part in made.parts if isinstance(part, Scores)]
    assert scores.classes == ("0", "1", "2")
    assert scores.counted  # there is no label beside them
    assert (made.prediction.tensor, made.prediction.column) == (name, -1)


def test_of_two_outputs_that_may_be_scores_settings_choose() -> None:
    signature = table(("X", "FP32", 1), outputs=(("scores", "FP32", 3), ("probabilities", "FP32", 3)))
    assert not [part for part in schema(signature).parts if isinstance(part, Scores)]
    made = schema(signature, "scores: scores")
    assert [part.tensor for part in made.parts if isinstance(part, Scores)] == ["scores"]


def test_classes_have_the_names_of_settings_then_of_the_graph() -> None:
    signature = table(("X", "FP32", 1), outputs=(("probabilities", "FP32", 2),), classes='["no", "yes"]')
    assert "probabilities[yes]" in kinds(schema(signature))
    assert "probabilities[good]" in kinds(schema(signature, "classes: [bad, good]"))
    wrong = schema(signature, "classes: [same, same]")
    assert "probabilities[1]" in kinds(wrong)
    assert wrong.notes == ("statistics.classes: expected 2 names that differ, got 2",)


def test_of_two_classes_the_second_ones_score_is_the_prediction() -> None:
    made = schema(table(("X", "FP32", 1), outputs=(("label", "INT64", 1), ("probabilities", "FP32", 2))))
    assert (made.prediction.tensor, made.prediction.column) == ("probabilities", 1)


def test_many_classes_are_measured_by_confidence_and_more_than_are_counted_not_as_scores() -> None:
    many = schema(table(("X", "FP32", 1), outputs=(("scores", "FP32", 1000),)))
    assert list(kinds(many)) == ["X", "prediction.confidence", "prediction.margin", "prediction.class"]
    more = schema(table(("X", "FP32", 1), outputs=(("scores", "FP32", 5000),)))
    assert not [part for part in more.parts if isinstance(part, Scores)]
    assert Summary.create(more).rows == 0


def test_rejection_is_a_rate() -> None:
    made = schema(table(("X", "FP32", 1), outputs=(("scores", "FP32", 3),)), "reject_below: 0.6")
    assert kinds(made)["prediction.rejected"] == "rate"


def test_images_and_inputs_of_any_width_are_summed_up() -> None:
    image = TensorSpec("image", "FP32", (ANY, 3, 8, 8), ("N", "", "", ""))
    made = schema(Signature((image, TensorSpec("tokens", "INT64", (ANY, ANY))), ()))
    assert [type(part) for part in made.parts] == [Dense, Dense]
    assert list(kinds(made))[:4] == ["image.norm", "image.mean", "image.zeros", "image.projection0"]
    assert "tokens.projection0" not in kinds(made)


def test_unnamed_columns_beyond_256_are_an_embedding_and_named_ones_are_not() -> None:
    assert len(schema(table(("X", "FP32", 256))).features) == 256
    embedding = schema(table(("X", "FP32", 257)))
    assert {feature.kind for feature in embedding.features} == {FeatureKind.DENSE}
    assert "taken for an embedding" in embedding.notes[0]
    names = json.dumps([f"c{at}" for at in range(257)])
    assert len(schema(table(("X", "FP32", 257), feature_names=names)).features) == 257


def test_of_more_columns_than_max_features_a_sample_is_measured_and_that_is_said() -> None:
    names = json.dumps([f"c{at}" for at in range(10_000)])
    made = schema(table(("X", "FP32", 10_000), outputs=(("value", "FP32", 1),), feature_names=names))
    assert len([f for f in made.features if f.kind is FeatureKind.NUMERIC and f.role == "input"]) == 256
    assert "of its 10000 columns 256, evenly spread, are measured one by one" in made.notes[0]
    assert "value" in kinds(made)


def test_a_wide_input_does_not_take_the_outputs_place() -> None:
    names = json.dumps([f"c{at}" for at in range(1024)])
    made = schema(table(("X", "FP32", 1024), outputs=(("value", "FP32", 1),), feature_names=names))
    assert kinds(made)["value"] == "numeric"
    assert made.prediction is not None


def test_an_output_that_is_an_input_is_measured_once() -> None:
    same = TensorSpec("x", "FP32", (ANY, 2))
    made = schema(Signature((same,), (same, TensorSpec("y", "FP32", (ANY, 1)))))
    assert list(kinds(made)) == ["x[0]", "x[1]", "y"]


def test_notes_do_not_change_what_is_measured() -> None:
    signature = table(("X", "FP32", 1))
    noted = schema(signature, "features: {gone: {kind: text}}")
    assert noted.notes
    assert noted.digest == schema(signature).digest


def documents() -> st.SearchStrategy[object]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


def paths(document: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found = [path] if path else []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return found + [below for key, value in items for below in paths(value, (*path, key))]


WRITTEN = schema(
    table(("X", "FP32", 3), ("t", "BYTES", 2), outputs=(("label", "INT64", 1), ("scores", "FP32", 3))),
    "features: {'X[0]': {range: [0, 1]}, 't[0]': {categories: [a, b]}, 't[1]': {kind: text}}\nreject_below: 0.5",
).to_json()


@given(st.data(), documents())
def test_a_schema_with_anything_else_in_it_is_malformed_or_can_be_used(data: st.DataObject, value: object) -> None:
    document = json.loads(WRITTEN)
    *above, last = data.draw(st.sampled_from(paths(document)))
    place = document
    for key in above:
        place = place[key]
    place[last] = value
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        read = Schema.from_json(text)
    except Malformed:
        return
    assert read.to_json() == text


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"version":1}', "[" * 100_000, '{"version":2}'])
def test_what_is_no_schema_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Schema.from_json(text)
