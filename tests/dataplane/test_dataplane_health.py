"""grpc.health.v1, server reflection and the HTTP port beside the data plane."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
import pytest
from dataplane_client import TIMEOUT_SECONDS, Client, make_request, refused
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support.gateway import Gateway

from gateway.wire.pb.inference import grpc_service_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
POLL_SECONDS = 0.01
INFERENCE = "inference.GRPCInferenceService"


class Watching:
    """A Watch, and a queue of the statuses it has told."""

    def __init__(self, client: Client, service: str) -> None:
        request = health_pb2.HealthCheckRequest(service=service)
        self.call = health_pb2_grpc.HealthStub(client.channel).Watch(request, timeout=TIMEOUT_SECONDS)
        self.heard: queue.Queue[Any] = queue.Queue()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self) -> None:
        try:
            for message in self.call:
                self.heard.put(message.status)
        except grpc.RpcError as error:
            self.heard.put(error.code())

    def next(self) -> Any:
        return self.heard.get(timeout=TIMEOUT_SECONDS)

    def cancel(self) -> None:
        self.call.cancel()
        assert self.next() is grpc.StatusCode.CANCELLED
        self.thread.join()


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("", SERVING),
        (INFERENCE, SERVING),
        ("mlp", SERVING),
        ("mlp/1", SERVING),
        ("versions/10", SERVING),
        ("broken", NOT_SERVING),
        ("broken/1", NOT_SERVING),
    ],
)
def test_check_knows_the_server_models_and_versions(client: Client, service: str, status: Any) -> None:
    request = health_pb2.HealthCheckRequest(service=service)
    assert health_pb2_grpc.HealthStub(client.channel).Check(request, timeout=TIMEOUT_SECONDS).status == status


@pytest.mark.parametrize("service", ["nowhere", "mlp/2", "mlp/", "x" * 5000])
def test_check_of_what_there_is_not(client: Client, service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service)
    refusal = refused(lambda: health_pb2_grpc.HealthStub(client.channel).Check(request, timeout=TIMEOUT_SECONDS))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert f"no service or model '{service[:100]}" in refusal.message


def test_watch_tells_the_state_and_each_change_of_it(client: Client) -> None:
    """An unload and a load in one other connection's sight."""
    model, version, server = (Watching(client, service) for service in ("spare", "spare/1", ""))
    assert [watch.next() for watch in (model, version, server)] == [SERVING] * 3
    client.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="spare"), timeout=TIMEOUT_SECONDS)
    assert [model.next(), version.next()] == [NOT_SERVING] * 2
    client.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="spare"), timeout=TIMEOUT_SECONDS)
    assert [model.next(), version.next()] == [SERVING] * 2
    for watch in (model, version, server):
        assert watch.heard.empty()
        watch.cancel()


def test_watch_of_what_there_is_not_says_so_and_waits(client: Client) -> None:
    watch = Watching(client, "nowhere")
    assert watch.next() == SERVICE_UNKNOWN
    assert watch.call.is_active()
    watch.cancel()


def test_health_messages_that_are_none(client: Client) -> None:
    check: Any = client.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert refused(lambda: check(b"\x0a\xff", timeout=TIMEOUT_SECONDS)).code is grpc.StatusCode.INVALID_ARGUMENT
    watch: Any = client.channel.unary_stream("/grpc.health.v1.Health/Watch")
    assert refused(lambda: list(watch(b"\x0a\xff", timeout=TIMEOUT_SECONDS))).code is grpc.StatusCode.INVALID_ARGUMENT


def reflect(client: Client, requests: Iterable[Any]) -> list[Any]:
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    return list(stub.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_SECONDS))


def test_reflection_lists_services_and_answers_each_request_in_turn(client: Client) -> None:
    request = reflection_pb2.ServerReflectionRequest
    listed, by_symbol, by_name, unknown = reflect(
        client,
        [
            request(list_services=""),
            request(file_containing_symbol=INFERENCE),
            request(file_by_filename="inference/model_config.proto"),
            request(file_containing_symbol="nothing.Here"),
        ],
    )
    services = {service.name for service in listed.list_services_response.service}
    assert services == {INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(f)
        for f in by_symbol.file_descriptor_response.file_descriptor_proto
    ]
    (service,) = [service for file in files for service in file.service]
    assert {method.name for method in service.method} >= {"ModelInfer", "ModelStreamInfer", "ServerLive"}
    assert len(by_name.file_descriptor_response.file_descriptor_proto) == 1
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_the_v1alpha_client_of_grpcio_finds_the_service(client: Client) -> None:
    database = ProtoReflectionDescriptorDatabase(client.channel)
    assert INFERENCE in database.get_services()
    file = database.FindFileContainingSymbol("inference.ModelInferRequest")
    assert "ModelInferRequest" in {message.name for message in file.message_type}


def test_reflection_answers_under_its_v1_name_too(client: Client) -> None:
    call: Any = client.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    payload = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    (answer,) = call(iter([payload]), timeout=TIMEOUT_SECONDS)
    response = reflection_pb2.ServerReflectionResponse.FromString(answer)
    assert INFERENCE in {service.name for service in response.list_services_response.service}
    bad = refused(lambda: list(call(iter([b"\xff\xff"]), timeout=TIMEOUT_SECONDS)))
    assert bad.code is grpc.StatusCode.INVALID_ARGUMENT


def test_http_answers_live_ready_and_metrics(gateway: Gateway) -> None:
    status, body = gateway.get("/livez")
    assert (status, json.loads(body)["live"]) == (200, True)
    status, body = gateway.get("/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reason": ""})
    assert gateway.get("/nothing")[0] == 404


def test_metrics_count_requests_of_each_version(gateway: Gateway, client: Client) -> None:
    newest = {"driftgate_model_name": "newest", "driftgate_model_version": "9"}

    def succeeded() -> float:
        return gateway.metric("driftgate_requests_total", rpc_response_status_code="OK", **newest)

    before = succeeded()
    for _ in range(3):
        client.infer(make_request("newest", {"x": np.zeros((1, 4), dtype=np.float32)}, version="9"))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while succeeded() < before + 3 and time.monotonic() < deadline:  # counted after the reply
        time.sleep(POLL_SECONDS)
    assert succeeded() == before + 3
    assert gateway.metric("driftgate_workers_serving") == gateway.metric("driftgate_workers_expected") == 1
    assert gateway.metric("driftgate_process_restarts_total") == 0
    served = {"driftgate_model_name": "versions", "driftgate_model_version": "10"}
    assert gateway.metric("driftgate_model_served", **served) == 1
    for process in ("0", "control", "supervisor"):
        assert gateway.metric("process_memory_usage_bytes", driftgate_process=process) > 1 << 20
