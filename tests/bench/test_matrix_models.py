"""The matrix's models answer what scikit-learn and numpy say, and its requests know their answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.matrix import networks, tables
from bench.matrix.sections import FEATURE_COUNTS, MODELS
from bench.matrix.subject import Subject
from bench.matrix.workload import feeds_of, session_of, workload, write
from bench.tensors import decoded, encoded
from gateway.wire.pb.inference import grpc_service_pb2 as pb

KINDS: dict[str, Callable[[], Subject]] = {make.__name__: make for make in MODELS}


def subject(name: str) -> Subject:
    return KINDS[name]()


def replied(model: Subject, request: bytes) -> bytes:
    """As a server would."""
    session = session_of(model.graph)
    names = [output.name for output in session.get_outputs()]
    response = pb.ModelInferResponse(model_name=model.name)
    for name, value in zip(names, session.run(names, feeds_of(request)), strict=True):
        datatype = "FP32" if value.dtype == np.float32 else "INT64"
        response.outputs.add(name=name, datatype=datatype, shape=value.shape)
        response.raw_output_contents.append(encoded(value))
    return response.SerializeToString()


@pytest.mark.parametrize("name", KINDS)
def test_a_model_answers_what_another_library_says(name: str) -> None:
    model = subject(name)
    count = len(next(iter(model.truth.values())))
    session = session_of(model.graph)
    names = [output.name for output in session.get_outputs()]

    answers = dict(zip(names, session.run(names, model.take(0, count)), strict=True))

    assert answers.keys() == model.truth.keys()
    for key, truth in model.truth.items():
        np.testing.assert_allclose(answers[key], truth, rtol=1e-4, atol=1e-5)


def test_a_wide_model_has_so_many_features() -> None:
    model = tables.wide(FEATURE_COUNTS[1])

    assert model.rows["X"].shape[1] == 1_000
    session = session_of(model.graph)
    np.testing.assert_array_equal(session.run(["label"], model.rows)[0], model.truth["label"])


def test_the_images_are_as_large_as_is_claimed() -> None:
    model = subject("images")

    assert model.rows["images"].shape[1:] == (3, 224, 224)
    assert 8e6 < len(model.graph) < 12e6
    assert len(workload(model, 32).requests[0]) == pytest.approx(32 * 3 * 224 * 224 * 4, rel=1e-3)


def test_an_embedding_has_384_floats_and_length_one() -> None:
    truth = subject("embedding").truth["embedding"]

    assert truth.shape[1] == 384
    np.testing.assert_allclose(np.linalg.norm(truth, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "strings", "embedding"])
@pytest.mark.parametrize("rows", [1, 32])
def test_requests_differ_and_each_knows_its_answer(name: str, rows: int) -> None:
    model = subject(name)
    pool = workload(model, rows)

    assert len(set(pool.requests)) > 1
    for index in (0, 1, len(pool.requests) - 1):
        assert pool.objection(index, replied(model, pool.requests[index])) is None


@pytest.mark.parametrize("name", ["linear", "embedding"])
def test_the_answer_to_another_request_is_objected_to(name: str) -> None:
    model = subject(name)
    pool = workload(model, 4)

    complaint = pool.objection(1, replied(model, pool.requests[0]))

    assert complaint is not None
    assert "of request 1 is" in complaint


def test_a_reply_without_outputs_is_objected_to() -> None:
    pool = workload(subject("linear"), 1)

    assert "outputs []" in (pool.objection(0, pb.ModelInferResponse().SerializeToString()) or "")


def test_a_streamed_answer_is_unpacked_and_its_error_told() -> None:
    model = subject("linear")
    pool = workload(model, 1)
    response = pb.ModelInferResponse.FromString(replied(model, pool.requests[0]))

    right = pb.ModelStreamInferResponse(infer_response=response)
    wrong = pb.ModelStreamInferResponse(error_message="no such model")

    assert pool.streamed_objection(0, right.SerializeToString()) is None
    assert "no such model" in (pool.streamed_objection(0, wrong.SerializeToString()) or "")


def test_strings_come_back_from_their_bytes() -> None:
    texts = np.array([["", "ä"], ["low", "highest"]], object)

    np.testing.assert_array_equal(decoded("BYTES", (2, 2), encoded(texts)), texts)


def test_rows_begin_anew_at_the_end_of_the_data() -> None:
    model = subject("linear")

    taken = model.take(model.count - 1, 2)["X"]

    np.testing.assert_array_equal(taken[1], model.rows["X"][0])


def test_a_repository_has_each_version_with_a_profile(tmp_path: Path) -> None:
    graph = write(subject("linear"), tmp_path, "named", versions=3, settings="versions: all\n")

    assert graph == tmp_path / "named" / "1" / "model.onnx"
    assert {file.name for file in (tmp_path / "named").iterdir()} == {"1", "2", "3", "profiles", "model.yaml"}
    assert len(list((tmp_path / "named" / "profiles").iterdir())) == 3


def test_convolutions_are_counted_as_their_docstring_says() -> None:
    side, multiplications = networks.SIDE, 0
    pairs = list(zip(networks.FILTERS, networks.FILTERS[1:], strict=False))
    for layer, (before, after) in enumerate(pairs):
        side //= 1 if layer == len(pairs) - 1 else 2
        multiplications += side**2 * 9 * before * after

    assert multiplications == pytest.approx(120e6, rel=0.05)
