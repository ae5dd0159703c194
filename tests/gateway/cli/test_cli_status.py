"""`driftgate status`."""

from __future__ import annotations

import json
from collections.abc import Callable

from canned_gateway import CannedGateway, timestamp
from click.testing import Result
from google.protobuf.json_format import ParseDict

from gateway.wire.pb.driftgate.admin.v1 import admin_pb2 as pb

Driftgate = Callable[..., Result]


def test_a_ready_gateway_is_shown_with_its_workers(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetStatus"] = pb.GetStatusResponse(
        version="0.1.0", ready=True, started_at=timestamp(1_750_000_000), state_dir="/var/lib/driftgate",
        workers=[
            pb.Worker(index=0, pid=4711, state="serving", transport="queue", requests_in_flight=12),
            pb.Worker(index=1, state="down", restarts=3),
        ],
    )  # fmt: skip
    result = driftgate("status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "driftgate 0.1.0  ready",
        "started     2025-06-15T15:06:40Z",
        "state       /var/lib/driftgate",
        "",
        "WORKER   PID  STATE    TRANSPORT  RESTARTS  IN FLIGHT",
        "     0  4711  serving  queue             0         12",
        "     1     -  down     -                 3          0",
    ]


def test_a_gateway_that_is_not_ready_says_why(gateway: CannedGateway, driftgate: Driftgate) -> None:
    gateway.answers["GetStatus"] = pb.GetStatusResponse(
        version="0.1.0", ready_reason="iris: loading", repository_problem="/models: permission denied"
    )
    result = driftgate("status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "driftgate 0.1.0  not ready: iris: loading",
        "state       -",
        "repository  /models: permission denied",
    ]


def test_json_is_the_whole_message(gateway: CannedGateway, driftgate: Driftgate) -> None:
    sent = pb.GetStatusResponse(version="0.1.0", workers=[pb.Worker(index=0)])
    gateway.answers["GetStatus"] = sent
    document = json.loads(driftgate("status", "--json").stdout)
    assert (document["ready"], document["repository_problem"], document["workers"][0]["restarts"]) == (False, "", 0)
    assert ParseDict(document, pb.GetStatusResponse()) == sent
