"""tritonclient, unmodified: every RPC that it has and driftgate implements."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from dataplane_client import TIMEOUT_SECONDS, Array
from dataplane_repository import LABELS, VERSIONS
from support.gateway import Gateway
from tritonclient.utils import (  # type: ignore[import-untyped]
    InferenceServerException,
    np_to_triton_dtype,
)
from zoo import ZOO, built, by_name, reference, session

POLL_SECONDS = 0.01


@pytest.fixture
def triton_client(gateway: Gateway) -> Iterator[Any]:
    client = triton.InferenceServerClient(gateway.grpc)
    yield client
    client.close()


def inputs_of(**arrays: Array) -> list[Any]:
    """Arrays as tritonclient's inputs."""
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def as_text(array: Array) -> list[Any]:
    """What tritonclient makes of BYTES, as str."""
    return [element.decode() for element in array.ravel()]


X = np.array([[1, 2, 3, 4], [-1, 0, 0.5, 9]], dtype=np.float32)


def test_server_live_ready_and_metadata(triton_client: Any) -> None:
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    metadata = triton_client.get_server_metadata()
    assert metadata.name == "driftgate"
    assert metadata.version
    assert set(metadata.extensions) >= {"model_repository", "model_configuration", "statistics", "parameters"}
    absent = {"cuda_shared_memory", "system_shared_memory", "trace", "logging", "sequence", "schedule_policy"}
    assert not absent & set(metadata.extensions)


def test_model_ready_by_number_and_by_label(triton_client: Any) -> None:
    for version in ("", "1", "2", "10", "stable", "canary"):
        assert triton_client.is_model_ready("versions", version)
    assert not triton_client.is_model_ready("broken")


def test_metadata_of_every_model_is_its_graphs(triton_client: Any) -> None:
    for model in ZOO:
        metadata = triton_client.get_model_metadata(model.name)
        assert (metadata.name, list(metadata.versions), metadata.platform) == (model.name, ["1"], "onnxruntime_onnx")
        graph = session(built(model.name))
        for tensors, args in ((metadata.inputs, graph.get_inputs()), (metadata.outputs, graph.get_outputs())):
            assert [tensor.name for tensor in tensors] == [arg.name for arg in args]
            for tensor, arg in zip(tensors, args, strict=True):
                assert list(tensor.shape) == [size if isinstance(size, int) else -1 for size in arg.shape]
    as_json = triton_client.get_model_metadata("mixed", as_json=True)
    assert [(t["name"], t["datatype"], t["shape"]) for t in as_json["inputs"]] == [
        ("amount", "FP32", ["-1", "3"]),
        ("code", "INT64", ["-1"]),
        ("name", "BYTES", ["-1"]),
        ("flag", "BOOL", ["-1", "1"]),
    ]
    assert "properties" not in as_json


def test_metadata_lists_the_versions_that_are_served(triton_client: Any) -> None:
    assert list(triton_client.get_model_metadata("versions").versions) == ["1", "2", "10"]


def test_config_says_how_the_model_batches(triton_client: Any) -> None:
    config = triton_client.get_model_config("narrow").config
    assert (config.name, config.max_batch_size, config.backend) == ("narrow", 4, "onnxruntime")
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", 11, [4])]  # 11: TYPE_FP32
    unbatched = triton_client.get_model_config("matmul").config
    assert unbatched.max_batch_size == 0
    assert [list(t.dims) for t in unbatched.input] == [[-1, -1], [-1, -1]]
    as_json = triton_client.get_model_config("strings", as_json=True)["config"]
    assert {t["data_type"] for t in as_json["input"]} == {"TYPE_STRING"}


@pytest.mark.parametrize("name", ["mlp", "float64", "float16", "integers", "boolean", "scalar", "images", "mixed"])
def test_infer_of_each_type_equals_onnxruntime(triton_client: Any, name: str) -> None:
    feeds = by_name[name].feeds(np.random.default_rng(5), 3)
    result = triton_client.infer(name, inputs_of(**feeds), client_timeout=TIMEOUT_SECONDS)
    for output, expected in reference(session(built(name)), feeds).items():
        got = result.as_numpy(output)
        if expected.dtype.kind in "OU":
            assert as_text(got) == expected.ravel().tolist()
        else:
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == expected.dtype


