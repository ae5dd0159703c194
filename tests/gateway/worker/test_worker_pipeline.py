"""A request's way through a worker, with real versions and calls that only keep what they are told."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2
from worker_parts import Asked, Worker, ordered
from zoo import built

from gateway.messages import ModelOrder
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.target import Target
from runtime.batching.request import Request


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Serves version 1 of m, y = x + 1."""
    made = Worker(max_in_flight=8)
    made.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1),)))
    yield made
    made.close()


def payload(inputs: dict[str, Any] | None = None, *, version: str = "", timeout: int = 0, **fields: Any) -> bytes:
    message = pb.ModelInferRequest(model_name="m", model_version=version, **fields)
    for name, values in (inputs or {"x": [[0, 0, 0, 0]]}).items():
        array = np.asarray(values, np.float32)
        message.inputs.add(name=name, datatype="FP32", shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    if timeout:
        message.parameters["timeout"].int64_param = timeout
    return message.SerializeToString()


def ask(worker: Worker, *payloads: bytes) -> list[Asked]:
    """The requests arrive together; each call has heard exactly one thing when they are done."""
    calls = [Asked() for _ in payloads]
    worker.pipeline.infer(list(zip(calls, payloads, strict=True)))
    assert [len(call.answers) + len(call.statuses) for call in calls] == [1] * len(calls)
    assert worker.pipeline.in_flight == worker.statistics.in_flight(0) == 0
    return calls


def values(call: Asked) -> list[float]:
    (answer,) = call.answers
    return [float(value) for value in np.frombuffer(answer.raw_output_contents[0], np.float32)]


def refusal(call: Asked) -> tuple[int, str]:
    (status,) = call.statuses
    return status.code, status.message


def test_requests_that_arrive_together_are_one_run_and_each_gets_its_own(worker: Worker) -> None:
    calls = ask(worker, *(payload({"x": [[n] * 4]}, id=f"id-{n}") for n in range(5)))
    assert [values(call) for call in calls] == [[n + 1.0] * 4 for n in range(5)]
    assert [call.answers[0].id for call in calls] == [f"id-{n}" for n in range(5)]
    assert {(a.model_name, a.model_version) for call in calls for a in call.answers} == {("m", "1")}
    assert calls[0].headers == ((b"driftgate-answered-by", b'1;digest="sha256:0"'),)
    (counts,) = worker.statistics.totals()
    assert (counts.successes, counts.rows, counts.runs, counts.failures) == (5, 5, 1, 0)


def test_a_wrong_request_among_them_is_refused_alone(worker: Worker) -> None:
    good, shape, model, junk = ask(
        worker,
        payload(),
        payload({"x": [[0, 0]]}),
        payload().replace(b"\n\x01m", b"\n\x01n", 1),
        b"\xff\xff",
    )
    assert values(good) == [1.0] * 4
    assert refusal(shape) == (code_pb2.INVALID_ARGUMENT, "input 'x': expected [-1,4], got [1,2]")
    assert refusal(model) == (code_pb2.NOT_FOUND, "no model 'n'; known models: m")
    assert refusal(junk)[0] == code_pb2.INVALID_ARGUMENT
    assert refusal(junk)[1].startswith("the 2 bytes received are not an inference.ModelInferRequest")
    (counts,) = worker.statistics.totals()
    assert (counts.successes, counts.failures) == (1, 1), "what was routed to a version is counted there"


def test_inputs_in_an_order_of_the_clients_own_are_never_exchanged(tmp_path: Path) -> None:
    """Neither in the first request, whose values are equal, nor in those that look like it."""
    worker = Worker()
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 1, model=built("equal_axes")),)))
    assert values(*ask(worker, payload({"y": [[0, 0]], "x": [[0, 0]]}))) == [0.0, 0.0]
    assert values(*ask(worker, payload({"y": [[1, 1]], "x": [[5, 6]]}))) == [4.0, 5.0]
    assert values(*ask(worker, payload({"x": [[0, 0]], "y": [[0, 0]]}))) == [0.0, 0.0]
    assert values(*ask(worker, payload({"x": [[5, 6]], "y": [[1, 1]]}))) == [4.0, 5.0]


