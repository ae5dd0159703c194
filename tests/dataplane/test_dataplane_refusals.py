"""Requests that are wrong: the code, what was expected and what came, details for machines, and no harm done."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from dataplane_client import TIMEOUT_SECONDS, Client, channel_to, make_request, refused
from dataplane_wrong_requests import WRONG
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

X = np.array([[1, 2, 3, 4]], dtype=np.float32)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """Every test ends with a request that is well."""
    with channel_to(gateway.grpc) as channel:
        client = Client(channel)
        yield client
        np.testing.assert_array_equal(client.infer(make_request("add_const", {"x": X}))["y"], X + 1)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named_with_what_was_expected(client: Client, case: str) -> None:
    make, change, says, field = WRONG[case]
    request = make()
    change(request)
    refusal = client.refused(request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in refusal.message
    assert len(refusal.message) < 1100
    assert refusal.reason == "INVALID_REQUEST"
    assert refusal.details["ErrorInfo"].domain == "driftgate"
    assert refusal.fields == [field]
    assert refusal.details["BadRequest"].field_violations[0].description == refusal.message


def test_a_batch_above_the_configured_maximum_is_refused_and_one_at_it_is_not(client: Client) -> None:
    at = client.infer(make_request("narrow", {"x": np.zeros((4, 4), dtype=np.float32)}))["y"]
    assert at.shape == (4, 4)
    refusal = client.refused(make_request("narrow", {"x": np.zeros((5, 4), dtype=np.float32)}))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 4 rows" in refusal.message
    assert "got 5" in refusal.message
    assert refusal.fields == ["x"]


def test_axes_of_one_name_that_differ_are_the_callers_fault(client: Client) -> None:
    """equal_axes is x[A,B] - y[A,B]; matmul is x[A,B] · y[B,C]."""
    for model, x, y, says in (
        ("equal_axes", (2, 3), (2, 4), "expected 3 at axis 1 ('B'), as in input 'x', got 4"),
        ("matmul", (2, 3), (4, 2), "expected 3 at axis 0 ('B'), as in input 'x', got 4"),
    ):
        feeds = {"x": np.zeros(x, dtype=np.float32), "y": np.zeros(y, dtype=np.float32)}
        refusal = client.refused(make_request(model, feeds))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert says in refusal.message
        assert refusal.fields == ["y"]


@pytest.mark.parametrize(
    ("model", "version", "says"),
    [
        ("nowhere", "", "no model 'nowhere'; known models: "),
        ("", "", "no model ''"),
        ("日本", "", "no model '日本'"),
        ("ADD_CONST", "", "no model 'ADD_CONST'"),
        ("../../etc/passwd", "", "no model"),
        ("x" * 100_000, "", "no model 'xxx"),
        ("🚀" * 10_000, "", "no model '🚀"),
        ("\U000e0001" * 10_000, "", "no model "),
        ("versions", "é" * 10_000, "no version or label 'é"),
        ("versions", "3", "no version or label '3'; versions: 1, 2, 10; labels: canary, stable"),
        ("versions", "01", "'01'"),
        ("versions", "-1", "'-1'"),
        ("versions", "9" * 400, "no version or label"),
        ("versions", "²", "no version or label '²'"),
        ("versions", "Stable", "labels: canary, stable"),
        ("versions", " 1", "' 1'"),
    ],
)
def test_an_unknown_model_or_version_is_not_found_and_what_exists_is_named(
    client: Client, model: str, version: str, says: str
) -> None:
    refusal = client.refused(make_request(model, {"x": X}, version=version))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert says in refusal.message
    assert len(refusal.message) < 1100
    assert refusal.reason == "NOT_FOUND"
    metadata = refused(
        lambda: client.stub.ModelMetadata(pb.ModelMetadataRequest(name=model, version=version), timeout=TIMEOUT_SECONDS)
    )
    assert metadata.code is grpc.StatusCode.NOT_FOUND


def test_a_model_that_is_known_and_not_ready_is_unavailable_with_its_reason(client: Client) -> None:
    for version in ("", "1"):
        refusal = client.refused(make_request("broken", {"x": X}, version=version))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert "model 'broken' version 1 is not ready: " in refusal.message
        assert "truncated" in refusal.message
        assert refusal.reason == "NOT_READY"


def test_names_of_any_length_leave_the_message_short_enough_to_arrive(client: Client) -> None:
    """A client takes 8 KiB of trailing metadata, in which the message comes three times."""
    request = pb.ModelInferRequest(model_name="strings")
    for index in range(20):
        request.inputs.add(name=chr(0xE0001 + index) * 1000, datatype="BYTES", shape=[1])
        request.raw_input_contents.append(b"\0\0\0\0")
    refusal = client.refused(request)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected 2 inputs ('a', 'b'), got 20" in refusal.message


def test_a_model_that_fails_says_so_and_no_more(gateway: Gateway, client: Client) -> None:
    refusal = client.refused(make_request("gather", {"ids": np.array([99], dtype=np.int64)}))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert refusal.message.startswith("model failed: gather/1, reference ")
    for inner in ("Traceback", "/", ".py", ".cc", "onnxruntime", "indices"):
        assert inner not in refusal.message.replace("gather/1", "")
    assert refusal.reason == "MODEL_FAILED"
    reference = refusal.message.rsplit(" ", 1)[1]
    (line,) = [line for line in gateway.logged(reference).splitlines() if reference in line]
    assert "indices" in line, "what failed is in the log, under the reference that the client has"


def test_a_request_that_fails_leaves_those_beside_it_alone(client: Client) -> None:
    ids = [np.array([99 if seed % 5 == 0 else seed % 8, seed % 8], dtype=np.int64) for seed in range(60)]
    good = [client.infer(make_request("gather", {"ids": np.array([i], dtype=np.int64)}))["y"] for i in range(8)]
    futures = [
        client.stub.ModelInfer.future(make_request("gather", {"ids": one}, id=str(seed)), timeout=TIMEOUT_SECONDS)
        for seed, one in enumerate(ids)
    ]
    for seed, future in enumerate(futures):
        if seed % 5 == 0:
            assert refused(future.result).code is grpc.StatusCode.INTERNAL
            continue
        response = future.result()
        assert response.id == str(seed)
        got = np.frombuffer(response.raw_output_contents[0], dtype=np.float32).reshape(2, 4)
        np.testing.assert_array_equal(got, np.concatenate([good[seed % 8]] * 2))
