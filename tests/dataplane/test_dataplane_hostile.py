"""Bytes that no client library would send: the worker refuses them, cheaply, and stays the same process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from dataplane_client import INFER_PATH, TIMEOUT_SECONDS, Client, Refusal, channel_to, make_request, refused
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

MEBIBYTE = 2**20
X = np.array([[1, 2, 3, 4]], dtype=np.float32)
ALLOWED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)
"""Of a request that is the caller's own fault; UNAVAILABLE because `broken` may be hit upon."""


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    """The worker that answers at the end is the one that was there at the start."""
    before = [worker.pid for worker in gateway.children("worker")]
    with channel_to(gateway.grpc) as channel:
        client = Client(channel)
        yield client
        np.testing.assert_array_equal(client.infer(make_request("add_const", {"x": X}))["y"], X + 1)
    assert [worker.pid for worker in gateway.children("worker")] == before


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def sound() -> bytes:
    return make_request("add_const", {"x": X}, id="i", outputs=["y"]).SerializeToString()


def invalid(client: Client, payload: bytes) -> Refusal:
    answer = client.payload(payload)
    assert isinstance(answer, Refusal), f"answered: {str(answer)[:300]}"
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    return answer


@pytest.mark.parametrize("field", range(1, 8))
def test_a_claim_of_two_gibibytes_in_a_hundred_bytes(client: Client, field: int) -> None:
    payload = bytes([field << 3 | 2]) + varint(2**31 - 1) + b"a" * 94
    refusal = invalid(client, payload)
    assert f"the {len(payload)} bytes received are not an inference.ModelInferRequest" in refusal.message


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff" * 100, id="ones"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="length of 64 bits"),
        pytest.param(b"\x0a" + b"\x80" * 50, id="endless varint"),
        pytest.param(b"\x2b" * 500, id="groups in groups"),
        pytest.param(b"\x0c", id="end of a group that was not begun"),
        pytest.param(b"\x0a\x02\xc3\x28", id="a name that is not UTF-8"),
        pytest.param(b"\x1a\x02\xed\xa0", id="an id that is half a surrogate"),
        pytest.param(b"\x0f\x01", id="wire type 7"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
    ],
)
def test_bytes_that_are_no_message(client: Client, payload: bytes) -> None:
    assert "are not an inference.ModelInferRequest" in invalid(client, payload).message


def test_nothing_at_all_names_no_model(client: Client) -> None:
    answer = client.payload(b"")
    assert isinstance(answer, Refusal)
    assert answer.code is grpc.StatusCode.NOT_FOUND


def test_a_message_cut_anywhere_is_refused_or_names_what_is_missing(client: Client) -> None:
    whole = sound()
    futures = [client.infer_bytes.future(whole[:end], timeout=TIMEOUT_SECONDS) for end in range(len(whole))]
    codes = {refused(future.result).code for future in futures}
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


def test_unknown_fields_are_stepped_over(client: Client) -> None:
    answer = client.payload(sound() + b"\xfa\x3f\x03abc" + b"\xf8\x3f\x01")
    assert isinstance(answer, pb.ModelInferResponse)
    assert answer.id == "i"


def test_the_message_of_another_rpc(client: Client) -> None:
    answer = client.payload(
        pb.RepositoryModelLoadRequest(repository_name="r", model_name="add_const").SerializeToString()
    )
    assert isinstance(answer, Refusal)
    assert answer.code is grpc.StatusCode.NOT_FOUND
    assert "no model 'r'" in answer.message


@pytest.mark.parametrize(
    "tensor",
    [
        pb.ModelInferRequest.InferInputTensor(),
        pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4]),
    ],
    ids=["empty", "sound"],
)
def test_a_million_tiny_tensors(
    gateway: Gateway, client: Client, tensor: pb.ModelInferRequest.InferInputTensor
) -> None:
    """Refused, and without keeping their memory."""
    count = 1_000_000 if not tensor.name else 600_000  # the second ones come near the limit of a message
    encoded = tensor.SerializeToString()
    payload = b"\x0a\x09add_const" + (b"\x2a" + varint(len(encoded)) + encoded) * count
    (worker,) = gateway.children("worker")
    before = worker.memory_info().rss
    assert f"expected 1 inputs ('x'), got {count}" in invalid(client, payload).message
    assert worker.memory_info().rss - before < 600 * MEBIBYTE


