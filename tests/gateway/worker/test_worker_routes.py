"""Where a route decides: a known layout decides as the decoder would, and each request is decided once a table."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.rpc import code_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from route_models import ten_times
from route_samples import REQUESTS, ROUTES
from route_samples import Asked as Sent
from support.answered_by import answered_by
from worker_parts import Asked, Worker, ordered

from gateway.messages import ModelOrder
from gateway.routing.router import Router
from gateway.routing.table import ModelRoute, RouteTable
from gateway.wire.layout import Layouts
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.pipeline import Pipeline
from gateway.worker.target import Target
from runtime.batching.request import Request
from runtime.routing.route import Route

LABELS = {"stable": 1, "canary": 2, "c": 3}
KINDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Version 1 answers 10 x, version 2 10 z; the inputs stand in another order in each."""
    root = tmp_path_factory.mktemp("models")
    made = Worker()
    made.order(
        ModelOrder(model="m", serve=(ordered(root, 1, model=ten_times("x")), ordered(root, 2, model=ten_times("z"))))
    )
    yield made
    made.close()


def message(sent: Sent, number: int, order: str, rows: int) -> bytes:
    made = pb.ModelInferRequest(model_name="m", model_version=sent.version, id=sent.request_id)
    for name, value in (sent.parameters or {}).items():
        fits = max(-(1 << 63), min(value, (1 << 63) - 1)) if type(value) is int else value
        setattr(made.parameters[name], KINDS[type(value)], fits)
    for name in order:
        values = np.full((rows, 4), number if name == "x" else -number, np.float32)
        made.inputs.add(name=name, datatype="FP32", shape=values.shape)
        made.raw_input_contents.append(values.tobytes())
    return made.SerializeToString(deterministic=True)


def ask(pipeline: Pipeline, payload: bytes, sent: Sent) -> Any:
    """What the client gets: version, values, reply metadata; or code and message."""
    call = Asked()
    call.metadata = sent.metadata
    pipeline.infer([(call, payload)])
    if call.statuses:
        (status,) = call.statuses
        return status.code, status.message
    (answer,) = call.answers
    return (
        answer.model_version,
        answer.id,
        np.frombuffer(answer.raw_output_contents[0], np.float32).tolist(),
        call.headers,
    )


class NoLayouts(Layouts[Target]):
    def find(self, payload: bytes) -> None:
        """Everything is parsed."""


SENT = st.lists(st.tuples(REQUESTS, st.sampled_from(["xz", "zx"]), st.integers(1, 2)), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROUTES, st.sampled_from(["", "1", "3", "canary"]), SENT, st.integers())
def test_layouts_and_the_decoder_decide_alike(
    worker: Worker, route: Route, default: str, requests: list[tuple[Sent, str, int]], seed: int
) -> None:
    """Also where the next lot falls: none is drawn twice for one request. Each is sent twice, to meet its layout."""
    heard: list[list[Any]] = []
    known = worker.table.models["m"].available
    pipeline = worker.pipeline
    before = pipeline.table
    for layouts in (Layouts, NoLayouts):
        router = Router("m", route, draw=random.Random(seed).random)
        pipeline.table = RouteTable([ModelRoute("m", known, LABELS, default, {3: "loading"}, router)])
        pipeline._routes.layouts = layouts()
        heard.append(
            [
                ask(pipeline, message(sent, number, order, rows), sent)
                for number, (sent, order, rows) in enumerate(requests)
                for _ in range(2)
            ]
        )
    pipeline.table = before
    assert heard[0] == heard[1]
    assert pipeline.in_flight == 0


def test_a_request_whose_version_was_retired_is_decided_anew_by_the_route_that_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    one, two = ordered(tmp_path, 1), ordered(tmp_path, 2)
    route = '{"sticky":"request_id","split":{"stable":1}}'
    worker.order(ModelOrder(model="m", serve=(one, two), labels=LABELS, route=route))
    real = Target.submit
    swapped: list[bool] = []

    def submit(target: Target, requests: list[Request]) -> bool:
        if not swapped:
            swapped.append(True)
            worker.order(ModelOrder(model="m", serve=(two,), labels=LABELS, route=route.replace("stable", "canary")))
        return real(target, requests)

    monkeypatch.setattr(Target, "submit", submit)
    calls = [Asked() for _ in range(3)]
    payload = plain("a")
    worker.pipeline.infer([(call, payload) for call in calls])
    assert [call.answers[0].model_version for call in calls] == ["2"] * 3
    told = [
        answered_by({name.decode(): value.decode() for name, value in call.headers}) for call in calls if call.headers
    ]
    assert {(each.version, each.variant, each.reason) for each in told} == {(2, "canary", "sticky")}
    worker.close()


def plain(request_id: str) -> bytes:
    made = pb.ModelInferRequest(model_name="m", id=request_id)
    made.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    made.raw_input_contents.append(bytes(16))
    return made.SerializeToString()


def test_a_version_that_a_route_names_answers_when_it_is_loaded_and_not_before(tmp_path: Path) -> None:
    """While it is prepared the route's requests to it are refused, and no other version answers them."""
    worker = Worker()
    one, two = ordered(tmp_path, 1), ordered(tmp_path, 2)
    route = '{"split":{"canary":1}}'
    sent = Sent("", (), None, "")
    worker.order(ModelOrder(model="m", serve=(one,), prepare=(two,), labels=LABELS, route=route))
    assert ask(worker.pipeline, plain(""), sent)[0] == code_pb2.UNAVAILABLE
    worker.order(ModelOrder(model="m", serve=(one, two), labels=LABELS, route=route))
    assert ask(worker.pipeline, plain(""), sent)[0] == "2"
    worker.close()


def test_a_router_outlives_the_tables_it_is_in(tmp_path: Path) -> None:
    worker = Worker()
    order = ModelOrder(model="m", serve=(ordered(tmp_path, 1),), labels=LABELS, route='{"split":{"stable":1}}')
    worker.order(order)
    router = worker.table.models["m"].router
    worker.order(order, ModelOrder(model="n"))
    assert worker.table.models["m"].router is router
    assert worker.table.models["n"].router is None
    worker.close()
