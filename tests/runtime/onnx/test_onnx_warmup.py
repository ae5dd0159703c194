"""Warm-up: which models may share runs, measured; and what keeps a version from taking traffic."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_models import write_bad
from support.runtime import session_of
from zoo import ZOO, Array, ZooModel, built, by_name, graph

from runtime.errors import LoadError
from runtime.onnx.dtypes import BY_NAME, DATATYPES
from runtime.onnx.session import Session
from runtime.onnx.signature import batch_axis
from runtime.onnx.warmup import COLUMNS, DEFAULT_MAX_ROWS, ROWS, SYNTHETIC, WarmUp, batch_sizes, synthesize, warm_up
from runtime.repository.manifest import SessionSettings, WarmupSettings
from runtime.types import ANY, Signature, TensorSpec

REVERSE = (
    "m ({type}[N] x) => ({type}[N] y) <int64[1] start = {{-1}}, int64[1] end = {{-2147483648}}, int64[1] axis = {{0}}, "
    "int64[1] step = {{-1}}> {{ y = Slice(x, start, end, axis, step) }}"
)


def warmed(folder: Path, model: bytes, configured: int | None = None, **settings: Any) -> WarmUp:
    return warm_up(session_of(folder, model), folder, WarmupSettings(**settings), configured)


@pytest.mark.parametrize("model", [m for m in ZOO if m.name != "slow"], ids=lambda model: model.name)
def test_a_model_is_batched_exactly_if_its_rows_are_independent(tmp_path: Path, model: ZooModel) -> None:
    found = warmed(tmp_path, built(model.name))
    assert found.max_rows == (DEFAULT_MAX_ROWS if model.batched else 0)
    signature = session_of(tmp_path, built(model.name)).signature
    if not model.batched and batch_axis(signature):
        assert found.warnings, "where the graph promises rows, it is said why they share no run"
    elif model.name != "matmul":
        assert found.warnings == ()


def test_the_largest_batch_is_timed(tmp_path: Path) -> None:
    assert warmed(tmp_path, built("mlp")).run_seconds > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fixed", "axis 0 of input 'x' [3,4] is not of any size"),
        ("scalar", "axis 0 of input 'x' [] is not of any size"),
        ("nonzero", "axis 0 of output 'where' [2,-1] is not of any size"),
        ("no_inputs", "axis 0 of output 'y' [2] is not of any size"),
        ("center_rows", "output 'y' of one row depends on the other rows of the run"),
        ("reverse_rows", "output 'y' of one row depends on the other rows of the run"),
        ("double_rows", "output 'y' does not have one entry per row"),
    ],
)
def test_a_batch_size_configured_for_a_model_that_cannot_be_batched_is_refused(
    tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(LoadError, match=re.escape(says)) as caught:
        warmed(tmp_path, built(name), configured=8)
    assert "set batching.max_batch_size to 0" in caught.value.message


@pytest.mark.parametrize("name", ["fixed", "scalar", "center_rows", "mlp", "no_inputs"])
def test_any_model_can_be_run_one_by_one(tmp_path: Path, name: str) -> None:
    assert warmed(tmp_path, built(name), configured=0).max_rows == 0


def test_a_configured_batch_size_is_taken(tmp_path: Path) -> None:
    assert warmed(tmp_path, built("mlp"), configured=5).max_rows == 5


@pytest.mark.parametrize("onnx_type", ["float", "double", "float16", "int8", "int64", "uint8", "bool", "string"])
def test_rows_in_the_wrong_places_are_noticed_in_every_type(tmp_path: Path, onnx_type: str) -> None:
    """A single column of coins, where three rows drawn at random would often read the same from behind."""
    found = warmed(tmp_path, graph(REVERSE.format(type=onnx_type))())
    assert found == WarmUp(0, found.run_seconds, (
        "requests are run one by one: output 'y' of one row depends on the other rows of the run",
    ))  # fmt: skip


def test_ids_of_a_table_of_two_entries_are_found(tmp_path: Path) -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    model = graph("m (int64[N] ids) => (float[N,2] y) { y = Gather(table, ids) }", table=table)()
    found = warmed(tmp_path, model)
    assert (found.max_rows, found.warnings) == (DEFAULT_MAX_ROWS, ())


def test_a_model_that_refuses_every_made_up_input_is_served_unbatched_with_a_warning(tmp_path: Path) -> None:
    write_bad(tmp_path, "always_fails", model="m")
    folder = tmp_path / "m" / "1"
    found = warm_up(Session(folder / "model.onnx", SessionSettings()), folder, WarmupSettings(), None)
    (warning,) = found.warnings
    assert warning.startswith("not warmed up: the model refused every synthesized input (")
    assert warning.endswith("put real rows into warmup.npz beside the model")
    assert (found.max_rows, found.run_seconds) == (0, 0.0)


def test_warm_up_can_be_off_and_says_what_that_costs(tmp_path: Path) -> None:
    assert warmed(tmp_path, built("mlp"), enabled=False) == WarmUp(
        0, 0.0, ("warm-up is off: the first requests pay for it, and batching needs it",)
    )


def test_a_warm_up_that_does_not_end_is_stopped_and_refused(tmp_path: Path) -> None:
    write_bad(tmp_path, "endless", model="m")
    folder = tmp_path / "m" / "1"
    session = Session(folder / "model.onnx", SessionSettings())
    with pytest.raises(LoadError, match=r"stopped after 1 s \(warmup.limit_seconds\): the model may loop without end"):
        warm_up(session, folder, WarmupSettings(limit_seconds=1.0), None)


FILES: dict[str, tuple[str, dict[str, Array]]] = {
    "rows": ("gather", {"ids": np.array([5, 6, 7], np.int64)}),
    "one row": ("gather", {"ids": np.array([5], np.int64)}),
    "text": ("strings", {"a": np.array(["x", "y"]), "b": np.array(["z", "é"])}),
    "bytes": ("label_encoder", {"x": np.array([[b"a"], [b"b"], [b"c"]])}),
    "no batch axis": ("matmul", {"x": np.ones((2, 3), np.float32), "y": np.ones((3, 4), np.float32)}),
}


@pytest.mark.parametrize("case", FILES)
def test_real_rows_of_a_file_are_used(tmp_path: Path, case: str) -> None:
    name, arrays = FILES[case]
    np.savez(tmp_path / "warmup.npz", **arrays)  # type: ignore[arg-type]  # numpy's own keyword is not meant
    found = warmed(tmp_path, built(name))
    assert bool(found.max_rows) is by_name[name].batched
    assert found.run_seconds > 0
    assert not [warning for warning in found.warnings if "not warmed up" in warning]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_rows_of_a_file_that_are_all_alike_prove_nothing(tmp_path: Path, rows: int) -> None:
    """Its mean subtracted, each of equal rows answers the same alone and together: other rows must tell."""
    np.savez(tmp_path / "warmup.npz", x=np.ones((rows, 2), np.float32))
    found = warmed(tmp_path, built("center_rows"))
    assert (found.max_rows, len(found.warnings)) == (0, 1)


def test_where_no_rows_that_differ_are_accepted_nothing_is_batched_unless_configured(tmp_path: Path) -> None:
    """Only id 0 is known, so whether rows influence each other cannot be seen."""
    one = graph("m (int64[N] ids) => (float[N,2] y) { y = Gather(table, ids) }", table=np.ones((1, 2), np.float32))()
    found = warmed(tmp_path, one)
    assert (found.max_rows, len(found.warnings)) == (0, 1)
    assert "put three different rows into warmup.npz beside the model; until then" in found.warnings[0]
    assert warmed(tmp_path, one, configured=4).max_rows == 4


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": np.ones(1)}, ["'z' is not an input of the model", "no array for input 'x'"]),
        ({"x": np.ones((2, 4))}, ["input 'x': expected FP32 [-1,4], got float64 [2,4]"]),
        ({"x": np.ones((2, 5), np.float32)}, ["input 'x': expected FP32 [-1,4], got float32 [2,5]"]),
        ({"x": np.ones(4, np.float32)}, ["input 'x': expected FP32 [-1,4], got float32 [4]"]),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_everything_that_is_wrong(
    tmp_path: Path, arrays: dict[str, Array], says: list[str]
) -> None:
    np.savez(tmp_path / "warmup.npz", **arrays)  # type: ignore[arg-type]  # numpy's own keyword is not meant
    with pytest.raises(LoadError, match="does not fit the model") as caught:
        warmed(tmp_path, built("mlp"))
    assert all(each in caught.value.message for each in says)


def test_a_file_of_rows_that_the_model_fails_on_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "warmup.npz", ids=np.array([99], np.int64))
    with pytest.raises(LoadError, match=r"the model fails in warm-up: .*idx=99"):
        warmed(tmp_path, built("gather"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"\x93NUMPY"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "warmup.npz").write_bytes(content)
    with pytest.raises(LoadError, match=r"warmup\.npz is not a readable \.npz file"):
        warmed(tmp_path, built("mlp"))


def test_a_pickle_in_a_file_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "warmup.npz", x=np.array([{"any": "object"}], object))
    with pytest.raises(LoadError, match="allow_pickle"):
        warmed(tmp_path, built("mlp"))


@pytest.mark.parametrize(
    ("max_rows", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_warm_up_runs_powers_of_two_and_the_largest_batch(max_rows: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(max_rows) == sizes


@pytest.mark.parametrize("kind", SYNTHETIC)
@pytest.mark.parametrize("datatype", [d.name for d in DATATYPES])
def test_made_up_inputs_have_the_datatype_and_the_open_axes_their_sizes(datatype: str, kind: str) -> None:
    specs = (
        TensorSpec("a", datatype, (ANY, 2, ANY), ("N", "", "T")),
        TensorSpec("b", datatype, (ANY, ANY), ("N", "N")),
    )
    made = synthesize(Signature(specs, (TensorSpec("y", "FP32", (ANY,)),)), ROWS, 5, kind)
    assert {name: (a.shape, a.dtype) for name, a in made.items()} == {
        "a": ((ROWS, 2, 5), BY_NAME[datatype].numpy),
        "b": ((ROWS, ROWS), BY_NAME[datatype].numpy),
    }
    differ = [a[0].tolist() != a[-1].tolist() for a in made.values()]
    assert differ == [kind in ("random", "bits")] * 2
    if datatype == "BYTES":
        assert all(isinstance(element, str) for element in made["a"].ravel())


def test_columns_show_sorting_and_reversing_also_where_only_bits_are_left() -> None:
    for column in COLUMNS:
        bits = [min(value, 1) for value in column]
        assert list(column) not in (sorted(column), list(column[::-1]))
        assert bits != bits[::-1]