def test_strings_of_every_kind_come_back_as_they_went(triton_client: Any) -> None:
    words = np.array(["", "a", "crème brûlée", "日本", "nul\0inside", "🚀", "x" * 70_000], dtype=object)
    result = triton_client.infer("strings", inputs_of(a=words, b=words[::-1].copy()))
    assert as_text(result.as_numpy("same")) == words.tolist()
    assert as_text(result.as_numpy("joined")) == [a + b for a, b in zip(words, words[::-1], strict=True)]


def test_bfloat16_by_the_clients_own_conversion(triton_client: Any) -> None:
    x = np.array([[1.0, -2.5, 0.0, 65280.0]], dtype=ml_dtypes.bfloat16)
    result = triton_client.infer("bfloat16", inputs_of(x=x))
    wide = x.astype(np.float32)
    np.testing.assert_array_equal(result.as_numpy("same").astype(np.float32), wide)
    np.testing.assert_array_equal(result.as_numpy("wide"), wide)
    np.testing.assert_array_equal(result.as_numpy("square").astype(np.float32), (wide * wide).astype(x.dtype))


def test_requested_outputs_come_in_the_order_asked_for(triton_client: Any) -> None:
    feeds = by_name["mixed"].feeds(np.random.default_rng(6), 2)
    asked = ["positive", "total"]
    result = triton_client.infer(
        "mixed", inputs_of(**feeds), outputs=[triton.InferRequestedOutput(name) for name in asked]
    )
    assert [output.name for output in result.get_response().outputs] == asked
    expected = reference(session(built("mixed")), feeds)
    for name in asked:
        np.testing.assert_array_equal(result.as_numpy(name), expected[name])
    assert result.as_numpy("echo") is None


@pytest.mark.parametrize(
    ("asked", "answered"), [("1", 1), ("2", 2), ("10", 10), ("stable", 2), ("canary", 10), ("", 2)]
)
def test_a_version_is_chosen_by_number_by_label_or_by_default(triton_client: Any, asked: str, answered: int) -> None:
    result = triton_client.infer("versions", inputs_of(x=X), model_version=asked, request_id="r-1")
    np.testing.assert_array_equal(result.as_numpy("y"), X + np.float32(VERSIONS[answered]))
    response = result.get_response()
    assert (response.model_version, response.id) == (str(answered), "r-1")


def test_without_a_default_the_highest_number_answers(triton_client: Any) -> None:
    assert triton_client.infer("newest", inputs_of(x=X)).get_response().model_version == "10"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_answered_like_any(triton_client: Any, algorithm: str) -> None:
    x = np.zeros((1000, 4), dtype=np.float32)
    result = triton_client.infer("add_const", inputs_of(x=x), compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("y"), x + 1)


def test_parameters_that_tritonclient_sends_are_taken(triton_client: Any) -> None:
    result = triton_client.infer(
        "add_const",
        inputs_of(x=X),
        sequence_id=7,
        sequence_start=True,
        sequence_end=True,
        priority=1,
        timeout=10_000_000,
        headers={"x-caller": "suite"},
        parameters={"tag": "a", "weight": 0.5, "count": 3, "flag": True},
    )
    np.testing.assert_array_equal(result.as_numpy("y"), X + 1)


def test_async_infer_answers_by_callback_and_can_be_cancelled(triton_client: Any) -> None:
    import queue

    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    triton_client.async_infer("add_const", inputs_of(x=X), lambda result, error: done.put((result, error)))
    result, error = done.get(timeout=TIMEOUT_SECONDS)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), X + 1)
    row = np.zeros((1, 64), dtype=np.float32)
    context = triton_client.async_infer("crawl", inputs_of(x=row), lambda result, error: done.put((result, error)))
    context.cancel()
    result, error = done.get(timeout=TIMEOUT_SECONDS)
    assert result is None
    assert error.status() == "StatusCode.CANCELLED"


def statistics(client: Any, model: str, version: str = "") -> Any:
    (row,) = client.get_inference_statistics(model, version).model_stats
    return row


