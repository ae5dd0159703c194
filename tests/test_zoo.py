"""The zoo is what it says: its models load, answer, and may be merged exactly where they claim it."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import zoo
from bad_models import BAD, BadModel, Fault, bad_by_name, write_bad
from numpy.testing import assert_allclose, assert_array_equal
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from zoo import ZOO, Array, Tensors, ZooModel, built, by_name, reference, session, slow, weights

each_model = pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
REFUSALS = tuple(
    getattr(ort_errors, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def alike(got: Array, want: Array) -> bool:
    """Same shape and values; floats to 1e-5, since the order of additions depends on the number of rows."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if want.dtype.kind in "fV":
        return bool(np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=1e-5, atol=1e-6))
    return bool((got == want).all())


def merging_is_safe(model: ZooModel) -> bool:
    """Whether 5 rows at once give what 2 and 3 of them give alone, laid end to end."""
    run = session(built(model.name))
    feeds = model.feeds(rng(), 5)
    if any(array.ndim == 0 for array in feeds.values()):
        return False
    together = reference(run, feeds)
    try:
        parts = [reference(run, {name: x[cut] for name, x in feeds.items()}) for cut in (slice(2), slice(2, None))]
    except (ort_errors.Fail, ort_errors.InvalidArgument):
        return False
    return all(
        all(part[name].shape[1:] == whole.shape[1:] for part in parts)
        and alike(np.concatenate([part[name] for part in parts]), whole)
        for name, whole in together.items()
    )


@each_model
def test_a_model_builds_to_the_same_small_bytes_every_time(model: ZooModel) -> None:
    data = model.build()
    assert data == model.build()
    assert len(data) < 2**20


@each_model
def test_a_model_is_of_an_ir_and_opset_that_supported_runtimes_read(model: ZooModel) -> None:
    proto = onnx.load_from_string(built(model.name))
    # The checker wants a shape of every input; ONNX Runtime and some exporters do not.
    if model.name != "unknown_rank":
        onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version <= 10
    assert {entry.version for entry in proto.opset_import if entry.domain == ""} <= {17, 18, 19, 20}


@pytest.mark.parametrize("rows", [1, 3])
@each_model
def test_a_model_answers_its_feeds_with_the_types_and_shapes_it_declares(model: ZooModel, rows: int) -> None:
    run = session(built(model.name))
    answer = reference(run, model.feeds(rng(), rows))
    assert list(answer) == [out.name for out in run.get_outputs()]
    for out in run.get_outputs():
        array, dtype = answer[out.name], out.type.removeprefix("tensor(").removesuffix(")")
        assert array.dtype == {
            "float": np.float32,
            "double": np.float64,
            "string": np.object_,
            "bfloat16": ml_dtypes.bfloat16,
        }.get(dtype, dtype)
        if model.name != "unknown_rank":
            assert len(out.shape) == array.ndim
            assert all(size == real for size, real in zip(out.shape, array.shape, strict=True) if isinstance(size, int))
        if array.dtype.kind == "f":
            assert np.isfinite(array).all()


@each_model
def test_feeds_name_exactly_the_inputs_that_must_be_sent(model: ZooModel) -> None:
    assert set(model.feeds(rng(), 2)) == {value.name for value in session(built(model.name)).get_inputs()}


@each_model
def test_feeds_follow_the_seed(model: ZooModel) -> None:
    first, again = model.feeds(rng(), 3), model.feeds(rng(), 3)
    for name, array in first.items():
        assert_array_equal(array, again[name])


@each_model
def test_rows_run_together_give_what_they_give_alone_exactly_where_a_model_is_batched(model: ZooModel) -> None:
    assert merging_is_safe(model) is model.batched


def test_the_zoo_has_unique_names_and_both_kinds_of_model() -> None:
    assert len(by_name) == len(ZOO) >= 16
    assert {model.batched for model in ZOO} == {True, False}


