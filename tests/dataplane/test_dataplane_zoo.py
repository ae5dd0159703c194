"""Every model of the zoo answers as ONNX Runtime does, alone and in the company of other requests."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort
import pytest
from dataplane_client import TIMEOUT_SECONDS, Array, Client, answers, make_request
from zoo import ZOO, Tensors, built, by_name, reference, session

from gateway.wire.pb.inference import grpc_service_pb2 as pb

CONCURRENT = 64
BATCHED = [model for model in ZOO if model.batched]
ALONE = [model for model in ZOO if not model.batched]


@cache
def oracle(name: str) -> ort.InferenceSession:
    return session(built(name))


def feeds_of(name: str, seed: int, rows: int) -> Tensors:
    return by_name[name].feeds(np.random.default_rng(seed), rows)


@cache
def expected_together(name: str, seed: int) -> Tensors:
    return reference(oracle(name), feeds_together(name, seed))


def feeds_together(name: str, seed: int) -> Tensors:
    return feeds_of(name, seed, 1 + seed % 3)


def assert_identical(got: Array, expected: Array) -> None:
    assert got.dtype == expected.dtype or expected.dtype.kind in "OU"
    assert got.shape == expected.shape
    if expected.dtype.kind in "OU":
        assert got.tolist() == expected.tolist()
    else:
        assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


def assert_close(got: Array, expected: Array) -> None:
    """Runs of other sizes may sum in another order; whatever is not a float is exact."""
    if expected.dtype.kind == "f":
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    else:
        assert_identical(got, expected)


@pytest.mark.parametrize("name", [model.name for model in ZOO])
def test_a_lone_request_gets_the_very_bits_that_onnxruntime_computes(client: Client, name: str) -> None:
    for rows in (1, 7, 2):
        feeds = feeds_of(name, rows, rows)
        expected = reference(oracle(name), feeds)
        response = client.response(make_request(name, feeds, id=f"{name} {rows}"))
        assert (response.model_name, response.model_version, response.id) == (name, "1", f"{name} {rows}")
        got = answers(response)
        assert list(got) == list(expected)
        for output, array in expected.items():
            assert_identical(got[output], array)


@pytest.mark.parametrize("name", [model.name for model in BATCHED])
def test_no_rows_in_give_no_rows_out(client: Client, name: str) -> None:
    feeds = feeds_of(name, 3, 0)
    got = client.infer(make_request(name, feeds))
    for output in oracle(name).get_outputs():
        assert got[output.name].shape[0] == 0
        assert len(got[output.name].shape) == len(output.shape)
        for size, declared in zip(got[output.name].shape[1:], output.shape[1:], strict=True):
            assert size == declared or not isinstance(declared, int)


@pytest.mark.parametrize("name", ["nonzero", "unique", "double_rows", "center_rows"])
def test_no_rows_are_run_as_they_are_where_rows_mean_nothing_to_the_gateway(client: Client, name: str) -> None:
    feeds = feeds_of(name, 3, 0)
    expected = reference(oracle(name), feeds)
    got = client.infer(make_request(name, feeds))
    for output, array in expected.items():
        assert_identical(got[output], array)


def infer_together(client: Client, name: str) -> list[dict[str, Array]]:
    """The answers to requests that were all in flight at once, in the order of their seeds."""
    futures = [
        client.stub.ModelInfer.future(
            make_request(name, feeds_together(name, seed), id=str(seed)), timeout=TIMEOUT_SECONDS
        )
        for seed in range(CONCURRENT)
    ]
    responses = [future.result() for future in futures]
    assert [response.id for response in responses] == [str(seed) for seed in range(CONCURRENT)]
    return [answers(response) for response in responses]


@pytest.mark.parametrize("name", [model.name for model in BATCHED])
def test_requests_that_share_a_run_each_get_their_own_rows_back(client: Client, name: str) -> None:
    for seed, got in enumerate(infer_together(client, name)):
        expected = expected_together(name, seed)
        assert list(got) == list(expected)
        for output, array in expected.items():
            assert_close(got[output], array)


@pytest.mark.parametrize("name", [model.name for model in ALONE])
def test_requests_to_a_model_without_rows_never_touch_each_other(client: Client, name: str) -> None:
    for seed, got in enumerate(infer_together(client, name)):
        for output, array in expected_together(name, seed).items():
            assert_identical(got[output], array)


def test_requests_in_flight_together_share_runs(client: Client) -> None:
    request = pb.ModelStatisticsRequest(name="slow")
    (before,) = client.stub.ModelStatistics(request, timeout=TIMEOUT_SECONDS).model_stats
    infer_together(client, "slow")
    (after,) = client.stub.ModelStatistics(request, timeout=TIMEOUT_SECONDS).model_stats
    assert after.execution_count - before.execution_count < CONCURRENT / 4
    assert max(batch.batch_size for batch in after.batch_stats) > 1