def test_statistics_count_what_was_sent(triton_client: Any) -> None:
    before = statistics(triton_client, "versions", "1")
    started_ms = int(time.time() * 1000)
    for rows in (1, 2, 5):
        triton_client.infer("versions", inputs_of(x=np.zeros((rows, 4), dtype=np.float32)), model_version="1")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (after := statistics(triton_client, "versions", "1")).execution_count < before.execution_count + 3:
        assert time.monotonic() < deadline, "the counts, which follow the replies, did not come"
        time.sleep(POLL_SECONDS)
    assert (after.name, after.version) == ("versions", "1")
    assert after.inference_count - before.inference_count == 8
    assert after.execution_count - before.execution_count == 3
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_stats.fail.count == before.inference_stats.fail.count
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert after.last_inference >= started_ms
    runs = {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}
    was = {batch.batch_size: batch.compute_infer.count for batch in before.batch_stats}
    assert {rows: runs[rows] - was.get(rows, 0) for rows in (1, 2, 5)} == {1: 1, 2: 1, 5: 1}


def test_statistics_count_failures_of_the_model(triton_client: Any) -> None:
    before = statistics(triton_client, "gather")
    with pytest.raises(InferenceServerException):
        triton_client.infer("gather", inputs_of(ids=np.array([99], dtype=np.int64)))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (
        after := statistics(triton_client, "gather")
    ).inference_stats.fail.count == before.inference_stats.fail.count:
        assert time.monotonic() < deadline, "the failure was not counted"
        time.sleep(POLL_SECONDS)
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_stats.success.count == before.inference_stats.success.count


def test_statistics_of_all_models_name_every_version(triton_client: Any) -> None:
    rows = triton_client.get_inference_statistics().model_stats
    found = {(row.name, row.version) for row in rows}
    assert found >= {(model.name, "1") for model in ZOO} | {("versions", str(version)) for version in VERSIONS}


def index(client: Any, **options: Any) -> dict[tuple[str, str], tuple[str, str]]:
    return {(m.name, m.version): (m.state, m.reason) for m in client.get_model_repository_index(**options).models}


def test_the_index_shows_states_and_reasons_and_can_be_filtered(triton_client: Any) -> None:
    from tritonclient.grpc import service_pb2

    everything = index(triton_client)
    assert everything["versions", "10"] == ("READY", "")
    state, reason = everything["broken", "1"]
    assert state == "UNAVAILABLE"
    assert "truncated" in reason
    ready = triton_client._client_stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True)).models
    assert {(m.name, m.version) for m in ready} == {key for key, (state, _) in everything.items() if state == "READY"}
    assert ("broken", "1") not in {(m.name, m.version) for m in ready}


def test_unload_and_load_take_a_model_out_and_bring_it_back(triton_client: Any) -> None:
    triton_client.unload_model("spare")
    assert index(triton_client)["spare", "1"][0] == "UNAVAILABLE"
    assert not triton_client.is_model_ready("spare")
    with pytest.raises(InferenceServerException) as caught:
        triton_client.infer("spare", inputs_of(x=X))
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert "unload" in caught.value.message()
    triton_client.load_model("spare")
    assert triton_client.is_model_ready("spare")
    np.testing.assert_array_equal(triton_client.infer("spare", inputs_of(x=X)).as_numpy("y"), X + 7)


def test_loading_what_is_not_there_is_refused(triton_client: Any) -> None:
    for change in (triton_client.load_model, triton_client.unload_model):
        with pytest.raises(InferenceServerException) as caught:
            change("nowhere")
        assert caught.value.status() == "StatusCode.NOT_FOUND"
        assert "nowhere" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        triton_client.load_model("spare", config='{"max_batch_size": 3}')
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "config" in caught.value.message()
    with pytest.raises(InferenceServerException) as caught:
        triton_client.load_model("broken")
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert "model 'broken' is incomplete" in caught.value.message()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.get_trace_settings(),
        lambda client: client.get_log_settings(),
    ],
    ids=["system shared memory", "cuda shared memory", "trace", "log"],
)
def test_what_is_not_implemented_says_so(triton_client: Any, call: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        call(triton_client)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_labels_of_the_manifest_are_versions(triton_client: Any) -> None:
    for label, version in LABELS.items():
        metadata = triton_client.get_model_metadata("versions", label)
        assert metadata.name == "versions"
        assert triton_client.infer("versions", inputs_of(x=X), label).get_response().model_version == str(version)
