"""ModelStreamInfer: order, errors inside the stream and instead of it, half-close, cancellation."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from dataplane_client import TIMEOUT_SECONDS, Client, answers, array_of, make_request, refused
from support.gateway import Gateway
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from gateway.wire.pb.inference import grpc_service_pb2 as pb

MESSAGES = 200
STATUS_ON_ERROR = (("triton_grpc_error", "true"),)
POLL_SECONDS = 0.01


def row(value: float) -> Any:
    return np.full((1, 4), value, dtype=np.float32)


def request(value: float, **options: Any) -> pb.ModelInferRequest:
    return make_request("add_const", {"x": row(value)}, id=str(value), **options)


def wrong(id: str) -> pb.ModelInferRequest:  # noqa: A002  (the protocol's own name)
    return make_request("add_const", {"x": np.zeros((1, 5), dtype=np.float32)}, id=id)


def values(message: pb.ModelStreamInferResponse) -> Any:
    return answers(message.infer_response)["y"]


def tensor(value: float) -> list[Any]:
    made = triton.InferInput("x", [1, 4], "FP32")
    made.set_data_from_numpy(row(value))
    return [made]


class TritonStream:
    """tritonclient's stream, and a queue of what its callback was called with."""

    def __init__(self, address: str, **options: Any) -> None:
        self.client = triton.InferenceServerClient(address)
        self.heard: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.heard.put((result, error)), **options)

    def next(self) -> tuple[Any, Any]:
        return self.heard.get(timeout=TIMEOUT_SECONDS)


@pytest.fixture
def stream(gateway: Gateway) -> Iterator[TritonStream]:
    made = TritonStream(gateway.grpc)
    yield made
    made.client.close()


def test_two_hundred_messages_are_answered_in_order(stream: TritonStream) -> None:
    for number in range(MESSAGES):
        stream.client.async_stream_infer("add_const", tensor(number), request_id=str(number))
    for number in range(MESSAGES):
        result, error = stream.next()
        assert error is None
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("y"), row(number + 1))
    stream.client.stop_stream()
    assert stream.heard.empty()


def test_answers_keep_the_order_of_requests_when_a_later_model_is_quicker(client: Client) -> None:
    slow = make_request("slow", {"x": np.zeros((1, 64), dtype=np.float32)}, id="first")
    answered = client.stub.ModelStreamInfer(iter([slow, request(2), request(3)]), timeout=TIMEOUT_SECONDS)
    assert [message.infer_response.id for message in answered] == ["first", "2", "3"]


def test_an_error_is_a_message_of_the_stream_and_the_stream_goes_on(stream: TritonStream) -> None:
    bad = triton.InferInput("x", [1, 5], "FP32")
    bad.set_data_from_numpy(np.zeros((1, 5), dtype=np.float32))
    stream.client.async_stream_infer("add_const", tensor(1), request_id="a")
    stream.client.async_stream_infer("add_const", [bad], request_id="b")
    stream.client.async_stream_infer("nowhere", tensor(1), request_id="c")
    stream.client.async_stream_infer("add_const", tensor(2), request_id="d")
    heard = [stream.next() for _ in range(4)]
    assert [error is None for _, error in heard] == [True, False, False, True]
    assert "expected [-1,4], got [1,5]" in heard[1][1].message()
    assert "no model 'nowhere'" in heard[2][1].message()
    assert heard[3][0].get_response().id == "d"


def test_an_error_in_the_stream_names_its_request(client: Client) -> None:
    (message,) = client.stub.ModelStreamInfer(iter([wrong("seven")]), timeout=TIMEOUT_SECONDS)
    assert message.error_message
    assert (message.infer_response.model_name, message.infer_response.id) == ("add_const", "seven")


def test_with_triton_grpc_error_the_first_error_ends_the_stream_with_its_status(client: Client) -> None:
    call = client.stub.ModelStreamInfer(
        iter([request(1), request(2), wrong("x"), request(3)]), timeout=TIMEOUT_SECONDS, metadata=STATUS_ON_ERROR
    )
    assert [next(call).infer_response.id for _ in range(2)] == ["1", "2"]
    refusal = refused(lambda: next(call))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected [-1,4], got [1,5]" in refusal.message
    assert refusal.reason == "INVALID_REQUEST"
    assert refusal.fields == ["x"]


def test_triton_grpc_error_through_tritonclient(gateway: Gateway) -> None:
    stream = TritonStream(gateway.grpc, headers={"triton_grpc_error": "true"})
    stream.client.async_stream_infer("nowhere", tensor(1))
    result, error = stream.next()
    assert result is None
    assert error.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="no longer in valid state"):
        stream.client.async_stream_infer("add_const", tensor(1))
    stream.client.close()


