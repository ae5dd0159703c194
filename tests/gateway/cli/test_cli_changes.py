"""`driftgate load, unload, label, default`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from canned_gateway import CannedGateway, duration, iris
from click.testing import Result
from google.protobuf.json_format import ParseDict

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

Driftgate = Callable[..., Result]

REQUESTS: list[tuple[list[str], str, Any]] = [
    (["load", "iris"], "LoadModel", pb.LoadModelRequest(model="iris")),
    (
        ["load", "iris", "--version", "2", "--version", "1", "--force", "--reason", "June's data"],
        "LoadModel",
        pb.LoadModelRequest(model="iris", versions=[2, 1], force=True, reason="June's data"),
    ),
    (["unload", "iris"], "UnloadModel", pb.UnloadModelRequest(model="iris")),
    (
        ["unload", "iris", "--version", "1", "--reason", "old"],
        "UnloadModel",
        pb.UnloadModelRequest(model="iris", version=1, reason="old"),
    ),
    (
        ["label", "set", "iris", "stable", "2", "--reason", "reviewed"],
        "SetLabel",
        pb.SetLabelRequest(model="iris", label="stable", version=2, reason="reviewed"),
    ),
    (
        ["label", "delete", "iris", "stable", "--reason", "gone"],
        "DeleteLabel",
        pb.DeleteLabelRequest(model="iris", label="stable", reason="gone"),
    ),
    (
        ["default", "iris", "stable", "--reason", "promoted"],
        "SetDefault",
        pb.SetDefaultRequest(model="iris", target="stable", reason="promoted"),
    ),
    (["default", "iris", "--newest"], "SetDefault", pb.SetDefaultRequest(model="iris")),
    (["default", "iris", ""], "SetDefault", pb.SetDefaultRequest(model="iris")),
]
IDS = [" ".join(arguments) for arguments, _, _ in REQUESTS]


def _changed(**fields: Any) -> pb.ChangeResponse:
    values: dict[str, Any] = {"model": iris(), "changed": True, "audit_id": 17, "duration": duration(1.26)}
    return pb.ChangeResponse(**(values | fields))


@pytest.mark.parametrize(("arguments", "method", "request_"), REQUESTS, ids=IDS)
def test_a_change_is_asked_for_exactly_and_shows_the_state_after(
    gateway: CannedGateway, driftgate: Driftgate, arguments: list[str], method: str, request_: Any
) -> None:
    gateway.answers = {method: _changed(), "ListModels": pb.ListModelsResponse(models=[iris()])}
    result = driftgate(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    [(asked, request, _)] = gateway.asked
    assert (asked, request) == (method, request_)
    first, rest = result.stdout.split("\n", 1)
    assert first == "iris: changed, audit 17, took 1.3 s"
    assert rest == driftgate("models", "iris").stdout


@pytest.mark.parametrize(("arguments", "method", "_request"), REQUESTS[::4], ids=IDS[::4])
def test_a_change_as_json_is_the_whole_answer(
    gateway: CannedGateway, driftgate: Driftgate, arguments: list[str], method: str, _request: Any
) -> None:
    gateway.answers[method] = _changed(changed=False, audit_id=0)
    document = json.loads(driftgate(*arguments, "--json").stdout)
    assert (document["changed"], document["audit_id"]) == (False, "0")
    assert ParseDict(document, pb.ChangeResponse()) == gateway.answers[method]


def test_what_was_already_so_is_told_from_a_change(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["LoadModel"] = _changed(changed=False, duration=duration(0.004))
    assert driftgate("load", "iris").stdout.startswith("iris: unchanged, it was already so, audit 17, took 4 ms\n")


def test_a_model_that_is_gone_after_the_change_has_no_state_to_show(
    gateway: CannedGateway, driftgate: Driftgate
) -> None:
    gateway.answers["UnloadModel"] = _changed(model=None)
    assert driftgate("unload", "iris").stdout == "iris: changed, audit 17, took 1.3 s\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["load"],
        ["load", "iris", "--version", "0"],
        ["load", "iris", "--version", "stable"],
        ["unload", "iris", "--version", "0"],
        ["unload", "iris", "--version", str(2**63)],
        ["label", "set", "iris", "stable"],
        ["label", "set", "iris", "stable", "-1"],
        ["label", "delete", "iris"],
        ["default", "iris"],
        ["default", "iris", "stable", "--newest"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_usage_errors_and_nothing_is_asked(
    gateway: CannedGateway, driftgate: Driftgate, arguments: list[str]
) -> None:
    result = driftgate(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")
    assert gateway.asked == []
