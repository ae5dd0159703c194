"""The access log of a real gateway: each request that it is set to show is one line, whatever becomes of the reader."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from support.gateway import Gateway
from support.load import infer_request
from zoo import versioned, write_version

from gateway.wire.pb.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

pytestmark = pytest.mark.process

LINE_SECONDS = 20.0
CALL_SECONDS = 30.0
NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Caller:
    """Sends requests with ids and traces of their own; answers the status of each."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated

    def call(self, model: str, identity: str, trace_id: str = "", rows: int = 1) -> grpc.StatusCode:
        request = infer_request(model, np.zeros((rows, 4), np.float32), "")
        request.id = identity
        parent = f"00-{trace_id or secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        try:
            self._stub.ModelInfer(request, metadata=(("traceparent", parent),), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            return error.code()  # type: ignore[no-any-return]
        return grpc.StatusCode.OK


@contextmanager
def serving(folder: Path, access_log: str, ratio: float = 0.0, **settings: Any) -> Iterator[tuple[Gateway, Caller]]:
    write_version(folder / "models", "m", 1, versioned(1.0))
    config = {"telemetry": {"access_log": access_log, "access_log_ratio": ratio}}
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    arguments = {"log_format": "json", "workers": 2, **settings}
    with (
        Gateway(folder / "models", folder / "state", config=config, **arguments) as gateway,
        grpc.insecure_channel(gateway.grpc, options=options) as channel,
    ):
        yield gateway, Caller(channel)


def lines(gateway: Gateway) -> list[dict[str, Any]]:
    """Of the access log, among all lines of the processes."""
    found = [json.loads(line) for line in gateway.log.splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in found if line["logger"] == "access"]


def until_lines(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    gateway.wait_for(lambda: len(lines(gateway)) >= count, LINE_SECONDS, f"to write {count} lines of the access log")
    return lines(gateway)


def test_every_request_is_one_line_with_what_the_client_knows_of_it(tmp_path: Path) -> None:
    traces = {f"r-{number}": secrets.token_hex(16) for number in range(50)}
    with serving(tmp_path, "all") as (gateway, caller):
        for identity, trace_id in traces.items():
            assert caller.call("m", identity, trace_id, rows=3) is grpc.StatusCode.OK
        assert caller.call("nobody", "lost", "ab" * 16) is NOT_FOUND
        found = until_lines(gateway, 51)
    answered = [line for line in found if line["code"] == "OK"]
    assert {line["request_id"]: line["trace_id"] for line in answered} == traces
    assert len(found) == len(lines(gateway)) == 51
    assert {(line["model"], line["version"], line["reason"], line["rows"]) for line in answered} == {
        ("m", 1, "default", 3)
    }
    assert all(line["digest"].startswith("sha256:") for line in answered)
    assert all(line["peer"].startswith("127.0.0.1:") for line in found)
    assert all(0 <= line["queue_ms"] + line["run_ms"] <= line["duration_ms"] < 1000 * CALL_SECONDS for line in answered)
    (refused,) = (line for line in found if line["code"] != "OK")
    assert (refused["code"], refused["refusal"], refused["level"]) == ("NOT_FOUND", "NOT_FOUND", "warning")
    assert "nobody" in refused["driftgate.refusal.message"]
    assert refused["trace_id"] == "ab" * 16
    assert "model" not in refused


def test_ids_of_clients_are_escaped_whether_answered_or_refused(tmp_path: Path) -> None:
    with serving(tmp_path, "all") as (gateway, caller):
        caller.call("m", "new\nline \x1b[2J é")
        caller.call("nobody", 'quote" \u202e')
        found = until_lines(gateway, 2)
        text = gateway.log
    assert [line.get("request_id") for line in found] == ["new\nline \x1b[2J é", 'quote" \u202e']
    assert all(line.isprintable() for line in text.splitlines())


def test_errors_alone_are_shown_where_only_they_are_asked_for(tmp_path: Path) -> None:
    traces = [secrets.token_hex(16) for _ in range(20)]
    with serving(tmp_path, "errors") as (gateway, caller):
        for trace_id in traces:
            caller.call("m", "good")
            caller.call("nobody", "bad", trace_id)
        found = until_lines(gateway, 20)
    assert sorted(line["trace_id"] for line in found) == sorted(traces)
    assert len(lines(gateway)) == 20


def test_a_sample_shows_whole_traces_and_every_error(tmp_path: Path) -> None:
    traces = [secrets.token_hex(16) for _ in range(200)]
    with serving(tmp_path, "sampled", 0.5) as (gateway, caller):
        for turn in range(2):
            for trace_id in traces:
                caller.call("m", f"{trace_id}-{turn}", trace_id)
        caller.call("nobody", "last", "ab" * 16)
        gateway.wait_for(
            lambda: "ab" * 16 in {line["trace_id"] for line in lines(gateway)}, LINE_SECONDS, "to show the last one"
        )
    shown = [line["trace_id"] for line in lines(gateway) if line["code"] == "OK"]
    assert set(shown) < set(traces)
    assert len(shown) == 2 * len(set(shown)), "both requests of a trace, or neither"
    assert 50 < len(set(shown)) < 150


def test_off_shows_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "off") as (gateway, caller):
        caller.call("m", "one")
        caller.call("nobody", "two")
    assert lines(gateway) == []


def test_people_get_text(tmp_path: Path) -> None:
    with serving(tmp_path, "all", log_format="text") as (gateway, caller):
        caller.call("m", "my-id", "cd" * 16)
        gateway.wait_for(lambda: "id=my-id" in gateway.log, LINE_SECONDS, "to write the line")
    (line,) = (line for line in gateway.log.splitlines() if "id=my-id" in line)
    assert " ModelInfer m/1 (default" in line
    assert f"trace={'cd' * 16}" in line


def test_an_output_that_nobody_reads_delays_no_answer_and_no_end(tmp_path: Path) -> None:
    """More lines than the pipe holds; then the gateway ends as ever, and what the pipe has are whole lines."""
    reading, writing = os.pipe()
    try:
        with serving(tmp_path, "all", output=writing) as (_, caller):
            os.close(writing)
            statuses = [caller.call("m", f"{number:064d}") for number in range(400)]
        assert statuses == [grpc.StatusCode.OK] * 400
        data = b"".join(iter(lambda: os.read(reading, 1 << 16), b""))
    finally:
        os.close(reading)
    found = [json.loads(line) for line in data.splitlines()]
    assert 0 < len(found) < 400
    assert {line["logger"] for line in found} == {"access"}