@pytest.mark.parametrize(
    ("tag", "says"),
    [(b"\x32", "no output ''"), (b"\x3a", "expected 1 entries in raw_input_contents")],
    ids=["requested outputs", "raw contents"],
)
def test_a_million_of_the_other_repeated_fields(client: Client, tag: bytes, says: str) -> None:
    assert says in invalid(client, sound() + (tag + b"\0") * 1_000_000).message


def test_a_hundred_thousand_dims(client: Client) -> None:
    shape = varint(1) * 100_000
    tensor = b"\x0a\x01x\x12\x04FP32\x1a" + varint(len(shape)) + shape
    refusal = invalid(client, b"\x0a\x09add_const\x2a" + varint(len(tensor)) + tensor)
    assert "expected [-1,4], got [1,1,1" in refusal.message
    assert len(refusal.message) < 1100


def test_a_hundred_thousand_parameters(client: Client) -> None:
    request = make_request("add_const", {"x": X})
    for index in range(100_000):
        request.parameters[f"p{index}"].int64_param = index
    np.testing.assert_array_equal(client.infer(request)["y"], X + 1)


def test_random_bytes(client: Client) -> None:
    source = random.Random(20)
    payloads = [source.randbytes(source.choice((1, 7, 60, 1000))) for _ in range(300)]
    futures = [client.infer_bytes.future(payload, timeout=TIMEOUT_SECONDS) for payload in payloads]
    for payload, future in zip(payloads, futures, strict=True):
        assert refused(future.result).code in ALLOWED, payload.hex()


@pytest.mark.parametrize(
    "path", ["ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady", "ServerMetadata", "RepositoryIndex"]
)
def test_the_other_rpcs_refuse_bytes_that_are_no_message(client: Client, path: str) -> None:
    call: Any = client.channel.unary_unary(f"/inference.GRPCInferenceService/{path}")
    refusal = refused(lambda: call(b"\x0a\xff\x01a", timeout=TIMEOUT_SECONDS))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"the 4 bytes received are not an inference.{path}Request" in refusal.message


def test_a_unary_call_without_a_message(client: Client, transport: str) -> None:
    """Allowed by HTTP/2, not by the method's kind. grpc.aio answers no such call: there the deadline ends it."""
    call: Any = client.channel.stream_unary(INFER_PATH)
    code = refused(lambda: call(iter([]), timeout=1 if transport == "public" else TIMEOUT_SECONDS)).code
    assert code is (grpc.StatusCode.DEADLINE_EXCEEDED if transport == "public" else grpc.StatusCode.INVALID_ARGUMENT)


def test_a_unary_call_with_two_messages_is_answered_once(client: Client) -> None:
    call: Any = client.channel.stream_unary(INFER_PATH)
    answer = pb.ModelInferResponse.FromString(call(iter([sound(), sound()]), timeout=TIMEOUT_SECONDS))
    assert answer.id == "i"


def test_metadata_beyond_the_limit_is_refused(client: Client) -> None:
    metadata = [(f"x-{index}", "v" * 1000) for index in range(40)]
    refusal = client.refused(make_request("add_const", {"x": X}), metadata=metadata)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_no_file_or_connection_is_left_behind_by_refused_calls(gateway: Gateway, client: Client) -> None:
    (worker,) = gateway.children("worker")
    process = psutil.Process(worker.pid)
    client.payload(b"\xff")
    before = process.num_fds()
    for _ in range(300):
        client.payload(b"\xff" * 20)
    assert process.num_fds() <= before + 2
