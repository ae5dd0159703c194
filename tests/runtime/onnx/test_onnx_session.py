"""Sessions: every model of the zoo answers as ONNX Runtime itself does, and nothing of ONNX Runtime's gets out."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from bad_models import BAD, BadModel, Fault, write_bad
from support.runtime import session_of
from zoo import ZOO, ZooModel, built, reference, versioned, write_external
from zoo import session as reference_session

from runtime.errors import LoadError, RunError
from runtime.malloc import trim_memory
from runtime.onnx.dtypes import BY_NAME
from runtime.onnx.session import RunStop, Session
from runtime.repository.manifest import SessionSettings

REFUSED = [bad for bad in BAD if bad.fault is Fault.LOAD]


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
@pytest.mark.parametrize("rows", [1, 4])
def test_answers_are_those_of_onnx_runtime_bit_for_bit(tmp_path: Path, model: ZooModel, rows: int) -> None:
    session = session_of(tmp_path, built(model.name))
    feeds = model.feeds(np.random.default_rng(rows), rows)
    bits = {name: a.view(np.uint16) if a.dtype.name == "bfloat16" else a for name, a in feeds.items()}
    expected = reference(reference_session(built(model.name)), feeds)
    answers = session.run(bits)
    assert [spec.name for spec in session.signature.outputs] == list(expected)
    for spec, answer in zip(session.signature.outputs, answers, strict=True):
        want = expected[spec.name]
        want = want.view(np.uint16) if want.dtype.name == "bfloat16" else want
        assert (answer.dtype, answer.shape) == (BY_NAME[spec.datatype].numpy, want.shape)
        np.testing.assert_array_equal(answer, want)


@pytest.mark.parametrize("name", ["three_outputs", "bfloat16"])
def test_outputs_come_as_selected(tmp_path: Path, name: str) -> None:
    session = session_of(tmp_path, built(name))
    (spec,) = session.signature.inputs
    x = np.ones((2, spec.shape[1]), BY_NAME[spec.datatype].numpy)
    whole = session.run({"x": x})
    names = [output.name for output in session.signature.outputs]
    for index, one in enumerate(names):
        np.testing.assert_array_equal(session.run({"x": x}, [one])[0], whole[index])
    np.testing.assert_array_equal(session.run({"x": x}, names[::-1])[0], whole[-1])


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    folder = write_external(tmp_path / "1", 2.5)
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(Session(folder / "model.onnx", SessionSettings()).run({"x": x})[0], x + 2.5)


@pytest.mark.parametrize("bad", REFUSED, ids=lambda bad: bad.name)
def test_a_file_that_cannot_be_loaded_is_a_load_error_without_a_path(tmp_path: Path, bad: BadModel) -> None:
    folder = write_bad(tmp_path, bad.name)
    with pytest.raises(LoadError) as caught:
        Session(folder / "model.onnx", SessionSettings())
    assert bad.says in caught.value.detail
    assert "model.onnx" in caught.value.message
    for private in (str(tmp_path), "/onnxruntime_src/"):
        assert private not in caught.value.message


@pytest.mark.parametrize(
    ("name", "hint"), [("locale", "the package locales-all"), ("future_opset", "upgrade onnxruntime")]
)
def test_a_load_error_says_what_to_do(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(LoadError, match=hint):
        Session(write_bad(tmp_path, name) / "model.onnx", SessionSettings())


def test_a_run_that_fails_is_a_run_error_whose_detail_is_not_its_message(tmp_path: Path) -> None:
    session = session_of(tmp_path, built("gather"))
    with pytest.raises(RunError) as caught:
        session.run({"ids": np.array([99], np.int64)})
    assert (caught.value.message, "idx=99" in caught.value.detail) == ("model failed", True)


def test_an_endless_run_ends_when_it_is_stopped(tmp_path: Path) -> None:
    session = Session(write_bad(tmp_path, "endless") / "model.onnx", SessionSettings())
    stop = RunStop()
    timer = stop.after(0.05)
    with pytest.raises(RunError):
        session.run({"x": np.ones(1, np.float32)}, None, stop)
    timer.join()


def test_one_session_runs_on_several_threads_at_once(tmp_path: Path) -> None:
    session = session_of(tmp_path, versioned(1.0))
    wrong: list[int] = []

    def run(value: int) -> None:
        x = np.full((2, 4), value, np.float32)
        wrong.extend(value for _ in range(200) if not np.array_equal(session.run({"x": x})[0], x + 1))

    threads = [threading.Thread(target=run, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_provider_that_is_not_there_is_reported_or_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(versioned(1.0))
    both = SessionSettings.model_validate(
        {"execution_providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"]}
    )
    session = Session(tmp_path / "model.onnx", both)
    assert session.execution_providers == ("CPUExecutionProvider",)
    assert session.warnings == (
        "execution provider TensorrtExecutionProvider was asked for but is not in use; running on CPUExecutionProvider",
    )
    absent = SessionSettings.model_validate({"execution_providers": ["NoSuchProvider"]})
    with pytest.raises(LoadError, match="none of the execution providers NoSuchProvider is in this build"):
        Session(tmp_path / "model.onnx", absent)


def test_every_setting_is_taken_by_onnx_runtime(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(versioned(1.0))
    x = np.ones((1, 4), np.float32)
    for settings in (
        SessionSettings(intra_op_threads=2, inter_op_threads=2, execution="parallel", spinning=True),
        SessionSettings(graph_optimization="disabled", memory_arena=False),
        SessionSettings(graph_optimization="basic", config={"session.set_denormal_as_zero": "1"}),
        SessionSettings(graph_optimization="extended"),
    ):
        np.testing.assert_array_equal(Session(tmp_path / "model.onnx", settings).run({"x": x})[0], x + 1)


def test_memory_can_be_given_back_at_any_time() -> None:
    trim_memory()
