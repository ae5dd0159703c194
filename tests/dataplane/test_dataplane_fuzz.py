"""The request decoder under fire: the real pipeline in this process, and a real gateway over the wire.

Whatever the bytes, a request is either answered as its own shapes say, or refused as the caller's fault. A message
that is answered from a remembered layout must mean what the decoder says that it means.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from dataplane_client import TIMEOUT_SECONDS, Client, answers, make_request, refusal_of
from dataplane_mutations import CONTENTS, MODELS, NAMES, PARAMETERS, RAWS, SIZES, mutated, seeds
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from zoo import write_repository

from gateway.errors import Status
from gateway.routing.table import ModelRoute, RouteTable
from gateway.wire.decode import Decoder, check_parameters
from gateway.wire.pb.inference import grpc_service_pb2 as pb
from gateway.worker.pipeline import Pipeline
from gateway.worker.target import Target
from runtime.batching.request import Request
from runtime.batching.rows import gather
from runtime.errors import CallerError, ServingError
from runtime.repository.manifest import Manifest
from runtime.shm.statistics import StatisticsWriter
from runtime.shm.statistics_layout import create_page
from runtime.types import Artifact
from runtime.versions.version import LoadedVersion, load_version

SEEDS = 450
CASES_PER_SEED = 50
WIRE_CASES = 300
CALLERS = {code.value[0] for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)}
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]  # a timeout of a few microseconds is a valid wish
MAX_MESSAGE_CHARACTERS = 1100


class RecordedCall:
    """What the pipeline did with one request; a second answer is an error of its own."""

    method = "/inference.GRPCInferenceService/ModelInfer"
    metadata = ()
    deadline_seconds = float("inf")
    cancelled = False
    received_ns = 0
    trace = None

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.statuses: list[Status] = []
        self._settled = threading.Event()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def watch(self) -> None:
        """Nobody cancels here."""

    def answer(self, payload: bytes, headers: Any = None) -> None:
        self.payloads.append(payload)
        self._settled.set()

    def refuse(self, status: Status) -> None:
        self.statuses.append(status)
        self._settled.set()

    def outcome(self) -> pb.ModelInferResponse | Status:
        assert self._settled.wait(TIMEOUT_SECONDS), "the request was never settled"
        assert len(self.payloads) + len(self.statuses) == 1
        return pb.ModelInferResponse.FromString(self.payloads[0]) if self.payloads else self.statuses[0]


class Bench:
    """The data plane from payload to outcome, without a transport."""

    def __init__(self, root: Path) -> None:
        self.pipeline = Pipeline(1024, lambda _: None)
        self._page = create_page("driftgate-fuzz")
        writer = StatisticsWriter(self._page)
        self._versions: list[LoadedVersion] = []
        routes = []
        for name in MODELS:
            artifact = Artifact(name, 1, "sha256:0", str(root / name / "1"), 0)
            version = load_version(artifact, Manifest(), lambda: None)
            target = Target(version, writer.slot(name, 1), self.pipeline.done)
            version.start(target)
            self._versions.append(version)
            routes.append(ModelRoute(name, {1: target}, labels={"stable": 1}))
        self.pipeline.table = RouteTable(routes)

    def close(self) -> None:
        for version in self._versions:
            version.unload()

    def send(self, payload: bytes) -> pb.ModelInferResponse | Status:
        call = RecordedCall()
        self.pipeline.infer([(call, payload)])
        outcome = call.outcome()
        assert self.pipeline.in_flight == 0
        return outcome

    def decoded(self, payload: bytes) -> tuple[pb.ModelInferRequest, Decoder, Request] | CallerError | None:
        """What the decoder alone says; None where the bytes are no message. Anything else it raises is a bug."""
        try:
            message = pb.ModelInferRequest.FromString(payload)
        except DecodeError:
            return None
        table = self.pipeline.table
        target = table.find(message.model_name, message.model_version)
        try:
            if target is None:
                raise table.why_not(message.model_name, message.model_version)
            request = target.decoder.decode(message)
            check_parameters(message.parameters)
        except CallerError as error:
            return error
        return message, target.decoder, request

    def check(self, payload: bytes) -> None:
        expected = self.decoded(payload)
        outcome = self.send(payload)
        if isinstance(outcome, Status):
            assert outcome.code in CALLERS or outcome.code == DEADLINE, outcome
            assert 0 < len(outcome.message) < MAX_MESSAGE_CHARACTERS
            if outcome.code == DEADLINE:
                assert isinstance(expected, tuple)
            elif isinstance(expected, ServingError):
                assert outcome.message[:100] == expected.message[:100]
            return
        assert isinstance(expected, tuple), f"answered, though the decoder says {expected!r}"
        message, decoder, request = expected
        arrays = gather([request], decoder._signature)
        assert [array.shape for array in arrays.values()] == [tuple(shape) for shape in request.shapes]
        assert outcome.id == message.id
        assert outcome.model_name == message.model_name
        assert len(outcome.outputs) == len(request.outputs)
        answers(outcome)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(write_repository(tmp_path_factory.mktemp("fuzz"), MODELS))
    yield made
    made.close()


@pytest.fixture(scope="module")
def corpus() -> list[bytes]:
    return seeds()


def test_the_corpus_is_sound(bench: Bench, corpus: list[bytes]) -> None:
    """Else the mutations would only ever show refusals."""
    for payload in corpus:
        for _ in range(2):  # the second time from the remembered layout
            assert isinstance(bench.send(payload), pb.ModelInferResponse)
            bench.check(payload)


@settings(
    max_examples=SEEDS,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a seed cannot be shrunk
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**63))
def test_mutated_requests_are_answered_as_they_say_or_refused(bench: Bench, corpus: list[bytes], seed: int) -> None:
    source = random.Random(seed)
    for _ in range(CASES_PER_SEED):
        payload = mutated(source, corpus)
        try:
            bench.check(payload)
        except Exception as error:
            raise AssertionError(f"payload {payload.hex()}") from error


shapes = st.lists(st.sampled_from(SIZES) | st.integers(-(2**63), 2**63 - 1), max_size=5)
texts = st.sampled_from(NAMES) | st.text(max_size=5)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    """Any structure that the message can have, biased towards names and types that the models know."""
    request = pb.ModelInferRequest(
        model_name=draw(st.sampled_from(MODELS) | texts),
        model_version=draw(st.sampled_from(("", "", "1", "stable", "2")) | texts),
        id=draw(texts),
    )
    for _ in range(draw(st.integers(0, 4))):
        tensor = request.inputs.add(
            name=draw(st.sampled_from(("x", "y", "a", "b", "n")) | texts),
            datatype=draw(st.sampled_from((*CONTENTS, "FP16", "BF16")) | texts),
            shape=draw(shapes),
        )
        if draw(st.booleans()):
            tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=8)))
        if draw(st.booleans()):
            tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
    request.raw_input_contents.extend(draw(st.lists(st.sampled_from(RAWS) | st.binary(max_size=70), max_size=4)))
    for name in draw(st.lists(texts, max_size=2)):
        request.outputs.add(name=name)
    for name in draw(st.lists(st.sampled_from(PARAMETERS), max_size=2)):
        request.parameters[name].int64_param = draw(st.sampled_from(SIZES))
    return request


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(request=requests())
def test_requests_of_any_structure_are_answered_as_they_say_or_refused(
    bench: Bench, request: pb.ModelInferRequest
) -> None:
    bench.check(request.SerializeToString())


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=200))
def test_any_bytes_at_all_are_refused_or_answered(bench: Bench, payload: bytes) -> None:
    bench.check(payload)


def test_mutated_requests_over_the_wire_never_show_an_internal_error(client: Client, corpus: list[bytes]) -> None:
    source = random.Random(2)
    payloads = [mutated(source, corpus) for _ in range(WIRE_CASES)]
    futures = [client.infer_bytes.future(payload, timeout=TIMEOUT_SECONDS) for payload in payloads]
    answered = 0
    for payload, future in zip(payloads, futures, strict=True):
        try:
            answers(pb.ModelInferResponse.FromString(future.result()))
            answered += 1
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            assert refusal.code.value[0] in {*CALLERS, DEADLINE}, payload.hex()
            assert refusal.details["ErrorInfo"].domain == "driftgate"
    assert 0 < answered < WIRE_CASES
    x = np.zeros((1, 4), dtype=np.float32)
    assert client.infer(make_request("add_const", {"x": x}))["y"][0, 0] == 1
