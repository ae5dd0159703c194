"""A model's route, from the message on the wire to the version that answers, on both transports."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from dataplane_client import Client, Metadata, Refusal, answers, channel_to, make_request, refusal_of
from dataplane_routed import RoutedWorker, routed_worker
from route_models import ten_times
from support.answered_by import answered_by
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from gateway.wire.pb.inference import grpc_service_pb2 as pb
from runtime.shm.record_layout import Reason

TIMEOUT_SECONDS = 20.0
ROW = np.zeros((1, 4), np.float32)
Answered = tuple[int, str, str]
"""Version, variant, reason; the last two "" where the reply does not say them."""

PRECEDENCE = """
sticky: {metadata: x-user}
rules:
  - {name: staff, when: {x-team: ml}, to: canary}
  - {name: europe, when: {x-region: {prefix: eu-}}, split: {canary: 1}}
split: {stable: 1}
"""
USER, STAFF, EUROPE = ("x-user", "u1"), ("x-team", "ml"), ("x-region", "eu-1")


@pytest.fixture
def worker(transport: str, tmp_path: Path) -> Iterator[RoutedWorker]:
    with routed_worker(transport, tmp_path) as made:
        yield made


@pytest.fixture
def ask(worker: RoutedWorker) -> Iterator[Callable[..., Answered | Refusal]]:
    """Sends one request; what the reply's metadata says must be what the reply itself says."""
    with channel_to(worker.address) as channel:
        client = Client(channel)

        def send(*metadata: Any, version: str = "", id: str = "", **parameters: Any) -> Answered | Refusal:  # noqa: A002
            request = make_request("m", {"x": ROW}, version=version, id=id)
            for name, value in parameters.items():
                kind = {str: "string_param", int: "int64_param", bool: "bool_param"}[type(value)]
                setattr(request.parameters[name], kind, value)
            return sent(client, request, metadata)

        yield send