def test_the_zoo_takes_every_type_that_the_runtime_and_the_protocol_share() -> None:
    taken = {value.type for model in ZOO for value in session(built(model.name)).get_inputs()}
    names = (*zoo.INTEGERS, "bool", "float16", "bfloat16", "float", "double", "string")
    assert taken == {f"tensor({name})" for name in names}


@pytest.mark.parametrize("name", ["mlp", "rows_or_none", "strings", "integers"])
def test_a_batched_model_answers_no_rows_with_no_rows(name: str) -> None:
    answer = reference(session(built(name)), by_name[name].feeds(rng(), 0))
    assert {array.shape[0] for array in answer.values()} == {0}


def test_known_answers() -> None:
    """A few by hand, so that the oracle itself has an oracle."""
    cases: list[tuple[str, Tensors, Tensors]] = [
        (
            "strings",
            {"a": np.array(["é", ""], object), "b": np.array(["\0", "z"], object)},
            {"same": np.array(["é", ""], object), "joined": np.array(["é\0", "z"], object)},
        ),
        ("label_encoder", {"x": np.array([["b"], ["?"]], object)}, {"y": np.array([[20], [-1]])}),
        ("unique", {"x": np.array([5, 3, 5])}, {"values": np.array([3, 5]), "counts": np.array([1, 2])}),
        ("scalar", {"x": np.array(3, np.float32), "n": np.array(2)}, {"y": np.array(9), "m": np.array(2)}),
        (
            "bfloat16",
            {"x": np.array([[1.5, -2, 0, 3]], ml_dtypes.bfloat16)},
            {
                "same": np.array([[1.5, -2, 0, 3]]),
                "wide": np.array([[1.5, -2, 0, 3]]),
                "square": np.array([[2.25, 4, 0, 9]]),
            },
        ),
        ("default_input", {"x": np.zeros((1, 2), np.float32)}, {"y": np.array([[10, 20]])}),
        (
            "default_input",
            {"x": np.zeros((1, 2), np.float32), "bias": np.array([1, 2], np.float32)},
            {"y": np.array([[1, 2]])},
        ),
    ]
    for name, feeds, want in cases:
        got = reference(session(built(name)), feeds)
        assert got.keys() == want.keys()
        for output, array in want.items():
            assert_array_equal(got[output], array)


def test_outputs_may_be_chosen() -> None:
    answer = reference(session(built("three_outputs")), {"x": np.ones((1, 2), np.float32)}, ["best", "negative"])
    assert list(answer) == ["best", "negative"]


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_slow_takes_as_many_steps_as_it_is_told(steps: int) -> None:
    x = rng().standard_normal((3, 64), np.float32)
    expected = x
    for _ in range(steps):
        expected = np.tanh(expected @ (weights(64, 64) / 32) + x)
    assert_allclose(reference(session(slow(steps)), {"x": x})["y"], expected, rtol=1e-4, atol=1e-6)


def test_gather_fails_on_unknown_ids_only() -> None:
    gather = by_name["gather"]
    assert gather.failing
    assert [model.name for model in ZOO if model.failing] == ["gather"]
    run = session(built("gather"))
    with pytest.raises(ort_errors.InvalidArgument, match="indices element out of data bounds"):
        reference(run, gather.failing(rng(), 3))
    reference(run, gather.feeds(rng(), 3))


@pytest.mark.parametrize("k", [0.0, 2.0, -7.5, 1e9])
def test_a_version_adds_its_own_number(k: float, tmp_path: Path) -> None:
    x = np.array([[-3.0, 0, 0.5, 9e6]], dtype=np.float32)
    external = zoo.write_external(tmp_path, k)
    for model in (zoo.versioned(k), zoo.versioned_big(k, 1), external / "model.onnx"):
        assert_allclose(reference(session(model), {"x": x})["y"], x + np.float32(k), rtol=0)