def test_a_request_like_one_before_is_answered_by_the_version_that_is_served_now(
    worker: Worker, tmp_path: Path
) -> None:
    assert [values(*ask(worker, payload())) for _ in range(3)] == [[1.0] * 4] * 3
    worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 2),)))
    assert values(*ask(worker, payload())) == [2.0] * 4


def test_beyond_the_limit_requests_are_refused_with_the_limit_and_counted_nowhere_else(worker: Worker) -> None:
    calls = ask(worker, *[payload()] * 11)
    assert [len(call.answers) for call in calls] == [1] * 8 + [0] * 3
    code, message = refusal(calls[-1])
    assert code == code_pb2.RESOURCE_EXHAUSTED
    assert message.startswith("8 requests are in flight in this worker, which is its limit (limits.max_in_flight)")


def test_while_it_drains_new_requests_are_sent_elsewhere(worker: Worker) -> None:
    assert values(*ask(worker, payload())) == [1.0] * 4
    worker.pipeline.draining = True
    code, message = refusal(*ask(worker, payload()))
    assert (code, message.partition(":")[0]) == (code_pb2.UNAVAILABLE, "the server is shutting down")
    assert worker.pipeline.in_flight == 0


def test_the_earlier_of_the_calls_deadline_and_the_requests_timeout_counts(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def submit(_: Target, requests: list[Request]) -> bool:
        seen.extend(request.deadline_seconds - time.time() for request in requests)
        return True

    monkeypatch.setattr(Target, "submit", submit)
    for deadline_seconds, timeout in ((100.0, 0), (100.0, 5_000_000), (3.0, 5_000_000)):
        for _ in range(2):  # the second time by its layout
            call = Asked(time.time() + deadline_seconds)
            worker.pipeline.infer([(call, payload(timeout=timeout))])
    assert [round(seconds) for seconds in seen] == [100, 100, 5, 5, 3, 3]


def test_a_deadline_that_has_passed_is_exceeded(worker: Worker) -> None:
    call = Asked(time.time() - 1)
    worker.pipeline.infer([(call, payload())])
    assert refusal(call)[0] == code_pb2.DEADLINE_EXCEEDED
    (counts,) = worker.statistics.totals()
    assert (counts.successes, counts.failures, counts.cancelled) == (0, 1, 1)


def test_a_version_retired_between_look_up_and_lease_is_not_missed_by_its_requests(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are routed anew, and the version that came after answers them."""
    real = Target.submit
    swapped: list[bool] = []

    def submit(target: Target, requests: list[Request]) -> bool:
        if not swapped:
            swapped.append(True)
            worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 2),)))
        return real(target, requests)

    monkeypatch.setattr(Target, "submit", submit)
    calls = ask(worker, payload(id="a"), payload(id="b"), payload(version="1"))
    assert [values(call) for call in calls[:2]] == [[2.0] * 4] * 2
    assert [call.answers[0].id for call in calls[:2]] == ["a", "b"]
    assert refusal(calls[2])[0] in (code_pb2.NOT_FOUND, code_pb2.UNAVAILABLE)


def test_calls_that_are_answered_at_once_are_not_watched(worker: Worker) -> None:
    assert not any(call.watched for call in ask(worker, payload()))


def test_what_nobody_foresaw_refuses_one_request(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    target = worker.table.find("m", "1")
    assert target is not None

    def broken(_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(target, "decoder", type("Broken", (), {"decode": staticmethod(broken)}))
    code, message = refusal(*ask(worker, payload()))
    assert code == code_pb2.INTERNAL
    assert message.startswith("internal error, reference ")


def test_a_version_that_is_unloaded_lets_go_of_its_counters_at_once(worker: Worker, tmp_path: Path) -> None:
    """Their place in a full page is free then; a worker collects garbage rarely, so nothing may wait for that."""
    ask(worker, payload(), payload(version="1"))
    counters = weakref.ref(worker.writer.slot("m", 1))
    gc.collect()
    gc.disable()
    try:
        worker.order(ModelOrder(model="m", serve=(ordered(tmp_path, 2),)))
        assert worker.found() == 2
        assert counters() is None
    finally:
        gc.enable()