def sent(client: Client, request: pb.ModelInferRequest, metadata: Metadata = ()) -> Answered | Refusal:
    try:
        response, call = client.stub.ModelInfer.with_call(request, metadata=metadata, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        return refusal_of(error)
    by = answered_by(dict(call.initial_metadata()))
    assert (response.model_name, response.id) == (request.model_name, request.id)
    assert by.version == int(response.model_version)
    return by.version, by.variant, by.reason


class Triton:
    """tritonclient on a model of one input x."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)

    def version(self, version: str = "", headers: dict[str, str] | None = None, **options: Any) -> int:
        """The version that answered, as the values say it."""
        tensor = triton.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(ROW)
        result = self.client.infer("m", [tensor], model_version=version, headers=headers, **options)
        return int(result.as_numpy("y")[0, 0])


@pytest.fixture
def tritons(worker: RoutedWorker) -> Iterator[Triton]:
    made = Triton(worker.address)
    yield made
    made.client.close()


CASES: list[tuple[str, tuple[Any, ...], Answered]] = [
    ("2", (USER, STAFF, EUROPE), (2, "pinned", "version")),
    ("1", (USER, STAFF, EUROPE), (1, "pinned", "version")),
    ("canary", (USER,), (2, "canary", "label")),
    ("stable", (STAFF,), (1, "stable", "label")),
    ("", (USER, STAFF, EUROPE), (2, "staff/canary", "rule")),
    ("", (USER, EUROPE), (2, "europe/canary", "sticky")),
    ("", (EUROPE,), (2, "europe/canary", "drawn")),
    ("", (USER,), (1, "stable", "sticky")),
    ("", (), (1, "stable", "drawn")),
    ("", (("x-team", "sales"), ("x-region", "us-1")), (1, "stable", "drawn")),
]


def test_a_version_wins_over_a_label_over_a_rule_over_weight_over_the_default(
    worker: RoutedWorker, ask: Callable[..., Answered]
) -> None:
    """The replies, the records and the counters tell the same; each request twice, as the second has a known layout."""
    worker.order(PRECEDENCE)
    expected = [answer for _, _, answer in CASES for _ in range(2)]
    assert [ask(*metadata, version=version) for version, metadata, _ in CASES for _ in range(2)] == expected
    worker.order(PRECEDENCE.partition("split: {stable")[0], default="canary")
    assert ask(USER) == ask() == (2, "default", "default")
    worker.order()
    assert ask(USER, STAFF) == (2, "", ""), "without a default the newest answers; without a route there is no variant"
    assert ask(version="1") == (1, "pinned", "version")
    expected += [(2, "default", "default")] * 3 + [(1, "pinned", "version")]
    assert worker.recorded(len(expected)) == [(variant, Reason[reason.upper()]) for _, variant, reason in expected]
    assert worker.counted(len(expected)) == Counter((version, variant, 0) for version, variant, _ in expected)


@pytest.mark.parametrize(("version", "metadata", "expected"), CASES)
def test_tritonclient_comes_to_the_same_version(
    worker: RoutedWorker, tritons: Triton, version: str, metadata: tuple[Any, ...], expected: Answered
) -> None:
    worker.order(PRECEDENCE)
    assert tritons.version(version, headers=dict(metadata)) == expected[0]


SPLIT = "sticky: {metadata: x-user}\nsplit: {stable: 70, canary: 30}"


def test_a_key_has_one_variant_in_all_workers_and_after_restarts(transport: str, tmp_path: Path) -> None:
    """Unary and streams, with the same messages in one run or in many."""
    users = [f"user-{number}" for number in range(100)]
    told: list[list[int]] = []
    for _ in range(3):
        with routed_worker(transport, tmp_path) as worker:
            worker.order(SPLIT)
            made = Triton(worker.address)
            told.append([made.version(headers={"x-user": user}) for user in users])
            told.append([made.version(headers={"x-user": user}, request_id=user) for user in users])
            made.client.close()
            with channel_to(worker.address) as channel:
                told.append([streamed(Client(channel), 1, (("x-user", user),))[0] for user in users])
    assert all(versions == told[0] for versions in told)
    assert 10 < told[0].count(2) < 50


def streamed(client: Client, count: int, metadata: Metadata = (), **fields: Any) -> list[int]:
    """The versions that answered `count` messages of one stream; ids are their numbers."""
    requests = [make_request("m", {"x": ROW}, id=str(number), **fields) for number in range(count)]
    call = client.stub.ModelStreamInfer(iter(requests), metadata=metadata, timeout=TIMEOUT_SECONDS)
    return [int(answers(message.infer_response)["y"][0, 0]) for message in call]


def test_messages_of_one_stream_keep_the_variant_of_its_key_and_are_drawn_each_without_one(
    worker: RoutedWorker,
) -> None:
    worker.order(SPLIT)
    with channel_to(worker.address) as channel:
        client = Client(channel)
        for user in ("user-1", "user-2", "user-3", "user-4"):
            assert len({*streamed(client, 50, (("x-user", user),))}) == 1
        assert {*streamed(client, 100)} == {1, 2}, "by chance this fails once in 10^15"
    assert {reason for _, reason in worker.recorded(300)} == {Reason.STICKY, Reason.DRAWN}


def test_the_request_id_is_a_key_though_it_is_no_part_of_a_layout(
    worker: RoutedWorker, ask: Callable[..., Answered]
) -> None:
    """Ids of one length, so that all but the first are read by their layout; on a stream too."""
    worker.order("sticky: request_id\nsplit: {stable: 50, canary: 50}")
    ids = [f"{number:02}" for number in range(10, 60)]
    first = [ask(id=each) for each in ids]
    assert [ask(id=each) for each in ids] == first
    assert {variant for _, variant, _ in first} == {"stable", "canary"}
    assert {reason for _, _, reason in first} == {"sticky"}
    with channel_to(worker.address) as channel:
        assert streamed(Client(channel), 60)[10:] == [version for version, _, _ in first]


@pytest.mark.parametrize("values", [("ann", "bob", "eve", "joe"), (1, 2, 3, 4), (True, False)])
def test_a_parameter_is_a_key(worker: RoutedWorker, ask: Callable[..., Answered], values: tuple[Any, ...]) -> None:
    worker.order("sticky: {parameter: user}\nsplit: {a: {to: 1, weight: 1}, b: {to: 2, weight: 1}}")
    told = [[ask(user=value, other="x") for value in values] for _ in range(4)]
    assert told == [told[0]] * 4
    assert {answer[2] for answer in told[0]} == {"sticky"}
    assert ask(other="x")[2] == ask()[2] == "drawn"


LEADS_NOWHERE = [
    ("split: {broken: 1}", "broken", "model 'm' version 3 is not ready: failed: the file is empty"),
    ("split: {old: {to: 3, weight: 1}}", "old", "model 'm' version 3 is not ready: failed: the file is empty"),
    ("split: {lost: 1}", "lost", "model 'm' has no version or label 'lost'"),
    ("split: {gone: {to: 7, weight: 1}}", "gone", "model 'm' has no version or label '7'"),
    ("split: {nobody: 1}", "nobody", "model 'm' has no version or label 'nobody'"),
    ("rules: [{name: r, when: {x-a: b}, to: broken}]", "r/broken", "model 'm' version 3 is not ready"),
]


@pytest.mark.parametrize(("route", "variant", "message"), LEADS_NOWHERE)
def test_a_variant_that_cannot_answer_is_unavailable_and_no_other_answers_for_it(
    worker: RoutedWorker, ask: Callable[..., Refusal], route: str, variant: str, message: str
) -> None:
    worker.order(route)
    for _ in range(2):
        refusal = ask(("x-a", "b"))
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.message.startswith(message)
        assert refusal.message.endswith(f"(the model's route leads this request there, as variant {variant!r})")
    assert isinstance(ask(version="1"), tuple), "who names a version gets it"


def test_refusals_count_as_those_of_the_version_that_the_route_names(
    worker: RoutedWorker, ask: Callable[..., Answered | Refusal]
) -> None:
    worker.order("sticky: request_id\nsplit: {stable: 1, broken: 1}")
    told = [ask(id=f"{number:02}") for number in range(40)]
    refused = sum(isinstance(answer, Refusal) for answer in told)
    assert 0 < refused < 40
    unavailable = grpc.StatusCode.UNAVAILABLE.value[0]
    assert worker.counted(40) == {(1, "stable", 0): 40 - refused, (3, "broken", unavailable): refused}


def test_through_tritonclient_and_streams_too(worker: RoutedWorker, tritons: Triton) -> None:
    worker.order("split: {broken: 1}")
    with pytest.raises(InferenceServerException, match="version 3 is not ready") as caught:
        tritons.version()
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    with channel_to(worker.address) as channel:
        call = Client(channel).stub.ModelStreamInfer(iter([make_request("m", {"x": ROW})]), timeout=TIMEOUT_SECONDS)
        assert [message.error_message.partition(":")[0] for message in call] == ["model 'm' version 3 is not ready"]


def test_versions_of_different_signatures_stand_behind_one_split(worker: RoutedWorker) -> None:
    """Version 1 has the inputs x, z and answers from x; version 2 has z, x and answers from z."""
    worker.order("sticky: request_id\nsplit: {stable: 50, canary: 50}", models={1: ten_times("x"), 2: ten_times("z")})
    with channel_to(worker.address) as channel:
        client = Client(channel)
        seen = set()
        for number, order in itertools.product(range(10, 40), ("xz", "zx")):
            values = {"x": np.full((1, 4), number, np.float32), "z": np.full((1, 4), -number, np.float32)}
            request = make_request("m", {name: values[name] for name in order}, id=str(number))
            response = client.response(request)
            expected = 10.0 * number if response.model_version == "1" else -10.0 * number
            np.testing.assert_array_equal(answers(response)["y"], np.full((1, 4), expected, np.float32))
            seen.add((response.model_version, order))
        assert seen == {("1", "xz"), ("1", "zx"), ("2", "xz"), ("2", "zx")}


def test_a_request_that_one_version_takes_and_the_other_refuses(
    worker: RoutedWorker, ask: Callable[..., Answered | Refusal]
) -> None:
    worker.order("sticky: request_id\nsplit: {stable: 50, canary: 50}", models={2: ten_times("x")})
    told = [ask(id=f"{number:02}") for number in range(40)]
    answered = [answer for answer in told if isinstance(answer, tuple)]
    refusals = [answer for answer in told if isinstance(answer, Refusal)]
    assert {*answered} == {(1, "stable", "sticky")}
    assert {refusal.code for refusal in refusals} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert worker.counted(40) == {(1, "stable", 0): len(answered), (2, "canary", 3): len(refusals)}


def test_a_new_route_is_followed_by_the_next_request_and_one_that_is_gone_leaves_the_default(
    worker: RoutedWorker, ask: Callable[..., Answered]
) -> None:
    for route, default, expected in (
        ("split: {stable: 1}", "canary", (1, "stable", "drawn")),
        ("split: {canary: 1}", "stable", (2, "canary", "drawn")),
        ("{}", "stable", (1, "", "")),
        ("salt: x", "canary", (2, "", "")),
        ("rules: [{name: r, when: {a: b}, to: broken}]", "canary", (2, "default", "default")),
        ("split: {stable: 0, new: {to: 2, weight: 1}}", "stable", (2, "new", "drawn")),
        ("", "stable", (1, "", "")),
    ):
        worker.order(route, default)
        assert [ask() for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize(
    ("route", "default", "serves"),
    [
        ("", "stable", True),
        ("", "broken", False),
        ("rules: [{name: r, when: {a: b}, to: broken}]", "stable", True),
        ("rules: [{name: r, when: {a: b}, to: stable}]", "broken", False),
        ("split: {stable: 95, broken: 5}", "broken", True),  # a canary that fails takes no replica out of service
        ("split: {stable: 5, broken: 95}", "stable", False),
        ("split: {stable: 1, broken: 1}", "stable", True),
        ("split: {stable: 1, broken: 1, lost: 1}", "stable", False),
        ("split: {stable: 0, broken: 1}", "stable", False),
    ],
)
def test_a_model_serves_while_most_of_what_names_no_version_is_answered(
    worker: RoutedWorker, route: str, default: str, serves: bool
) -> None:
    worker.order(route, default)
    assert worker.health() == {
        "": True, "inference.GRPCInferenceService": True, "m": serves, "m/1": True, "m/2": True, "m/3": False
    }  # fmt: skip