@pytest.mark.parametrize("final", [True, False])
def test_the_empty_final_response_flag_marks_the_last_answer_of_a_request(stream: TritonStream, final: bool) -> None:
    for number in range(3):
        stream.client.async_stream_infer("add_const", tensor(number), enable_empty_final_response=final)
    for number in range(3):
        result, error = stream.next()
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), row(number + 1))
        parameters = result.get_response().parameters
        assert ("triton_final_response" in parameters) is final
        assert not final or parameters["triton_final_response"].bool_param


def test_the_answers_to_all_requests_come_after_the_client_has_half_closed(client: Client) -> None:
    slow = make_request("crawl", {"x": np.zeros((1, 64), dtype=np.float32)}, id="slow")
    call = client.stub.ModelStreamInfer(iter([slow, request(5)]), timeout=TIMEOUT_SECONDS)
    assert [message.infer_response.id for message in call] == ["slow", "5"]
    assert call.code() is grpc.StatusCode.OK


def test_an_empty_stream_ends_well(client: Client) -> None:
    call = client.stub.ModelStreamInfer(iter([]), timeout=TIMEOUT_SECONDS)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_stream_can_be_used_as_a_dialogue(client: Client) -> None:
    """Each answer comes while the stream is open for more requests."""
    outgoing: queue.Queue[pb.ModelInferRequest | None] = queue.Queue()
    call = client.stub.ModelStreamInfer(iter(outgoing.get, None), timeout=TIMEOUT_SECONDS)
    for number in range(20):
        outgoing.put(request(number))
        np.testing.assert_array_equal(values(next(call)), row(number + 1))
    outgoing.put(None)
    assert list(call) == []


def test_many_streams_at_once_keep_to_themselves(client: Client) -> None:
    failures: list[BaseException] = []

    def talk(start: int) -> None:
        try:
            sent = [request(start + number) for number in range(30)]
            got = [values(m) for m in client.stub.ModelStreamInfer(iter(sent), timeout=TIMEOUT_SECONDS)]
            for number, array in enumerate(got):
                np.testing.assert_array_equal(array, row(start + number + 1))
            assert len(got) == len(sent)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(1000 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def in_flight(gateway: Gateway) -> float:
    return gateway.metric("driftgate_request_in_flight")


def wait_until_idle(gateway: Gateway) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while in_flight(gateway):
        assert time.monotonic() < deadline, "requests are in flight whose client has gone"
        time.sleep(POLL_SECONDS)


def test_a_cancelled_stream_gives_back_what_it_held(gateway: Gateway, client: Client) -> None:
    slow = make_request("crawl", {"x": np.zeros((1, 64), dtype=np.float32)})
    call = client.stub.ModelStreamInfer(iter([request(1), slow, slow, slow]), timeout=TIMEOUT_SECONDS)
    np.testing.assert_array_equal(values(next(call)), row(2))
    call.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    wait_until_idle(gateway)
    np.testing.assert_array_equal(client.infer(request(3))["y"], row(4))


def test_tritonclient_cancels_a_stream(gateway: Gateway) -> None:
    stream = TritonStream(gateway.grpc)
    slow = triton.InferInput("x", [1, 64], "FP32")
    slow.set_data_from_numpy(np.zeros((1, 64), dtype=np.float32))
    stream.client.async_stream_infer("crawl", [slow])
    stream.client.stop_stream(cancel_requests=True)
    result, error = stream.next()
    assert result is None
    assert error.status() == "StatusCode.CANCELLED"
    stream.client.close()
    wait_until_idle(gateway)


def test_a_deadline_ends_the_stream(gateway: Gateway, client: Client) -> None:
    slow = make_request("crawl", {"x": np.zeros((1, 64), dtype=np.float32)})
    with pytest.raises(grpc.RpcError) as caught:
        list(client.stub.ModelStreamInfer(iter([slow]), timeout=0.02))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until_idle(gateway)


@pytest.mark.parametrize("payload", [b"\x0a\x05ab", b"\xff" * 64, b"", b"\x2a\xff\xff\xff\xff\x07"])
def test_bytes_that_are_no_request_are_an_error_of_the_stream(client: Client, payload: bytes) -> None:
    call: Any = client.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    good = request(1).SerializeToString()
    first, second = call(iter([payload, good]), timeout=TIMEOUT_SECONDS)
    assert pb.ModelStreamInferResponse.FromString(first).error_message
    np.testing.assert_array_equal(values(pb.ModelStreamInferResponse.FromString(second)), row(2))


def test_strings_travel_in_streams(client: Client) -> None:
    words = np.array(["é", "", "日本"], dtype=object)
    sent = make_request("strings", {"a": words, "b": words}, outputs=["joined"])
    (message,) = client.stub.ModelStreamInfer(iter([sent]), timeout=TIMEOUT_SECONDS)
    (output,) = message.infer_response.outputs
    (raw,) = message.infer_response.raw_output_contents
    assert array_of(output.datatype, output.shape, raw).tolist() == [word * 2 for word in words]
