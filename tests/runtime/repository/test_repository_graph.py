"""The walk over an ONNX graph's bytes: it finds external data everywhere, and never trusts a length."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from repository_models import save_external, small_model

from runtime.errors import IncompleteVersion
from runtime.repository import graph
from runtime.repository.graph import ExternalFile, external_files, external_files_of

MODEL = small_model().SerializeToString()


def test_the_table_of_holders_is_onnx_own():
    """Every field of these messages that leads to a tensor or to one of them is in the table, under its number."""
    reach: dict[str, dict[int, str]] = {}
    for name in graph.HOLDERS:
        fields = getattr(onnx, name).DESCRIPTOR.fields
        reach[name] = {
            field.number: field.message_type.name
            for field in fields
            if field.message_type is not None and field.message_type.name in {*graph.HOLDERS, "TensorProto"}
        }
    assert reach == graph.HOLDERS


def test_a_model_with_its_tensors_inside_needs_no_file():
    assert external_files(MODEL, "model.onnx") == ()


def test_external_tensors_of_graph_branches_and_attributes_are_found(tmp_path):
    """The file must reach to the end of the tensor that lies last in it."""
    save_external(tmp_path, small_model(), "data/weights.bin")
    (found,) = external_files_of(tmp_path / "model.onnx", "model.onnx")
    size_bytes = (tmp_path / "data" / "weights.bin").stat().st_size
    assert found.location == "data/weights.bin"
    assert size_bytes - 4096 < found.needed_bytes <= size_bytes
    assert found.needed_bytes >= 3 * 16


@pytest.mark.parametrize("holder", ["branch", "attribute", "function", "sparse"])
def test_external_data_is_found_wherever_a_tensor_can_stand(holder):
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "far.bin", "offset": "64", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    model = small_model()
    if holder == "branch":
        model.graph.node[1].attribute[0].g.initializer.append(tensor)
    elif holder == "attribute":
        model.graph.node[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    elif holder == "function":
        function = model.functions.add(name="f", domain="d")
        function.node.add(op_type="Constant").attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    else:
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    assert external_files(model.SerializeToString(), "m") == (ExternalFile("far.bin", 80, "far"),)


def test_external_data_of_a_tensor_that_is_not_external_does_not_count():
    """Exporters leave the entries behind when they bring a tensor back into the file."""
    model = small_model()
    model.graph.initializer[0].external_data.add(key="location", value="gone.bin")
    assert external_files(model.SerializeToString(), "m") == ()


def test_the_furthest_tensor_decides_how_long_a_file_must_be():
    model = small_model()
    for index, (offset, length) in enumerate([(0, 10), (100, 5), (50, 20)]):
        tensor = model.graph.initializer.add(name=f"t{index}", data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="w.bin")
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value=str(length))
    assert external_files(model.SerializeToString(), "m") == (ExternalFile("w.bin", 105, "t1"),)


@pytest.mark.parametrize("text", ["-1", "1e3", "0x10", "", "9" * 20, "٣"])
def test_an_offset_that_is_no_number_of_bytes_is_refused(text):
    model = small_model()
    tensor = model.graph.initializer.add(name="t", data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    tensor.external_data.add(key="offset", value=text)
    with pytest.raises(IncompleteVersion, match="offset"):
        external_files(model.SerializeToString(), "m")


@pytest.mark.parametrize("end", range(len(MODEL)))
def test_a_model_cut_short_anywhere_is_incomplete(end):
    with pytest.raises(IncompleteVersion, match=r"truncated|not a whole ONNX model"):
        external_files(MODEL[:end], "model.onnx")


def test_a_truncated_model_says_where_and_how_much_is_missing():
    model = helper.make_model(
        helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.zeros(1000, np.float32), "w")]), ir_version=10
    ).SerializeToString()
    with pytest.raises(
        IncompleteVersion, match=r"model\.onnx is truncated: field at byte \d+ claims \d+ bytes, \d+ are"
    ):
        external_files(model[:500], "model.onnx")


def test_a_length_beyond_any_file_is_refused_without_reading_it():
    with pytest.raises(IncompleteVersion, match=rf"claims {2**63 - 1} bytes, 0 are left"):
        external_files(b"\x3a" + b"\xff" * 8 + b"\x7f", "m")


def test_an_empty_file_is_no_model(tmp_path):
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(IncompleteVersion, match="holds no graph"):
        external_files_of(tmp_path / "m", "m")


def test_nesting_is_bounded():
    """Subgraphs within subgraphs would otherwise grow the walk's stack with the file."""
    inner = b""
    for _ in range(200):
        for tag in (0x32, 0x2A, 0x0A):  # attribute.g, node.attribute, graph.node
            inner = bytes([tag]) + _length(inner) + inner
    with pytest.raises(IncompleteVersion, match="nest deeper"):
        external_files(b"\x3a" + _length(inner) + inner, "m")


@pytest.fixture
def fields(monkeypatch):
    """Where the fields begin that a walk reads."""
    read, positions = graph._Walk._field, []

    def field(walk, position, end):
        positions.append(position)
        return read(walk, position, end)

    monkeypatch.setattr(graph._Walk, "_field", field)
    return positions


def test_a_large_table_of_strings_is_stepped_over(fields):
    """Its strings are one field each: a walk over two million of them would take seconds."""
    words = helper.make_tensor("words", TensorProto.STRING, [2_000_000], [b"word"] * 2_000_000)
    model = helper.make_model(helper.make_graph([], "g", [], [], [words]), ir_version=10).SerializeToString()
    assert external_files(model, "m") == ()
    assert len(fields) < 20


def test_the_lists_of_a_large_tree_ensemble_are_stepped_over(fields):
    """Their integers are one field each: a walk into two million of them would take seconds."""
    node = helper.make_node("TreeEnsembleClassifier", ["x"], ["y"], domain="ai.onnx.ml", nodes_treeids=[1] * 2_000_000)
    model = helper.make_model(helper.make_graph([node], "g", [], []), ir_version=10).SerializeToString()
    assert external_files(model, "m") == ()
    assert len(fields) < 20


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_either_a_model_or_incomplete(data):
    _walk(data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_model_with_bytes_changed_is_either_a_model_or_incomplete(data):
    changed = bytearray(MODEL)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(MODEL) - 1))] = data.draw(st.integers(0, 255))
    _walk(bytes(changed))


def _walk(data: bytes) -> None:
    try:
        found = external_files(data, "m")
    except IncompleteVersion as error:
        assert error.message.startswith("m is ")  # noqa: PT017 - either outcome is right
    else:
        assert all(isinstance(file, ExternalFile) for file in found)


def _length(data: bytes) -> bytes:
    size, encoded = len(data), b""
    while size >= 0x80:
        encoded += bytes([size & 0x7F | 0x80])
        size >>= 7
    return encoded + bytes([size])