def test_a_big_version_is_as_big_as_asked_and_reads_its_whole_table() -> None:
    model = zoo.versioned_big(1.0, 3)
    assert 3 * 2**20 < len(model) < 3 * 2**20 + 1024
    proto = onnx.load_from_string(model)
    (table,) = (tensor for tensor in proto.graph.initializer if tensor.name == "table")
    entries = np.arange(3 * 2**18, dtype=np.float32)
    table.CopyFrom(onnx.numpy_helper.from_array(entries, "table"))
    x = np.array([[0, 1, 2, 3 * 2**18 - 1]], dtype=np.float32)
    assert_array_equal(reference(session(proto.SerializeToString()), {"x": x})["y"], 2 * x)


def test_a_repository_holds_every_named_version(tmp_path: Path) -> None:
    assert zoo.write_repository(tmp_path, ["mlp", "gather"], versions=(1, 10)) == tmp_path
    files = {file.relative_to(tmp_path).as_posix(): file for file in tmp_path.rglob("*") if file.is_file()}
    assert set(files) == {f"{name}/{version}/model.onnx" for name in ("mlp", "gather") for version in (1, 10)}
    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()}
    assert len(digests) == 2


def test_a_repository_is_the_whole_zoo_unless_names_are_given(tmp_path: Path) -> None:
    zoo.write_repository(tmp_path)
    assert {file.parent.parent.name for file in tmp_path.rglob("model.onnx")} == set(by_name)


def faulty(fault: Fault) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bad", [bad for bad in BAD if bad.fault is fault], ids=lambda bad: bad.name)


def rows_for(run: ort.InferenceSession) -> Tensors:
    (value,) = run.get_inputs()
    return {value.name: np.ones((1, 4)[: len(value.shape)], dtype=np.float32)}


@faulty(Fault.LOAD)
def test_a_broken_artifact_is_refused_with_its_own_reason(bad: BadModel, tmp_path: Path) -> None:
    folder = write_bad(tmp_path, bad.name)
    with pytest.raises(REFUSALS) as refusal:
        session(folder / "model.onnx")
    assert bad.says
    assert bad.says in str(refusal.value)


@faulty(Fault.SIGNATURE)
def test_an_unservable_signature_loads_all_the_same(bad: BadModel, tmp_path: Path) -> None:
    run = session(write_bad(tmp_path, bad.name) / "model.onnx")
    servable = {value.type for model in ZOO for value in session(built(model.name)).get_inputs()}
    outputs = [value.type for value in run.get_outputs()]
    assert not outputs or not servable.issuperset(outputs)


@faulty(Fault.RUN)
def test_a_model_that_always_fails_loads_and_fails(bad: BadModel, tmp_path: Path) -> None:
    run = session(write_bad(tmp_path, bad.name) / "model.onnx")
    with pytest.raises(ort_errors.Fail) as failure:
        reference(run, rows_for(run))
    assert bad.says
    assert bad.says in str(failure.value)


@faulty(Fault.ENDLESS)
def test_an_endless_model_runs_until_it_is_told_to_stop(bad: BadModel, tmp_path: Path) -> None:
    run = session(write_bad(tmp_path, bad.name) / "model.onnx")
    options = ort.RunOptions()
    stop = threading.Timer(0.05, setattr, (options, "terminate", True))
    stop.start()
    with pytest.raises(ort_errors.Fail, match="terminate flag"):
        run.run(None, rows_for(run), options)
    # The run ended because of the timer, not before it.
    stop.join(timeout=0)
    assert stop.finished.is_set()


def test_a_bad_model_may_be_written_as_a_version_of_another(tmp_path: Path) -> None:
    folder = write_bad(tmp_path, "truncated", 7, model="mlp")
    assert folder == tmp_path / "mlp" / "7"
    assert len(bad_by_name) == len(BAD)
    whole = built("mlp")
    assert (folder / "model.onnx").read_bytes() == whole[: len(whole) // 2]
