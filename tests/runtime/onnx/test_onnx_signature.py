"""What a graph takes and gives, and why some graphs cannot be served."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bad_models import write_bad
from support.runtime import session_of
from zoo import Array, built, graph

from runtime.errors import LoadError
from runtime.onnx.session import Session
from runtime.onnx.signature import batch_axis, read_signature, show_shape
from runtime.repository.manifest import SessionSettings
from runtime.types import ANY, Signature, TensorSpec


def arg(name: str, onnx_type: str, *shape: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=onnx_type, shape=list(shape))


def test_axes_keep_their_names_and_anything_but_a_size_is_any() -> None:
    inputs = [arg("a", "tensor(float)", "N", 3, None, -1), arg("b", "tensor(string)")]
    outputs = [arg("y", "tensor(int64)", 0)]
    assert read_signature(inputs, outputs, {"k": "v"}) == Signature(
        (TensorSpec("a", "FP32", (ANY, 3, ANY, ANY), ("N", "", "", "")), TensorSpec("b", "BYTES", ())),
        (TensorSpec("y", "INT64", (0,), ("",)),),
        {"k": "v"},
    )


def test_metadata_of_the_graph_is_read(tmp_path: Path) -> None:
    session = session_of(tmp_path, built("default_input"))
    assert [spec.name for spec in session.signature.inputs] == ["x"], "what has a default need not be sent"
    assert session.signature.metadata == {}


def test_every_tensor_that_cannot_be_served_is_named_at_once_with_its_remedy() -> None:
    inputs = [arg("odd", "tensor(complex64)", 1), arg("fine", "tensor(float)", 1)]
    outputs = [
        arg("probabilities", "seq(map(int64,tensor(float)))"),
        arg("parts", "seq(tensor(float))"),
        arg("maybe", "optional(tensor(float))"),
    ]
    with pytest.raises(LoadError) as caught:
        read_signature(inputs, outputs, {})
    problems = caught.value.message.removeprefix("the model cannot be served over the protocol: ").split("; ")
    assert problems[0] == "input 'odd' is tensor(complex64)"
    assert "add a Cast to the graph" in problems[1]
    assert "options={'zipmap': False}" in caught.value.message
    assert caught.value.message.count("ConcatFromSequence") == 2
    assert "'fine'" not in caught.value.message


def test_a_graph_without_outputs_has_nothing_to_answer() -> None:
    with pytest.raises(LoadError, match="the graph has no outputs"):
        read_signature([arg("x", "tensor(float)", 1)], [], {})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("zipmap", "export scikit-learn classifiers without ZipMap"),
        ("sequence_output", "end the graph in tensors"),
        ("optional_output", "end the graph in tensors"),
        ("float8", "add a Cast to the graph"),
        ("no_outputs", "no outputs"),
    ],
)
def test_real_models_outside_the_protocol_are_refused_at_load(tmp_path: Path, name: str, says: str) -> None:
    folder = write_bad(tmp_path, name)
    with pytest.raises(LoadError) as caught:
        Session(folder / "model.onnx", SessionSettings())
    assert says in caught.value.message
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m (float[N,2] x) => (float[N] y) { y = ReduceMax<keepdims = 0>(x, a) }", True),
        ("m (float[3,2] x) => (float[N] y) { y = ReduceMax<keepdims = 0>(x, a) }", False),
        ("m (float[N,2] x, float s) => (float[N,2] y) { y = Mul(x, s) }", False),
        ("m (float[N,2] x) => (float y) { y = ReduceMax<keepdims = 0>(x) }", False),
        ("m () => (float[N] y) { y = Identity(c) }", False),
    ],
)
def test_rows_need_an_open_first_axis_on_every_input_and_output(tmp_path: Path, text: str, *, expected: bool) -> None:
    weights: dict[str, Array] = {"a": np.array([1], np.int64), "c": np.ones(2, np.float32)}
    build = graph(text, **{name: array for name, array in weights.items() if f"{name})" in text})  # type: ignore[arg-type]  # none is called opset
    assert batch_axis(session_of(tmp_path, build()).signature) is expected


def test_shapes_are_shown_as_users_write_them() -> None:
    assert [show_shape(shape) for shape in ((), (3,), (ANY, 30))] == ["[]", "[3]", "[-1,30]"]
